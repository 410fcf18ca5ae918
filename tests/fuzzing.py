"""Random inputs: ``python tests/fuzzing.py --minutes=60 --seed=1 [--part=atomic] [--only=523]``

Whatever the input, a command or function ends with a result or with one line of a
:class:`~recbole_cierec.errors.UserError`: no traceback, no hang, no second line, no control
character, and no result where a documented rule forbids the input. Each input is drawn from a
separate generator, seeded by ``--seed`` and its number, so that ``--only`` repeats a single input.
Every failing input is printed with both; the exit code is 1 if there was any.

Inputs and outputs stay in a temporary folder, and memory is bounded by ``RLIMIT_AS``.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: threads compete for busy cores

import faulthandler
import logging
import math
import re
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np

from recbole_cierec.errors import UserError

SECONDS = 20  # of one input; most take less than 0.2
MEMORY = 2 << 30  # bytes that an input may use in addition to the process's memory
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

Generator = np.random.Generator
Change = Callable[[Any, Generator], Any]


class Hang(BaseException):
    """An input took too long; no ``except Exception`` stops it."""


class FuzzError(AssertionError):
    """The property does not hold for one input."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """A context in which :class:`Hang` is raised after so many seconds."""

    def stop(number, frame):
        raise Hang(f"no end after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def memory_limit(more: int = MEMORY) -> Iterator[None]:
    """A context in which the process may use ``more`` additional bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def check_line(line: str) -> None:
    """Check that the text of a refusal is one line that is safe for a terminal."""
    if not line.strip() or _UNSAFE.search(line):
        raise FuzzError(f"the message is not one clean line: {line[:300]!r}")
    if len(line) > 2000:
        raise FuzzError(f"the message has {len(line):,} characters: {line[:300]!r}")


class Part:
    """One kind of input.

    Args:
        folder: A temporary folder for all inputs of the part.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.said = ""  # description of the last input, for the report

    def draw(self, rng: Generator) -> tuple[Callable[[], Any], bool]:
        """Create one input; returns the function that reads it, and whether it must be refused."""
        raise NotImplementedError

    def attempt(self, seed: int, number: int) -> str | None:
        """One input; returns the line of its refusal, None if it has a result.

        Raises:
            FuzzError: The property does not hold; the text says what the input was.
        """
        self.said = ""
        consume, forbidden = self.draw(np.random.default_rng([seed, number]))
        try:
            with time_limit():
                consume()
        except UserError as error:
            try:
                check_line(str(error))
            except FuzzError as fault:
                raise FuzzError(f"{self.said}: {fault}") from error
            return str(error)
        except FuzzError as fault:
            raise FuzzError(f"{self.said}: {fault}") from fault
        except (Exception, Hang) as error:
            trace = "".join(traceback.format_exception(error)[-5:])
            raise FuzzError(f"{self.said}: {type(error).__name__}\n{trace}") from error
        if forbidden:
            raise FuzzError(f"{self.said}: accepted, although a rule forbids it")
        return None


def spare_time_and_threads(put: Callable[[Any, str, Any], Any]) -> None:
    """RecBole measures the CPU for a second per run, and its TensorBoard writers keep threads.

    Args:
        put: ``setattr``, or a version of it that is undone.
    """
    import psutil
    import recbole.trainer.trainer as of_recbole

    put(psutil, "cpu_percent", lambda interval=None: 0.0)
    put(of_recbole, "get_tensorboard", lambda logger: MagicMock())


# ---- mutators ------------------------------------------------------------------------------------

ODD_TEXTS = (
    "", " ", "NA", "nan", "inf", "-inf", "-1", "0", "1e400", "1e-400", "9" * 30, "0x10", "[PAD]",
    "\u202e", "\x1b[31m", "\x85", "\u2028", "e\u0301", "\N{SLICE OF PIZZA}", "a b", '"', "'", "\\",
    "%s", "{}", "None", "True", "u0", "i1", "x" * 5000, "\u0661\u0662", "1_000", "\uff11", "a:b",
    "[1, 2", "{a: 1}", "~", "*a", "&a", "!!python/object", "# c", "a,b", "user_id", "[5,inf)",
    "(1,2]", "1e3", "-0.0", "3.5", "item_id", "../x", "RS", "full", "uni5", "user5",
)  # fmt: skip
ODD_NUMBERS = (
    0, 1, -1, 2, 3, 7, 255, 2**31 - 1, 2**31, 2**63, 2**64, 10**30, -(2**63), 0.5, -1.0, 1.0, 1e308,
    5e-324, math.nan, math.inf, -math.inf, True, False, None,
)  # fmt: skip


def pick(rng: Generator, choices) -> Any:
    """An element of a sequence, unchanged (numpy's choice converts)."""
    return choices[int(rng.integers(len(choices)))]


def odd_value(rng: Generator, depth: int = 0) -> Any:
    """A number, text, boolean or null, or a small nested structure of these."""
    kind = rng.random()
    if kind < 0.4:
        return pick(rng, ODD_NUMBERS)
    if kind < 0.7 or depth > 3:
        return pick(rng, ODD_TEXTS)
    parts = [odd_value(rng, depth + 1) for _ in range(int(rng.integers(0, 4)))]
    if kind < 0.85:
        return parts
    return {pick(rng, ODD_TEXTS): part for part in parts}


def flip(data: bytes, rng: Generator) -> bytes:
    place = int(rng.integers(len(data)))
    return data[:place] + bytes([data[place] ^ (1 << int(rng.integers(8)))]) + data[place + 1 :]


def overwrite(data: bytes, rng: Generator) -> bytes:
    start, length = _span(data, rng)
    return data[:start] + rng.bytes(length) + data[start + length :]


def cut(data: bytes, rng: Generator) -> bytes:
    return data[: int(rng.integers(len(data)))]


def drop(data: bytes, rng: Generator) -> bytes:
    start, length = _span(data, rng)
    return data[:start] + data[start + length :]


def repeat(data: bytes, rng: Generator) -> bytes:
    start, length = _span(data, rng)
    return data[: start + length] * int(rng.integers(1, 4)) + data[start:]


def insert(data: bytes, rng: Generator) -> bytes:
    start, _ = _span(data, rng)
    piece = pick(rng, ODD_TEXTS).encode("utf-8", "surrogatepass")
    return data[:start] + piece + data[start:]


def extreme(data: bytes, rng: Generator) -> bytes:
    """A field of 1, 2 or 4 bytes with its largest or smallest value."""
    width, start = pick(rng, (1, 2, 4)), int(rng.integers(len(data)))
    piece = pick(rng, (b"\xff", b"\x00", b"\x7f")) * width
    return data[:start] + piece + data[start + width :]


def _span(data: bytes, rng: Generator) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, int(rng.integers(1, 2 + min(200, len(data) - start)))


BYTES: tuple[Change, ...] = (flip, overwrite, cut, drop, repeat, insert, extreme)


def change_bytes(data: bytes, rng: Generator) -> tuple[bytes, str]:
    """One to three changes, and their names."""
    names = []
    for _ in range(int(rng.integers(1, 4))):
        if data:
            change = pick(rng, BYTES)
            data = change(data, rng)
            names.append(change.__name__)
    return data, "+".join(names)


def change_tree(tree: Any, rng: Generator, new: Callable[[Generator], Any]) -> tuple[Any, str]:
    """A copy of nested dicts and lists with one value, at any depth, replaced, dropped or added."""
    if isinstance(tree, dict | list) and len(tree) and rng.random() < 0.9:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = pick(rng, keys)
        copy = tree.copy()
        if rng.random() < 0.1:
            del copy[key]
            return copy, f"{key} dropped"
        copy[key], where = change_tree(tree[key], rng, new)
        return copy, f"{key}/{where}"
    value = new(rng)
    return value, f"= {str(value)[:60]!r}"


# ---- the command ---------------------------------------------------------------------------------


def fuzz(parts: list[Part], seed: int, seconds: float, say: Callable[[str], None] = print) -> int:
    """Try inputs of all parts in turn for so many seconds; returns the number of failing ones."""
    counts = {part: [0, 0, 0, 0.0] for part in parts}
    seen: set[str] = set()
    number, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for part, count in counts.items():
            start = time.monotonic()
            faulthandler.dump_traceback_later(3 * SECONDS, exit=True)  # C code ignores alarms
            try:
                count[1] += part.attempt(seed, number) is not None
            except FuzzError as error:
                count[2] += 1
                kind = str(error).strip().splitlines()[-1][:100]
                if kind not in seen:  # each once
                    name = type(part).__name__.lower()
                    say(f"--part={name} --seed={seed} --only={number}: {error}")
                seen.add(kind)
            faulthandler.cancel_dump_traceback_later()
            count[0] += 1
            count[3] += time.monotonic() - start
        number += 1
    for part, (inputs, refused, failed, spent) in counts.items():
        rate = 60 * inputs / max(spent, 1e-9)
        say(
            f"{type(part).__name__}: {inputs} inputs ({rate:.0f} a minute), {refused} refused, "
            f"{failed} failing"
        )
    return sum(count[2] for count in counts.values())


def main(argv: list[str]) -> int:
    """Run the command line of the module."""
    from fuzz_parts import PARTS

    options = {"minutes": "1", "seed": "0", "part": ",".join(PARTS), "only": ""}
    for word in argv:
        key, _, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or key not in options:
            raise SystemExit(__doc__)
        options[key] = value
    logging.disable(logging.CRITICAL)
    spare_time_and_threads(setattr)
    sys.stdout.reconfigure(line_buffering=True)
    warnings.simplefilter("ignore")
    seed, home = int(options["seed"]), Path.cwd()
    with tempfile.TemporaryDirectory() as folder, memory_limit():
        parts = []
        for name in options["part"].split(","):
            (Path(folder) / name).mkdir()
            os.chdir(Path(folder) / name)
            parts.append(PARTS[name](Path(folder) / name))
        try:
            if options["only"]:
                for part in parts:
                    print(part.attempt(seed, int(options["only"])), part.said)
                return 0
            return int(fuzz(parts, seed, 60 * float(options["minutes"])) > 0)
        finally:
            os.chdir(home)


if __name__ == "__main__":
    from fuzzing import main as of_module  # fuzz_parts imports its classes from there

    sys.exit(of_module(sys.argv[1:]))
