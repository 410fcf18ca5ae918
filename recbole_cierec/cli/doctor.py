"""Does this installation work?  ``python -m recbole_cierec doctor --help``."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from textwrap import wrap
from typing import Any

from recbole_cierec import __version__
from recbole_cierec.cli import doctor_probe
from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.cli.flags import value_of
from recbole_cierec.compat.patches import PATCHES
from recbole_cierec.compat.requirements import (
    DEVELOPMENT,
    DISTRIBUTION,
    OPTIONAL,
    Requirement,
    allows,
    installed,
    module_of,
    requirements,
)
from recbole_cierec.errors import ConfigError, UserError
from recbole_cierec.files.places import existing_part, why_not_writable
from recbole_cierec.terminal import say

USAGE = """\
usage: python -m recbole_cierec doctor [--data_path=DIR] [--checkpoint_dir=DIR] [--cache_dir=DIR]

Checks whether this installation works. Prints versions, patches of RecBole, devices, threads, the
folders that a run writes to and optional packages, for yourself and for bug reports. The exit code
is 0 if nothing is missing or broken, else 2. Nothing is downloaded, and no file is left behind.

  --data_path=DIR     folder of your data sets (default: dataset)
  --checkpoint_dir=DIR
                      folder for checkpoints and results (default: saved)
  --cache_dir=DIR     folder for pictures and features (default: cache)
  -h, --help          print this
"""
# Checked even if the list of requirements cannot be read.
_ALWAYS = ("recbole", "torch", "numpy", "pandas", "scipy", "torchvision", "pyyaml", "packaging")
# The modules that a run imports; they import all others.
_RUN = ("recbole.trainer", "recbole_cierec.quick_start")
_FOLDERS = {"checkpoint_dir": "saved", "cache_dir": "cache", "data_path": "dataset"}
_WRITTEN = ("log", "log_tensorboard")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_SECONDS = 180
_GIB = 2**30


@dataclass
class Findings:
    """What the other process found.

    Args:
        errors: Module -> the error of its import; None: it can be imported.
        facts: Everything else, by name.
        libraries: Names of libraries and their numbers of threads.
    """

    errors: dict[str, str | None] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    libraries: list[tuple[str, str]] = field(default_factory=list)

    def add(self, line: dict[str, Any]) -> None:
        """Add one line of the other process."""
        if "module" in line:
            self.errors[line["module"]] = line["error"]
        elif "library" in line:
            self.libraries.append((line["library"], str(line["threads"])))
        else:
            self.facts.update(line)


def probe(modules: Sequence[str]) -> Findings:
    """Import modules in another process; if one of them crashes it, again without that one."""
    found = Findings()
    left = list(modules)
    while left:
        end = _probe_once(left, found)
        left = [module for module in left if module not in found.errors]
        if left:  # the first of these crashed it
            found.errors[left.pop(0)] = end
        elif end:
            found.facts["probe"] = end
    return found


def _probe_once(modules: Sequence[str], found: Findings) -> str:
    """Import in one process; returns how it failed, if it did."""
    code = f"import runpy; runpy.run_path({doctor_probe.__file__!r}, run_name='__main__')"
    command = [sys.executable, "-c", code, json.dumps(sys.path), *modules]
    end = ""
    try:
        # No input of a user is in the command.
        done = subprocess.run(command, capture_output=True, timeout=_SECONDS)  # noqa: S603
        output = done.stdout
        if done.returncode:
            end = f"the process that imported it ended with code {done.returncode}"
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        end = f"the process that imported it did not end in {_SECONDS} seconds"
    for line in output.decode(errors="replace").splitlines():
        if line.startswith(doctor_probe.MARK):
            found.add(json.loads(line.removeprefix(doctor_probe.MARK)))
    return end


# --------------------------------------------------------------------------- sections


def left_aligned(rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Rows of cells as lines of aligned columns; the last column is not padded."""
    rows = [[str(cell) for cell in row] for row in rows]
    columns = max(map(len, rows), default=1) - 1
    widths = [max(len(row[k]) for row in rows if len(row) > k) for k in range(columns)]
    for row in rows:
        padded = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        yield ("  " + "  ".join([*padded, *row[columns:]])).rstrip()


def _requirements(problems: list[str]) -> list[Requirement]:
    try:
        return requirements()
    except PackageNotFoundError:
        problems.append(f"{DISTRIBUTION} is not installed: pip install -e . in its folder")
    except ImportError as error:
        problems.append(f"packaging: {doctor_probe.words_of(error)}")
    return [Requirement(name) for name in _ALWAYS]


def _versions(needed: list[Requirement], found: Findings, problems: list[str]) -> Iterator[list]:
    yield ["recbole_cierec", __version__, str(Path(__file__).parents[1])]
    yield ["Python", platform.python_version(), sys.executable]
    yield ["system", platform.platform(aliased=True, terse=True), platform.machine()]
    for package in sorted(needed, key=lambda package: (package.name not in _ALWAYS, package.name)):
        version = installed(package.name)
        remark = found.errors.get(module_of(package.name)) or ""
        if version is None:
            remark = f"missing: pip install '{package.name}{package.limits}'"
        elif package.limits and not allows(package.limits, version):
            remark = f"needed is {package.limits}: pip install '{package.name}{package.limits}'"
        if remark:
            problems.append(f"{package.name}: {remark}")
        elif package.name == "torch" and "cuda" in found.facts:
            remark = f"built for CUDA {found.facts['cuda']}" if found.facts["cuda"] else "CPU only"
        yield [package.name, version or "-", remark]
    for module in _RUN:
        if error := found.errors.get(module):
            problems.append(f"{module}: {error}")
            yield [module, "-", error]


def _patches() -> Iterator[list]:
    for patch in PATCHES:
        version = installed(patch.package) if patch.package else None
        since = f"{patch.package} {patch.since}" if patch.package else "any packages"
        if version and not _reached(version, patch.since):
            since += f" (here {version})"
        yield [since, f"{patch.breaks} ({patch.target.split(':')[1]})"]
        detail = f"{'; '.join(patch.places)}; until {patch.until}".replace("``", "")
        yield from (["", line] for line in wrap(detail, 84))


def _reached(version: str, since: str) -> bool:
    try:
        return allows(f">={since}", version)
    except ImportError:
        return True


def container_cpus(root: Path = Path("/sys/fs/cgroup")) -> float | None:
    """The CPUs that the container's limit allows; None: there is no limit.

    Args:
        root: The folder of Linux's control groups, version 2 or 1.
    """
    for files in (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us")):
        try:
            quota, period = " ".join((root / name).read_text() for name in files).split()
            return int(quota) / int(period) if int(quota) > 0 else None
        except (OSError, ValueError):  # the other version; "max"
            continue
    return None


def _devices(found: Findings) -> Iterator[list]:
    usable = os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        usable = len(os.sched_getaffinity(0))
    limit = container_cpus()
    allowed = f"; the container is limited to {limit:g}" if limit else ""
    yield ["CPUs", f"{usable} of {os.cpu_count()} for this process{allowed}"]
    free = found.facts.get("free_memory")
    yield ["memory", "unknown" if free is None else f"{free / _GIB:.1f} GiB free"]
    gpus = found.facts.get("gpus")
    if gpus:
        yield from (["GPU" if k == 0 else "", name] for k, name in enumerate(gpus))
    else:
        reason = found.facts.get("no_gpu") or found.facts.get("probe") or "torch cannot be imported"
        yield ["GPU", f"none: {reason}"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        yield ["CUDA_VISIBLE_DEVICES", repr(visible)]


def _threads(found: Findings) -> Iterator[tuple[str, str]]:
    yield from ((name, os.environ.get(name, "not set")) for name in _THREADS)
    inside, between = found.facts.get("torch_threads", ("unknown", "unknown"))
    yield "torch", f"{inside}, between operations {between}"
    yield from found.libraries


def place(folder: Path) -> tuple[bool, str]:
    """Whether a folder is writable, or can be made if it does not exist; and a few words."""
    if why := why_not_writable(folder):
        return False, f"cannot be written ({why})"
    above = existing_part(folder)
    free = shutil.disk_usage(above).free / _GIB
    return True, f"writable, {free:.1f} GiB free" + (
        "" if above == folder else "; does not exist yet"
    )


def _places(folders: dict[str, str], problems: list[str]) -> Iterator[list]:
    for name in (*_WRITTEN, *folders):
        folder = Path(folders.get(name, name)).expanduser()
        fine, words = place(Path.cwd() / folder)
        # Existing data is only read.
        if not fine and not (name == "data_path" and folder.is_dir()):
            cure = f"set {name} to another" if name in folders else "start from another folder"
            problems.append(f"{folder}: {words}; {cure}")
        yield [f"{folder}/", words]


def _optional(listed: list[Requirement], found: Findings) -> Iterator[list]:
    extras = {
        package.name: package.extra
        for package in listed
        if package.extra and package.extra not in DEVELOPMENT
    }
    needed = {package.name for package in listed if not package.extra}
    for name in sorted({*OPTIONAL, *extras} - needed):
        remark = OPTIONAL.get(name, f"extra {extras.get(name)}")
        version = installed(name)
        if version is None:
            target = f"'{DISTRIBUTION}[{extras[name]}]'" if name in extras else name
            remark += f" (pip install {target})"
        elif error := found.errors.get(module_of(name)):
            remark += f"; cannot be imported: {error}"
        yield [name, version or "-", remark]


# --------------------------------------------------------------------------- command line


def examine(folders: dict[str, str]) -> tuple[str, list[str]]:
    """Check everything.

    Args:
        folders: ``checkpoint_dir``, ``cache_dir`` and ``data_path``.

    Returns:
        The report, and the problems that stop runs.
    """
    problems: list[str] = []
    listed = _requirements(problems)
    needed = [package for package in listed if not package.extra]
    names = [p.name for p in needed] + [n for n in OPTIONAL if n not in {p.name for p in needed}]
    found = probe([*(module_of(name) for name in names if installed(name)), *_RUN])
    sections = {
        "Versions": _versions(needed, found, problems),
        f"Patches of RecBole, here {installed('recbole')} (lines of 1.2.1)": _patches(),
        "Devices": _devices(found),
        "Threads": _threads(found),
        f"Places, from {Path.cwd()}": _places(folders, problems),
        "Optional packages": _optional(listed, found),
    }
    text = "\n".join(
        "\n".join([title, *left_aligned(rows), ""]) for title, rows in sections.items()
    )
    return text, problems


def doctor(argv: Sequence[str]) -> None:
    """Print the report; raises UserError if something needed is missing or broken."""
    folders = dict(_FOLDERS)
    words = list(argv)
    while words:
        word = words.pop(0)
        key, equals, value = word.removeprefix("--").partition("=")
        value = value_of(equals, value, words)
        if not word.startswith("--") or key not in folders or not value:
            known = ", ".join(f"--{name}=DIR" for name in folders)
            raise ConfigError(
                f"command line: '{word}' is not a flag of doctor; the flags are {known}"
            )
        folders[key] = value
    text, problems = examine(folders)
    say(text)
    if problems:
        say("\n".join(["Problems", *(f"  {problem}" for problem in problems), ""]))
    else:
        say("No problems found; optional packages that are missing ('-') stop no other run.\n")
    say(
        "With a bug report send all of this, the command line, and the newest file in log/MODEL/ "
        "(paths in them name your folders)."
    )
    if problems:
        raise UserError(f"problems that stop runs, listed above: {len(problems)}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit code (see :func:`run_command`)."""
    return run_command(doctor, argv, lambda: USAGE)
