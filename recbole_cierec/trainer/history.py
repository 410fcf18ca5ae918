"""What happened in each epoch of a run: one row an epoch, as JSON lines next to the checkpoint.

``saved/RUN.history.jsonl`` belongs to ``saved/RUN.pth``. A row has

- ``epoch``, from 0, and ``phase``: ``pretraining`` (first phase of a trainer of two) or
  ``training``;
- ``loss``: the sum over batches, and ``losses``: its parts (one, for most models);
- ``seconds``: wall time by ``train`` and ``valid``;
- ``learning_rates``: by optimizer, one for each of its parameter groups;
- ``valid``: every metric by its name, with groups (``recall@10_cold``); absent without validation;
- ``gates``: by branch, means over the epoch of ``scale``, ``reward`` and ``q``, and ``actions``,
  the number of batches by scale; for the rules that replace gates, means of what they report;
  absent without gradient gates.

Values that are not finite, such as the metrics of an empty group, are null. The file holds the
rows up to the newest checkpoint. A resumed run drops those after its checkpoint's epoch, so that it
ends with the rows of an uninterrupted run, but for the seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from recbole_cierec.errors import DataError
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.files.json_lines import json_plain
from recbole_cierec.files.run_files import next_to

SUFFIX = ".history.jsonl"
Row = dict[str, Any]


def history_file(checkpoint: Path) -> Path:
    """The history's path, for the best or the last checkpoint of a run."""
    return next_to(checkpoint, SUFFIX)


class History:
    """The rows of a run.

    Attributes:
        rows: In order of their epochs; the last one grows until its epoch ends.
    """

    def __init__(self, rows: list[Row] | None = None) -> None:
        self.rows = rows or []
        self._written: tuple[Path, str] | None = None

    def note(self, epoch: int, **cells: Any) -> Row:
        """Add cells to the row of the current epoch, which is made if it is new; returns it.

        A cell that is a dict is merged with an earlier one of the same name.
        """
        if not self.rows or self.rows[-1]["epoch"] != epoch:
            self.rows.append({"epoch": epoch})
        row = self.rows[-1]
        for name, value in cells.items():
            both = isinstance(value, dict) and isinstance(row.get(name), dict)
            row[name] = json_plain({**row[name], **value} if both else value)
        return row

    def drop_after(self, epoch: int) -> None:
        """Drop the rows of later epochs."""
        self.rows = [row for row in self.rows if row["epoch"] <= epoch]

    def write(self, path: Path) -> None:
        """Write all rows, completely or not at all; nothing if they are there already.

        Raises:
            OutputError: The file cannot be written.
        """
        text = "".join(json.dumps(row, allow_nan=False) + "\n" for row in self.rows)
        if self._written != (path, text):
            with replacing(path) as stream:
                stream.write(text.encode())
            self._written = path, text

    @classmethod
    def read(cls, path: Path) -> History:
        """The rows in a file; none if there is no file.

        Raises:
            DataError: The file is damaged.
        """
        try:
            lines = path.read_bytes().splitlines()
        except FileNotFoundError:
            return cls()
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            rows = [json.loads(line) for line in lines]
            if not all(type(row["epoch"]) is int for row in rows):
                raise ValueError("a row has no epoch")
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise DataError(
                f"{path}: not a history of a run ({str(error)[:80]}); remove it to go without"
            ) from error
        return cls(rows)
