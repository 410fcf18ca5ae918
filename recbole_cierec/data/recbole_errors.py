"""Turns errors that RecBole raises on purpose into user errors.

Most bad input is refused before RecBole sees it. What RecBole raises for the rest has a message for
the user. What Python or numpy raises inside RecBole is a defect and keeps its traceback.
"""

from __future__ import annotations

import dis
import linecache
import pickle
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from recbole_cierec.config.properties import model_keys
from recbole_cierec.errors import CheckpointError, ConfigError, DataError, UserError
from recbole_cierec.registry import MODELS
from recbole_cierec.terminal import shown

_RAISE = dis.opmap["RAISE_VARARGS"]
_ON_PURPOSE = (ValueError, AssertionError, NotImplementedError, TypeError)
_OF_FILES = (OSError, pickle.UnpicklingError, RuntimeError)


@contextmanager
def as_data_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors that RecBole raises while it prepares data into one line.

    Raises:
        DataError: In place of a ValueError or similar that RecBole's code raises.
    """
    try:
        yield
    except _ON_PURPOSE as error:
        if isinstance(error, UserError) or not raised_by_recbole(error.__traceback__):
            raise
        raise DataError(f"{config['dataset']}, for {config['model']}: {_words(error)}") from error


@contextmanager
def as_model_errors(config: Mapping[str, Any]) -> Iterator[None]:
    """Turn errors in the constructor of a RecBole model into one line.

    Raises:
        ConfigError: In place of a ValueError or similar that RecBole's code raises; and of any
            error if the user set keys of a RecBole model, which does not check their values.
        CheckpointError: A file that the model starts from is missing, damaged or of another shape.
    """
    try:
        yield
    except (UserError, ImportError):
        raise
    except Exception as error:
        words = (str(error).splitlines() or [type(error).__name__])[-1].strip()[:120]
        if isinstance(error, _OF_FILES) and _while_loading(error.__traceback__):
            raise CheckpointError(
                f"{config['model']}: a file that it starts from cannot be used ({words})"
            ) from error
        if isinstance(error, _ON_PURPOSE) and raised_by_recbole(error.__traceback__):
            raise ConfigError(f"{config['model']}: {_words(error)}") from error
        if given := _own_keys(config):
            text = f"{config['model']} cannot be created with {', '.join(given)}"
            raise ConfigError(f"{text} ({type(error).__name__}: {words})") from error
        raise


def _own_keys(config: Any) -> list[str]:
    """The keys of a RecBole model that the user set, with their values."""
    name, origins = config["model"], getattr(config, "origins", {})
    if name in MODELS:
        return []
    return [f"{k}: {shown(config[k])}" for k in origins if name in model_keys().get(k, ())]


def raised_by_recbole(trace: TracebackType | None) -> bool:
    """Whether the error comes from a ``raise`` or ``assert`` in RecBole's code."""
    frames = list(_frames(trace))
    if not frames:
        return False
    code = frames[-1].tb_frame.f_code
    return _module(frames[-1]) == "recbole" and code.co_code[frames[-1].tb_lasti] == _RAISE


def _while_loading(trace: TracebackType | None) -> bool:
    """Whether RecBole was reading weights: its last frame called one of torch."""
    frames = list(_frames(trace))
    recboles = [k for k, frame in enumerate(frames) if _module(frame) == "recbole"]
    if not recboles or recboles[-1] + 1 == len(frames):
        return False
    return frames[recboles[-1] + 1].tb_frame.f_code.co_name in ("load", "load_state_dict")


def _frames(trace: TracebackType | None) -> Iterator[TracebackType]:
    while trace is not None:
        yield trace
        trace = trace.tb_next


def _module(trace: TracebackType) -> str:
    return trace.tb_frame.f_globals.get("__name__", "").split(".")[0]


def _words(error: Exception) -> str:
    """The message; for an assertion without one, the asserted expression."""
    if words := " ".join(str(error).split()):
        return words
    last = list(_frames(error.__traceback__))[-1]
    line = linecache.getline(last.tb_frame.f_code.co_filename, last.tb_lineno).strip()
    return f"RecBole requires {line.removeprefix('assert ')}" if line else type(error).__name__
