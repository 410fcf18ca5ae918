"""The folder of an experiment: where its files are, and who may work on which run.

A run is claimed by a lock on a file, which the kernel releases when its process ends, however it
ends. So machines that share the folder share the runs, and an interrupted one is free at once.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from recbole_cierec.evaluation.per_user import SUFFIX
from recbole_cierec.experiment.plan import Done
from recbole_cierec.experiment.rows import RUNS, SEARCHES, read_rows
from recbole_cierec.files.checkpoint import is_best
from recbole_cierec.files.locks import locked
from recbole_cierec.files.run_files import is_last


class Folder:
    """The files of an experiment.

    Attributes:
        rows: One line a run.
        searches: One line a search.
        users: Results by user, ``KEY.users.npz``.
        stages: Models from which others start, shared by all runs.
        tuning: Studies of the searches.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows, self.searches = self.path / RUNS, self.path / SEARCHES
        self.users, self.stages = self.path / "users", self.path / "stages"
        self.tuning = self.path / "search"

    def done(self) -> Done:
        """What the rows say is done now."""
        return Done(read_rows(self.rows), read_rows(self.searches))

    def run(self, key: str) -> Path:
        """The folder of a run's checkpoints."""
        return self.path / "runs" / key

    def users_file(self, key: str) -> Path:
        """The results by user of a run."""
        return self.users / f"{key}{SUFFIX}"

    def claimed(self, key: str) -> AbstractContextManager[bool]:
        """Whether this process may work on a run or search until the block ends.

        Entering raises an OutputError where the file of the lock belongs to another user.
        """
        path = self._lock(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        return locked(path)

    def remove_locks(self, keys: Iterable[str]) -> None:
        """Remove the lock files of runs and searches that have their rows; those of another
        experiment in the folder stay, as a process may hold them."""
        with suppress(OSError):  # another process removes them, or has some of its own
            for key in keys:
                self._lock(key).unlink(missing_ok=True)
            self._lock("").parent.rmdir()

    def _lock(self, key: str) -> Path:
        return self.path / "locks" / f"{key}.lock"

    def lend_stages(self, key: str) -> set[str]:
        """Link the trained stages into the folder of a run; returns their names."""
        folder = self.run(key)
        folder.mkdir(parents=True, exist_ok=True)
        names = set()
        for path in self.stages.glob("stage-*.pth"):
            names.add(path.name)
            if not (folder / path.name).exists():
                _link(path, folder / path.name)
        return names

    def keep_stages(self, key: str) -> None:
        """Keep the stages that a run has trained for other runs."""
        for path in self.run(key).glob("stage-*.pth"):
            target = self.stages / path.name
            if not is_last(path) and not target.exists():
                self.stages.mkdir(parents=True, exist_ok=True)
                _link(path, target)

    def lend_checkpoint(self, leader: str, key: str) -> bool:
        """Link the best checkpoint of a run into the folder of one that only tests it.

        Returns:
            Whether there is one.
        """
        found = list(filter(is_best, self.run(leader).glob("*.pth")))
        self.run(key).mkdir(parents=True, exist_ok=True)
        for path in found:
            _link(path, self.run(key) / path.name)
        return bool(found)

    def remove_run(self, key: str) -> None:
        """Remove the checkpoints of a run."""
        shutil.rmtree(self.run(key), ignore_errors=True)
        with suppress(OSError):  # other runs have theirs
            self.run(key).parent.rmdir()


def _link(source: Path, target: Path) -> None:
    with suppress(FileExistsError):
        try:
            os.link(source, target)
        except FileExistsError:
            raise
        except OSError:  # a disk without links
            shutil.copyfile(source, target)
