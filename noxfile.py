"""Tests on old and new packages, and the check before a release.

``nox`` runs all sessions, ``nox -s oldest`` one of them.

Needs nox (``pip install nox``) and the Pythons on the PATH. An environment takes about 6 GB and is
deleted when its session succeeds (``NOX_KEEP=1`` keeps it). Sessions run the quick tests of the
parts that use other packages; the whole test suite runs on the newest packages (README). The
table in docs/compatibility.md has the last results.
"""

from __future__ import annotations

import os
import runpy
import shutil
import tempfile
from pathlib import Path

import nox

nox.needs_version = ">=2024.10.9"
nox.options.error_on_missing_interpreters = True

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
# Uninstalled one after another in the session `missing`.
PACKAGES = ("tensorboard", "wandb", "torchvision", "timm", "optuna", "matplotlib", "aiohttp")
ROOMS = (
    "tests/compat",
    "tests/converters",  # duckdb, zstandard, aiohttp, Pillow
    "tests/data",  # pandas, numpy, Pillow
    "tests/evaluation",  # scipy
    "--ignore=tests/distributed/test_two_processes.py",  # tests/compat has two processes as well
    "tests/vision/test_encoders.py",  # torchvision, safetensors
    "tests/vision/test_timm_encoder.py",
    "tests/vision/test_finetune.py",
    "tests/cli/test_doctor.py",
    "tests/compat/test_lower_limits.py",
    "tests/compat/test_missing_packages.py",
    "tests/test_registry.py",
    "tests/files/test_torch_files.py",
    "tests/cli/test_tune.py",  # optuna
    "tests/tuning/test_ranges.py",
    "tests/trainer/test_gradient_gate.py",  # tensorboard
)
# What the session `release` runs on the installed wheel, without the sources.
INSTALLED = (
    "tests/config",
    "tests/files",
    "tests/test_quick_start.py",
    "tests/test_registry.py",
)
QUICK = ("-m", "not slow", "-q", "-p", "no:cacheprovider", "--durations=5")


def _test(session: nox.Session, *words: str, **environ: str) -> None:
    session.run("python", "-m", "pytest", *words, *session.posargs, env=_environ(**environ))


def _environ(**more: str) -> dict[str, str]:
    return {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"), **more}


def _versions(session: nox.Session) -> None:
    session.run("python", "-m", "pip", "list", "--format=freeze")


def _leave(session: nox.Session) -> None:
    """Delete the environment."""
    if not os.environ.get("NOX_KEEP"):
        shutil.rmtree(session.virtualenv.location)


@nox.session(python=PYTHONS)
def newest(session: nox.Session) -> None:
    """The newest packages that each Python supports."""
    session.install("-e", ".[test]")
    _versions(session)
    _test(session, *QUICK, *ROOMS)
    _leave(session)


@nox.session(python="3.10")
def oldest(session: nox.Session) -> None:
    """The lower limits of pyproject.toml, all at once."""
    constraints = Path(session.create_tmp()) / "constraints.txt"
    # In nox's own Python, which has the packages that the script imports.
    lower_limits = runpy.run_path(str(Path("tests", "lower_limits.py")))["lower_limits"]
    constraints.write_text("\n".join(lower_limits()), encoding="utf-8")
    session.install("-c", str(constraints), "-e", ".[test]")
    _versions(session)
    _test(session, *QUICK, *ROOMS, RECBOLE_CIEREC_OLDEST="1")
    _leave(session)


@nox.session(python="3.11")
def missing(session: nox.Session) -> None:
    """Uninstall one package at a time: what needs it names it, everything else works."""
    session.install("-e", ".[test]", "wandb")
    _versions(session)
    pip = ("python", "-m", "pip")
    for package in PACKAGES:
        frozen = session.run(*pip, "freeze", "--all", silent=True) or ""
        (pin,) = [line for line in frozen.splitlines() if line.startswith(f"{package}==")]
        session.run(*pip, "uninstall", "-q", "-y", package)
        _test(
            session, "-q", "tests/compat/test_missing_packages.py", RECBOLE_CIEREC_MISSING=package
        )
        session.run(*pip, "install", "-q", "--no-deps", pin)
    _leave(session)


@nox.session(python="3.11")
def docs(session: nox.Session) -> None:
    """The documentation site, in docs/_build/html; a warning fails it."""
    session.install("-e", ".[docs]")
    words = ("-W", "--keep-going", "-b", "html", "docs", "docs/_build/html")
    session.run("python", "-m", "sphinx", *words, env=_environ())
    _leave(session)


@nox.session(python="3.11")
def release(session: nox.Session) -> None:
    """Check what would be uploaded, which stays in dist/; nothing is uploaded."""
    dist = Path("dist").resolve()
    shutil.rmtree(dist, ignore_errors=True)
    session.install("build", "twine")
    session.run("python", "-m", "build", "--outdir", str(dist), silent=True)
    (wheel,), (sdist,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    session.run("twine", "check", "--strict", str(wheel), str(sdist))
    session.install(f"recbole-cierec[test] @ {wheel.as_uri()}")
    # Outside the checkout, and with short paths, which sockets in tests need.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name).resolve()
        shutil.unpack_archive(sdist, folder, filter="data")
        (source,) = folder.iterdir()
        _test_wheel(session, source, folder / "alone")
        session.log("The unpacked sdist:")
        session.chdir(source)
        quiet = ("-q", "-p", "no:cacheprovider")
        session.run("pytest", *quiet, "tests/test_packaging.py", env=_environ())
        pages = ("tests/test_examples.py", "tests/test_site.py")
        session.run("pytest", *QUICK, *pages, env=_environ())
    _leave(session)


def _test_wheel(session: nox.Session, source: Path, alone: Path) -> None:
    """The demo and tests in a folder without sources, so that they import the wheel.

    Args:
        source: The unpacked sdist, which the tests are taken from.
        alone: The folder to make.
    """
    alone.mkdir()
    session.chdir(alone)
    session.run("recbole-cierec", "doctor", silent=True)
    printed = session.run("recbole-cierec", silent=True, env=_environ()) or ""
    session.log(printed[printed.index("\nRecall@10 of") :])
    shutil.copytree(source / "tests", alone / "tests")
    for name in ("pyproject.toml", "run_recbole.py"):  # settings of pytest; what tests start
        shutil.copy(source / name, alone)
    session.run("pytest", *QUICK, *INSTALLED, env=_environ())
