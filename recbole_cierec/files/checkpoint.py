"""Checkpoints that survive a crash, run no code when read, and hold all that a run needs.

They are written to a temporary file, flushed to the disk and renamed, so that a reader finds the
old file or the new one, never an incomplete one. They are read with ``weights_only=True``:
everything in the file is a tensor or plain Python data; arrays and sparse matrices of RecBole's
models are converted first.
"""

from __future__ import annotations

import os
import pickle
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import NoneType
from typing import IO, Any, BinaryIO, cast

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from recbole_cierec.errors import CheckpointError, OutputError, UserError
from recbole_cierec.files.atomic_write import replacing
from recbole_cierec.files.by_age import by_age
from recbole_cierec.files.run_files import is_last
from recbole_cierec.files.torch_files import refuse_packed

_NAME = "recbole_cierec checkpoint"
FORMAT = f"{_NAME} 3"
_PARTS = {  # what TrainerMixin.state writes and others read
    "model": str,
    "dataset": str,
    "data": dict,
    "config": dict,
    "given": dict,
    "tables": dict,
    "provenance": dict,
    "epoch": int,
    "cur_step": int,
    "stopped_early": bool,
    "best_valid_score": float,
    "train_loss": dict,
    "state_dict": dict,
    "plain_state": dict,
    "optimizers": dict,
    "schedulers": dict,
    "extra": dict,
    "rng": dict,
}
_MAY_BE_NONE = ("best_valid_result", "other_parameter", "ended")  # else dicts
_ENDED = {"epochs": int, "stopped_early": bool, "train_loss": dict, "rng": dict}
# What zipfile and torch raise on files that are cut off, overwritten or of another kind.
_DAMAGE = (
    OSError,
    EOFError,
    RuntimeError,
    ValueError,
    LookupError,
    NotImplementedError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
    pickle.UnpicklingError,
)


def to_plain(value: Any) -> Any:
    """Tensors and plain data for ``value``; modules (their weights are elsewhere) become None."""
    if isinstance(value, Tensor):
        if value.layout is torch.strided:
            return value.detach().cpu()
        dense = value.detach().cpu().coalesce() if value.is_sparse else value.detach().cpu()
        return {"__sparse_tensor__": [dense.indices(), dense.values(), list(dense.shape)]}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) and (value.dtype.kind == "U" or _is_text(value)):
        return _packed(value)
    if isinstance(value, np.ndarray) and value.dtype != object:
        return {"__array__": torch.from_numpy(np.ascontiguousarray(value))}
    if scipy.sparse.issparse(value):
        coo = value.tocoo()
        parts = [to_plain(x) for x in (coo.row, coo.col, coo.data)]
        return {"__sparse__": [*parts, list(coo.shape), value.format]}
    if isinstance(value, dict):
        return {k: to_plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [to_plain(v) for v in value]
    if value is None or isinstance(value, nn.Module):
        return None
    return value if isinstance(value, (bool, int, float, str)) else str(value)


def from_plain(value: Any, device: torch.device | str = "cpu") -> Any:
    """Inverse of :func:`to_plain` for arrays and sparse matrices; tuples come back as lists, and
    tensors go to ``device``."""
    if isinstance(value, Tensor):
        return value.to(device)
    if not isinstance(value, dict):
        return [from_plain(v, device) for v in value] if isinstance(value, list) else value
    if "__array__" in value:
        return value["__array__"].numpy()
    if "__texts__" in value:
        return _unpacked(*value["__texts__"])
    if "__sparse_tensor__" in value:
        return torch.sparse_coo_tensor(*value["__sparse_tensor__"]).coalesce().to(device)
    if "__sparse__" in value:
        row, column, data, shape, form = value["__sparse__"]
        index = (from_plain(row), from_plain(column))
        return scipy.sparse.coo_matrix((from_plain(data), index), shape=shape).asformat(form)
    return {k: from_plain(v, device) for k, v in value.items()}


def _is_text(values: np.ndarray) -> bool:
    return values.dtype == object and all(isinstance(value, str) for value in values.flat)


def _packed(texts: np.ndarray) -> dict[str, list]:
    """Texts [n] as bytes and lengths: a million of them as Python objects would load slowly."""
    cells = [str(text).encode("utf-8", "surrogatepass") for text in texts.tolist()]
    lengths = torch.tensor([len(cell) for cell in cells], dtype=torch.int32)
    joined = torch.from_numpy(np.frombuffer(b"".join(cells), dtype=np.uint8).copy())
    return {"__texts__": [joined, lengths, texts.dtype == object]}


def _unpacked(joined: Tensor, lengths: Tensor, as_objects: bool) -> np.ndarray:
    data, ends = joined.numpy().tobytes(), lengths.long().cumsum(0).tolist()
    starts = [0, *ends[:-1]]
    cells = [data[a:b].decode("utf-8", "surrogatepass") for a, b in zip(starts, ends, strict=False)]
    return np.array(cells, dtype=object if as_objects else str)


class _Sink:
    """A stream that keeps the error of a failed write, which torch replaces by one of its own."""

    def __init__(self, stream: BinaryIO) -> None:
        self.stream = stream
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            return self.stream.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.stream.flush()


def write_checkpoint(path: Path, state: dict) -> None:
    """Write ``state`` so that ``path`` is always a whole file.

    Raises:
        CheckpointError: The disk is full or the folder cannot be written; an earlier file at
            ``path`` is unchanged.
    """
    try:
        with replacing(path) as file:
            sink = _Sink(file)
            torch.save({"format": FORMAT, **state}, cast(IO[bytes], sink))
    except OutputError as error:
        raise CheckpointError(str(error)) from error
    except RuntimeError as error:
        cause = sink.error or error
        reason = getattr(cause, "strerror", None) or str(cause).splitlines()[0]
        raise CheckpointError(
            f"{path}: the checkpoint cannot be written: {reason}; make room there, or set "
            "checkpoint_dir to another folder"
        ) from error


def read_checkpoint(path: Path) -> dict:
    """The state in ``path``, in main memory: a GPU would hold it in addition to the model.

    Raises:
        CheckpointError: Missing, damaged, or not a checkpoint of this package. Nothing in the
            file is executed.
    """
    return _read(path, whole=True)


def peek_checkpoint(path: Path) -> dict:
    """As :func:`read_checkpoint`, but tensors stay on the disk and are not checked for damage."""
    return _read(path, whole=False)


def _read(path: Path, whole: bool) -> dict:
    if os.path.isdir(path):  # Path.is_dir may raise
        newest = find_checkpoint(path)
        raise CheckpointError(f"{path}: is a folder; give a checkpoint, the newest is {newest}")
    try:
        refuse_packed(path)
        # torch does not compare the checksums that it writes: a flipped bit would load silently.
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() if whole else None
        if damaged is not None:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=not whole)
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such checkpoint") from None
    except _DAMAGE as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:120]
        raise CheckpointError(
            f"{path}: damaged or not a checkpoint of recbole_cierec ({reason}); use another file"
        ) from error
    form = state.get("format") if isinstance(state, dict) else None
    if form != FORMAT and str(form).startswith(_NAME):
        raise CheckpointError(
            f"{path}: is of format {str(form)[len(_NAME) + 1 :][:20]}, and this version of "
            f"recbole_cierec reads {FORMAT[len(_NAME) + 1 :]}; train the model again"
        )
    if form != FORMAT:
        raise CheckpointError(
            f"{path}: not written by this version of recbole_cierec (wanted {FORMAT!r})"
        )
    for part, kind in _PARTS.items():
        if not isinstance(state.get(part), kind):
            raise _incomplete(path, part)
    for part in _MAY_BE_NONE:
        if part not in state or not isinstance(state[part], dict | NoneType):
            raise _incomplete(path, part)
    for part, kind in _ENDED.items() if state["ended"] is not None else ():
        if not isinstance(state["ended"].get(part), kind):
            raise _incomplete(path, f"ended.{part}")
    return state


def find_checkpoint(path: Path) -> Path:
    """The file itself, or the newest run in a folder: its best epoch.

    Of a run that has not ended the last epoch is the choice if there is no best one; models that
    were trained as stages of others come last.

    Raises:
        CheckpointError: The folder holds no checkpoint.
    """
    if not path.is_dir():
        return path
    files = by_age(path.glob("*.pth"))
    for kind in (is_best, lambda p: not is_best(p) and not _is_stage(p), _is_stage):
        found = [file for file in files if kind(file)]
        if found:
            return found[-1]
    raise CheckpointError(f"{path}: no checkpoint (*.pth) in this folder; name one")


def _is_stage(path: Path) -> bool:
    return path.name.startswith("stage-")


def is_best(path: Path) -> bool:
    """Whether a checkpoint is the best epoch of a run: not its last one, nor a stage."""
    return not is_last(path) and not _is_stage(path)


def _incomplete(path: Path, part: str) -> CheckpointError:
    return CheckpointError(f"{path}: not a whole checkpoint (no {part}); use another file")


@contextmanager
def fitting(path: Path) -> Iterator[None]:
    """Turn errors of loading parts of a checkpoint into one line.

    Raises:
        CheckpointError: In place of what torch and Python raise for parts that do not fit.
    """
    try:
        yield
    except UserError:
        raise
    except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as e:
        reason = f"{type(e).__name__}: {(str(e).splitlines() or [''])[0][:120]}"
        raise CheckpointError(
            f"{path}: does not fit this run ({reason}); use the settings it was trained with, or "
            "another file"
        ) from e
