"""Records of the input that cannot be used: counted, a few of them named, and at most a share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from recbole_cierec.errors import DataError

EXAMPLES = 20  # per file, in the report


@dataclass
class BadRecords:
    """Collects the unusable records of all input files.

    Args:
        max_share: Of a file's records; more stop the conversion.

    Attributes:
        files: One entry per file that has any: file, records, bad, first (line, reason).
    """

    max_share: float
    files: list[dict[str, Any]] = field(default_factory=list)

    def add(self, path: Path, records: int, bad: int, examples: Iterable[tuple[int, str]]) -> None:
        """Note the counts of one file.

        Args:
            path: The file.
            records: Number of its records, including bad ones.
            bad: Number of bad ones.
            examples: Line number and reason of the first of them.

        Raises:
            DataError: The file has no records, or the share is above the limit.
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
        """Number of bad records in all files."""
        return sum(entry["bad"] for entry in self.files)

    def lines(self) -> list[str]:
        """Lines for the report."""
        return [
            f"{entry['file']}, line {example['line']}: {example['reason']}"
            for entry in self.files
            for example in entry["first"]
        ]
