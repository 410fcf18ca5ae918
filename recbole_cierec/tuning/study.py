"""The trials of a study, kept in a file and shared by all processes that run them.

The file is Optuna's journal: each change is one line appended to it, also on a network disk. All N
trials are enqueued first, with the numbers 0 to N-1. Whoever locks an unfinished trial may run it.
The kernel releases the lock of a process that ends, however it ends, so an interrupted trial can be
run again immediately, and a suspended process keeps its own.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from logging import getLogger
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files.atomic_write import refuse_other_kinds
from recbole_cierec.files.json_lines import cut_torn_line
from recbole_cierec.files.locks import can_lock
from recbole_cierec.terminal import reason
from recbole_cierec.trainer.resuming import changed_parts

if TYPE_CHECKING:
    from optuna.storages import JournalStorage
    from optuna.trial import FrozenTrial

Row = dict[str, Any]
_JOURNAL = b'{"op_code"'  # how Optuna's journals begin
_STATES = {"COMPLETE": "complete", "PRUNED": "pruned"}
PRUNE_AFTER = 3  # complete trials before one is stopped
STARTS = 5  # give a trial up after so many starts: it may be what kills its process


def _optuna() -> Any:
    require("optuna", "create_study", "tune")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def open_journal(path: Path) -> JournalStorage:
    """The Optuna storage in a file, which is made if it is absent.

    Raises:
        ConfigError: It cannot be opened, or is no journal.
    """
    _optuna()
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    try:
        refuse_other_kinds(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = JournalFileOpenLock(str(path))
        if path.is_file():
            with path.open("rb") as file:
                begin = file.read(len(_JOURNAL))
            if not _JOURNAL.startswith(begin):  # shorter: the first line is torn
                raise ValueError("it is not the journal of a study; name another --storage")
            lock.acquire()
            try:
                with path.open("rb+") as file:
                    torn = cut_torn_line(file)
            finally:
                lock.release()
            if torn:
                getLogger().warning(f"{path}: the last line is incomplete and was removed")
        return JournalStorage(JournalFileBackend(str(path), lock_obj=lock))
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(
            f"{path}: cannot be opened as the storage of a study: {reason(error)}"
        ) from error


class SharedStudy:
    """The trials of one study.

    Args:
        path: The journal.
        name: The study's name in it.
        count: N, trials in all.
        settings: What defines the study; plain values. They must not change while it lasts.
        maximize: Whether the best score is the highest.
        capped: Whether trials after the first N are left out even if they have ended.

    Raises:
        ConfigError: The storage cannot be opened, or the study was begun with other settings.
    """

    def __init__(
        self,
        path: Path,
        name: str,
        count: int,
        settings: dict[str, Any],
        maximize: bool,
        capped: bool = False,
    ) -> None:
        self.path, self.name, self.count, self.maximize = path, name, count, maximize
        self.capped = capped
        self.settings = json.loads(json.dumps(settings, default=str))
        self._optuna = _optuna()
        self._states = self._optuna.trial.TrialState
        self._finished = self._optuna.exceptions.UpdateFinishedTrialError
        self.storage = open_journal(path)
        self.study = self._optuna.create_study(
            study_name=name,
            storage=self.storage,
            direction="maximize" if maximize else "minimize",
            load_if_exists=True,
        )
        self._locks: dict[int, FileLock] = {}  # of the trials that this process runs
        self._locks_work = can_lock(path.parent)
        if not self._locks_work:
            getLogger().warning(f"{path}: this disk has no locks; run one tune command at a time")
        self.check()

    def check(self) -> None:
        """Refuse to continue a study that was begun with other settings.

        Raises:
            ConfigError: Names the first difference.
        """
        known = self.study.user_attrs.get("settings")
        if known is None or all(trial.state.name == "WAITING" for trial in self._trials()):
            self.study.set_user_attr("settings", self.settings)
            known = self.study.user_attrs["settings"]  # another process may have been first
        # The digest last: any other difference says more.
        for what in sorted({**known, **self.settings}, key=lambda what: what == "digest"):
            then, now = (kept.get(what, "not given") for kept in (known, self.settings))
            if then != now:
                change = f"{what} {then}, which now is {now}"
                if what == "digest":
                    change = "other defaults than hold now"
                raise ConfigError(
                    f"{self.path}: the study {self.name} was begun with {change}; "
                    "use another --name or --out, or the settings it was begun with"
                )

    def check_data(self, digests: Mapping[str, str]) -> None:
        """Refuse to mix trials on different data.

        Args:
            digests: Of the parts of the data that a trial reads; trials may read different parts.

        Raises:
            DataError: An earlier trial had other data.
        """
        known = self.study.user_attrs.get("data") or {}
        if isinstance(known, str):  # of version 0.1
            known = {"interactions": known}
        if other := changed_parts(known, digests):
            raise DataError(
                f"{self.path}: the data of the study {self.name} have changed since it began "
                f"({', '.join(other)}); use another --name or --out"
            )
        if not digests.keys() <= known.keys():
            self.study.set_user_attr("data", {**digests, **known})

    def fill(self) -> None:
        """Enqueue the trials that are missing."""
        for _ in range(len(self.study.get_trials(deepcopy=False)), self.count):
            self.study.enqueue_trial({})

    def _trials(self) -> list[FrozenTrial]:
        """The first N, and those after them that a larger N has left."""
        trials = self.study.get_trials(deepcopy=False)
        more = [] if self.capped else [t for t in trials[self.count :] if t.state.is_finished()]
        return [*trials[: self.count], *more]

    # ------------------------------------------------------------------------- one trial

    def claim(self) -> FrozenTrial | None:
        """The first unfinished trial that no process runs; None if there is none now."""
        self.check()
        for trial in self._trials():
            if trial.state.is_finished() or not self._lock(trial.number):
                continue
            trial = self._trials()[trial.number]  # as its last process left it
            starts = trial.user_attrs.get("starts", 0)
            if trial.state.is_finished():
                self._unlock(trial.number)
            elif starts >= STARTS:
                reason = f"its process died {STARTS} times (memory?)"
                self.finish(trial, {"valid": None, "reason": reason})
            else:
                self.note(trial, "starts", starts + 1)
                if trial.state == self._states.WAITING:
                    self.storage.set_trial_state_values(trial._trial_id, self._states.RUNNING)
                return trial
        return None

    def _lock(self, number: int) -> bool:
        if number in self._locks:
            return False
        lock = FileLock(f"{self.path}.{number}.lock")
        if self._locks_work:
            try:
                lock.acquire(timeout=0)
            except Timeout:
                return False
        self._locks[number] = lock
        return True

    def _unlock(self, number: int, finished: bool = True) -> None:
        lock = self._locks.pop(number)
        if finished:  # else another process may be about to lock this very file
            with suppress(OSError):
                Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()

    def note(self, trial: FrozenTrial, key: str, value: Any) -> None:
        """Keep a value with an unfinished trial, for readers of the study."""
        with suppress(self._finished):
            self.storage.set_trial_user_attr(trial._trial_id, key, value)

    def prune_by(self, name: str) -> None:
        """Choose what stops hopeless trials: ``median``, ``hyperband`` or ``none``."""
        pruners = self._optuna.pruners
        make: dict[str, Callable[[], Any]] = {
            "median": lambda: pruners.MedianPruner(n_startup_trials=PRUNE_AFTER),
            "hyperband": pruners.HyperbandPruner,
            "none": pruners.NopPruner,
        }
        self.study.pruner = make[name]()

    def is_hopeless(self, trial: FrozenTrial, epoch: int, score: float) -> bool:
        """Keep a trial's validation score after an epoch; whether the trial should stop there."""
        asked = self._optuna.trial.Trial(self.study, trial._trial_id)
        with warnings.catch_warnings():  # a trial that is run again reports the same scores again
            warnings.simplefilter("ignore")
            asked.report(score, epoch)
        return bool(asked.should_prune())

    def finish(self, trial: FrozenTrial, outcome: Row) -> None:
        """Write a trial's result.

        Args:
            trial: From :meth:`claim`.
            outcome: ``valid``, the score, or None and a ``reason``; anything else to be kept.
        """
        value = outcome["valid"]
        state = self._states.FAIL if value is None else self._states.COMPLETE
        if outcome.get("pruned"):
            state = self._states.PRUNED
        values = None if value is None else [value]
        self.note(trial, "outcome", outcome)
        try:
            self.storage.set_trial_state_values(trial._trial_id, state, values)
        except self._finished:  # it was run twice for want of locks
            getLogger().warning(f"trial {trial.number} has a result; this one is dropped")
        self._unlock(trial.number)

    def interrupted(self, trial: FrozenTrial) -> None:
        """Let a trial whose process died be claimed again."""
        self._unlock(trial.number, finished=False)

    def release(self) -> None:
        """Return all trials that were claimed and not finished; these starts do not count."""
        for number in list(self._locks):
            trial = self._trials()[number]
            self.note(trial, "starts", trial.user_attrs.get("starts", 1) - 1)
            with suppress(self._finished):
                self.storage.set_trial_state_values(trial._trial_id, self._states.WAITING)
            self._unlock(number, finished=False)

    # --------------------------------------------------------------------------- results

    def rows(self) -> list[Row]:
        """Finished trials by number: ``trial``, ``state``, ``settings`` and their outcome."""
        return [
            {
                "trial": trial.number,
                "state": _STATES.get(trial.state.name, "failed"),
                "settings": trial.user_attrs.get("settings"),
                **trial.user_attrs.get("outcome", {}),
            }
            for trial in self._trials()
            if trial.state.is_finished()
        ]

    def left(self) -> int:
        """How many trials have not ended."""
        return sum(not trial.state.is_finished() for trial in self._trials())

    def total(self) -> int:
        """How many trials count, those of an earlier and larger N included."""
        return len(self._trials())

    def best(self, rows: list[Row]) -> Row | None:
        """The row with the best score; the first of equals."""
        done = [row for row in rows if row["state"] == "complete"]
        sign = -1 if self.maximize else 1
        return min(done, key=lambda row: (sign * row["valid"], row["trial"]), default=None)
