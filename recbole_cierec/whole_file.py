"""Files that are replaced whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

# Starts the names of files that are not whole yet; such that no other program's are meant, since
# old ones are cleared.
TEMPORARY = ".recbole_cierec-"


@contextmanager
def replacing(file: Path, prefix: str = TEMPORARY) -> Iterator[BinaryIO]:
    """Write a file under another name and put it in place when it is complete and on the disk.

    Args:
        file: The final name; its folder is made.
        prefix: Starts the other name, by which leftovers of a killed process are known.

    Yields:
        A binary stream.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f"{prefix}{uuid.uuid4().hex[:12]}-{file.name}.tmp")
    try:
        with temporary.open("wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
