"""Lines of the input that cannot be used: counted, a few of them named, and at most a share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from recbole_cierec.errors import DataError

EXAMPLES = 20  # of each file, in the report


@dataclass
class BadLines:
    """Collects unusable lines of all input files.

    Args:
        max_share: Of a file's records; more stop the conversion.

    Attributes:
        files: One entry a file that has any: file, records, bad, examples (line, reason).
    """

    max_share: float
    files: list[dict] = field(default_factory=list)

    def add(self, path: Path, records: int, bad: int, examples: Iterable[tuple[int, str]]) -> None:
        """Note what one file had.

        Args:
            path: The file.
            records: Number of its records, the bad ones included.
            bad: Number of bad ones.
            examples: Line number and reason of the first of them.

        Raises:
            DataError: Nothing could be read, or the share is above the limit.
        """
        if records == 0:
            raise DataError(f"{path}: holds no records; is the download complete?")
        if bad == 0:
            return
        first = list(examples)[:EXAMPLES]
        shown = [{"line": line, "reason": reason} for line, reason in first]
        self.files.append({"file": path.name, "records": records, "bad": bad, "first": shown})
        if bad > self.max_share * records:
            where = f" (the first: line {first[0][0]}, {first[0][1]})" if first else ""
            raise DataError(
                f"{path}: {bad} of {records} records cannot be used{where}; give the right file or "
                "raise --max-bad-share"
            )

    @property
    def total(self) -> int:
        """Bad records of all files."""
        return sum(entry["bad"] for entry in self.files)

    def lines(self) -> list[str]:
        """What the report says."""
        return [
            f"{entry['file']}, line {example['line']}: {example['reason']}"
            for entry in self.files
            for example in entry["first"]
        ]
