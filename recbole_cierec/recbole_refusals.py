"""What RecBole refuses on purpose, as an error of the user's.

Most is checked before RecBole sees it. Of the rest, what RecBole itself raises has words for the
user; what Python or numpy raises inside of RecBole is a fault, and keeps its trace.
"""

from __future__ import annotations

import dis
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from recbole_cierec.errors import DataError, UserError

_RAISE = dis.opmap["RAISE_VARARGS"]


@contextmanager
def as_data_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Within, a refusal of RecBole's is one line.

    Args:
        config: RecBole's configuration, for the names of the model and the data set.

    Raises:
        DataError: In place of a ValueError and the like that RecBole's code raises.
    """
    try:
        yield
    except (ValueError, AssertionError, NotImplementedError, TypeError) as error:
        if isinstance(error, UserError) or not raised_by_recbole(error.__traceback__):
            raise
        words = " ".join(str(error).split())
        raise DataError(f"{config['dataset']}, for {config['model']}: {words}") from error


def raised_by_recbole(trace: TracebackType | None) -> bool:
    """Whether a statement ``raise`` or ``assert`` of RecBole's raised it, and nothing below."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return False
    code = trace.tb_frame.f_code
    module = trace.tb_frame.f_globals.get("__name__", "")
    return module.split(".")[0] == "recbole" and code.co_code[trace.tb_lasti] == _RAISE
