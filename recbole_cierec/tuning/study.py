"""What all processes of a study share: its trials in an Optuna storage, each run by one of them.

The storage is by default Optuna's journal, a file to which every change is appended as one line.
Which process has a trial is decided by the order of lines, so that no two get the same one; with
SQLite, where Optuna cannot lock a row, three processes together claimed 9 of 60 trials twice. A
process that is killed (``kill -9``, power) leaves a line that is whole or the beginning of one,
which is cut off when the journal is opened next.

All trials are made first, waiting, with the numbers 0 to N-1; what is above N is never run, so
there are exactly N however many processes and machines take part. A trial is run by who moved it
from waiting to running and has written its token into it. Who holds a trial says every
:data:`BEAT` seconds that it lives. One whose process is gone (on this machine: at once; on
another: after :data:`STALE` seconds of silence) goes back to waiting and is run again, with its
settings. If the silent process was only asleep, its result is dropped, because the token is not
its own any more.
"""

from __future__ import annotations

import json
import os
import socket
import time
import uuid
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from logging import getLogger
from pathlib import Path
from threading import Event, Thread
from typing import Any

import psutil

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.errors import ConfigError, DataError
from recbole_cierec.files.atomic_write import refuse_other_kinds

_JOURNAL = b'{"op_code"'  # how Optuna's journals begin
BEAT = 20.0
STALE = 120.0
POLL = 2.0
STARTS = 5  # a trial whose process dies so often is given up: it may be what kills it
_DONE = ("complete", "failed")


def _optuna() -> Any:
    require("optuna", "create_study", "tune")
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    return optuna


def here() -> str:
    """This machine, boot and process namespace: where a process id means something."""
    parts = [socket.gethostname()]
    for path in ("/proc/sys/kernel/random/boot_id", "/proc/self/ns/pid"):
        try:
            parts.append(os.readlink(path) if path.endswith("pid") else Path(path).read_text()[:8])
        except OSError:
            parts.append(f"{uuid.getnode():x}")  # not Linux
    return "/".join(parts)


def _alive(pid: int, started: float) -> bool:
    try:
        process = psutil.Process(pid)
        # The number may be another process's by now; start times are exact to some 10 ms.
        same = abs(process.create_time() - started) < 5.0
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def cut_torn_line(path: Path) -> None:
    """Remove what a process wrote of a line before it died; nothing was promised by it."""
    from optuna.storages.journal import JournalFileOpenLock

    if not path.is_file():
        return
    lock = JournalFileOpenLock(str(path))
    lock.acquire()
    try:
        with path.open("rb+") as file:
            end = file.seek(0, os.SEEK_END)
            whole = end
            while whole and (file.seek(whole - 1), file.read(1))[1] != b"\n":
                whole -= 1
            if whole < end:
                getLogger().warning(f"{path}: the last line is not whole and was cut off")
                file.truncate(whole)
    finally:
        lock.release()


def _refuse_other_files(path: Path) -> None:
    """Appending to a file, or cutting off its torn last line, would damage any other kind."""
    refuse_other_kinds(path)
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(len(_JOURNAL))
        if not _JOURNAL.startswith(begin):  # fewer bytes: the first line was torn
            raise ValueError("it is not the journal of a study; name another --storage")


def open_storage(where: str) -> Any:
    """An Optuna storage at a URL, or the journal in a file.

    Raises:
        ConfigError: It cannot be opened.
    """
    optuna = _optuna()
    from sqlalchemy.exc import SQLAlchemyError

    try:
        if "://" in where:
            return optuna.storages.RDBStorage(where)
        from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

        _refuse_other_files(Path(where))
        Path(where).parent.mkdir(parents=True, exist_ok=True)
        cut_torn_line(Path(where))
        lock = JournalFileOpenLock(where)
        return optuna.storages.JournalStorage(JournalFileBackend(where, lock_obj=lock))
    except (SQLAlchemyError, ImportError, OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(
            f"{where}: cannot be opened as the storage of a study: {reason}"
        ) from error


class Board:
    """The trials of one study.

    Args:
        where: A URL or the path of a journal.
        name: The study's name in it.
        count: N, trials in all.
        settings: What makes the study what it is, for :meth:`check`; plain values.
        bigger: Whether the best score is the highest.
    """

    def __init__(
        self, where: str, name: str, count: int, settings: dict[str, Any], bigger: bool
    ) -> None:
        self.where, self.name, self.count, self.bigger = where, name, count, bigger
        self.settings = json.loads(json.dumps(settings, default=str))
        self.storage = open_storage(where)
        self.study = _optuna().create_study(
            study_name=name,
            storage=self.storage,
            direction="maximize" if bigger else "minimize",
            load_if_exists=True,
        )
        self.token, self._silent = "", {}
        self._id = self.storage.get_study_id_from_name(name)
        process = psutil.Process()
        self._me = {"host": here(), "pid": process.pid, "started": process.create_time()}
        self.check()

    # -------------------------------------------------------------------------- the study

    def check(self) -> None:
        """Refuse to go on with a study that was begun with other settings.

        Raises:
            ConfigError: It was; the line names the first difference.
        """
        known = self.study.user_attrs.get("settings")
        if known is None or all(trial.state.name == "WAITING" for trial in self._trials()):
            self.study.set_user_attr("settings", self.settings)
            known = self.study.user_attrs["settings"]  # another one may have been first
        for part in {**known, **self.settings}:
            then, now = known.get(part), self.settings.get(part)
            if then == now:
                continue
            what = part
            if isinstance(then, dict) and isinstance(now, dict):
                what = next(key for key in {**then, **now} if then.get(key) != now.get(key))
                then, now = then.get(what, "not given"), now.get(what, "not given")
            where = f"{self.where}: the study {self.name}"
            end = "use another --name or --out, or the settings it was begun with"
            if part == "digest":
                raise ConfigError(f"{where} was begun with other defaults than hold now; {end}")
            raise ConfigError(f"{where} was begun with {what} {then}, which now is {now}; {end}")

    def check_data(self, digest: str) -> None:
        """Refuse to mix trials on different data.

        Raises:
            DataError: The first trial had others.
        """
        known = self.study.user_attrs.get("data")
        if known is None:
            self.study.set_user_attr("data", digest)
        elif known != digest:
            raise DataError(
                f"{self.where}: the data of the study {self.name} have changed since it began; "
                "use another --name or --out"
            )

    def fill(self) -> None:
        """Make the waiting trials that are missing."""
        for _ in range(len(self._trials()), self.count):
            self.study.enqueue_trial({})

    def _trials(self) -> list[Any]:
        return self.storage.get_all_trials(self._id, deepcopy=False)[: self.count]

    # ------------------------------------------------------------------------- one trial

    def claim(self) -> Any:
        """Take the first waiting trial; wait for those of others, lest one of these dies.

        Returns:
            Optuna's frozen trial; None when all are finished.
        """
        optuna, told = _optuna(), False
        while True:
            self.check()
            self._free_the_dead()
            trials = self._trials()
            for trial in trials:
                if trial.state == optuna.trial.TrialState.WAITING and self._take(trial):
                    return trial
            others = [trial for trial in trials if not trial.state.is_finished()]
            if not others:
                return None
            if not told:
                getLogger().info(f"{len(others)} trials are still run by other processes")
            told = True
            time.sleep(POLL)

    def _take(self, trial: Any) -> bool:
        optuna = _optuna()
        try:
            state = optuna.trial.TrialState.RUNNING
            if not self.storage.set_trial_state_values(trial._trial_id, state):
                return False
        except optuna.exceptions.UpdateFinishedTrialError:
            return False
        self.token = uuid.uuid4().hex
        starts = trial.user_attrs.get("starts", 0) + 1
        self.note(trial, "starts", starts)
        self.note(trial, "owner", {"token": self.token, **self._me})
        return True

    def note(self, trial: Any, key: str, value: Any) -> None:
        """Keep something with a trial, for whoever reads the study."""
        self.storage.set_trial_user_attr(trial._trial_id, key, value)

    def _is_mine(self, trial: Any) -> bool:
        now = self.storage.get_trial(trial._trial_id)
        owner = now.user_attrs.get("owner", {})
        return owner.get("token") == self.token and now.state.name == "RUNNING"

    def _free_the_dead(self) -> None:
        optuna = _optuna()
        for trial in self._trials():
            if trial.state != optuna.trial.TrialState.RUNNING or not self._is_dead(trial):
                continue
            if trial.user_attrs.get("starts", 0) >= STARTS:
                reason = f"its process died {STARTS} times (memory?)"
                self._end(trial, "failed", {"reason": reason})
            else:
                getLogger().warning(f"trial {trial.number} had been stopped and is run again")
                self._to_waiting(trial)

    def _is_dead(self, trial: Any) -> bool:
        owner = trial.user_attrs.get("owner")
        if owner and owner["host"] == self._me["host"]:
            return not _alive(owner["pid"], owner["started"])
        sign = json.dumps([owner, trial.user_attrs.get("beat")])
        last, since = self._silent.get(trial.number, (None, 0.0))
        if sign != last:
            self._silent[trial.number] = (sign, time.monotonic())
            return False
        return time.monotonic() - since > STALE

    def _to_waiting(self, trial: Any) -> None:
        optuna = _optuna()
        try:
            # Nobody's until the next owner is noted, lest it is freed once more for the old one.
            self.note(trial, "owner", {"token": uuid.uuid4().hex, "host": ""})
            waiting = optuna.trial.TrialState.WAITING
            self.storage.set_trial_state_values(trial._trial_id, waiting)
        except optuna.exceptions.UpdateFinishedTrialError:
            return  # it had ended in the meantime

    @contextmanager
    def held(self, trial: Any) -> Iterator[None]:
        """Say regularly that the trial is run; give it back if it ends without a result."""
        stop = Event()

        def beat() -> None:
            count = 0
            while not stop.wait(BEAT):
                count += 1
                try:
                    self.note(trial, "beat", [self.token[:8], count])
                except (OSError, _optuna().exceptions.OptunaError) as error:
                    getLogger().warning(f"{self.where}: {error}")

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        except BaseException:
            if self._is_mine(trial):
                self.note(trial, "starts", trial.user_attrs.get("starts", 0))  # it was no death
                self._to_waiting(trial)
            raise
        finally:
            stop.set()
            thread.join()

    def set_params(self, trial: Any, params: dict[str, Any], distributions: dict) -> None:
        """Tell Optuna the settings that a trial has, where the ranges hold them."""
        for key, value in params.items():
            if key not in trial.distributions:
                inner = distributions[key].to_internal_repr(value)
                self.storage.set_trial_param(trial._trial_id, key, inner, distributions[key])

    def finish(self, trial: Any, outcome: dict[str, Any]) -> bool:
        """Write a trial's result, if it still is this process's.

        Args:
            trial: What :meth:`claim` gave.
            outcome: ``valid``, the score, or None and a ``reason``; whatever else is to be kept.

        Returns:
            Whether it was taken.
        """
        if not self._is_mine(trial):
            getLogger().warning(f"trial {trial.number} was taken over; this result is dropped")
            return False
        self._end(trial, "failed" if outcome["valid"] is None else "complete", outcome)
        return True

    def _end(self, trial: Any, state: str, outcome: dict[str, Any]) -> None:
        optuna = _optuna()
        self.note(trial, "outcome", outcome)
        value = outcome.get("valid")
        kind = optuna.trial.TrialState.FAIL if state == "failed" else None
        self.study.tell(trial.number, value, state=kind, skip_if_finished=True)

    # --------------------------------------------------------------------------- results

    def rows(self) -> list[dict[str, Any]]:
        """Trials that have ended, by number: ``trial``, ``state`` and what was kept of them."""
        rows = []
        for trial in self._trials():
            if trial.state.is_finished():
                done = trial.state.name == "COMPLETE"
                rows.append({"trial": trial.number, "state": _DONE[not done]})
                rows[-1] |= trial.user_attrs.get("outcome", {})
                rows[-1].setdefault("settings", trial.user_attrs.get("settings"))
        return rows

    def left(self) -> int:
        """How many trials have not ended."""
        return self.count - len(self.rows())

    def best(self, rows: list[dict[str, Any]]) -> dict[str, Any] | None:
        """The row with the best score; the first one of equals."""
        done = [row for row in rows if row["state"] == "complete"]
        sign = -1 if self.bigger else 1
        return min(done, key=lambda row: (sign * row["valid"], row["trial"]), default=None)
