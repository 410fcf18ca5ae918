"""``python -m recbole_cierec doctor``: what it prints, and that broken packages do not stop it."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest

from recbole_cierec import __main__
from recbole_cierec.cli import doctor
from recbole_cierec.compat.requirements import (
    DEVELOPMENT,
    DISTRIBUTION,
    OPTIONAL,
    Requirement,
    installed,
    module_of,
    requirements,
)

ROOT = Path(__file__).resolve().parents[2]
SECTIONS = ("Versions", "Patches of RecBole", "Devices", "Threads", "Places", "Optional packages")
DEATHS = {
    "numpy": "raise ImportError('numpy was built\\nfor another Python')",
    "torch": "import os; os.abort()",
}


def command(code: str, cwd: Path, **environ: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), **environ},
        capture_output=True,
        text=True,
        timeout=120,
    )


def fake(folder: Path, name: str, text: str) -> None:
    (folder / name).mkdir()
    (folder / name / "__init__.py").write_text(text)


def rows_of(report: str, section: str) -> dict[str, str]:
    """First word to second word of each row of a section."""
    rows = report.split(f"\n{section}")[1].split("\n\n")[0].splitlines()[1:]
    return {row.split()[0]: row.split()[1] for row in rows}


def test_a_sound_installation_is_0_and_torch_stays_out_of_the_process(tmp_path):
    code = "import sys; from recbole_cierec.__main__ import main; code = main(['doctor']); "
    code += "assert 'torch' not in sys.modules; sys.exit(code)"
    done = command(code, tmp_path, CUDA_VISIBLE_DEVICES="")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [s for s in SECTIONS if s not in done.stdout] == []
    report = f"\n{done.stdout}"
    versions = rows_of(report, "Versions")
    for name in ("recbole", "torch", "numpy", "pandas", "scipy", "torchvision"):
        assert versions[name] == version(name)
    assert rows_of(report, "Devices").keys() >= {"CPUs", "memory", "GPU"}
    assert rows_of(report, "Threads")["torch"] == "1,"
    assert set(rows_of(report, "Places").values()) == {"writable,"}
    assert done.stdout.splitlines()[-1].startswith("With a bug report send")
    assert max(map(len, done.stdout.splitlines())) <= 140
    assert list(tmp_path.iterdir()) == []


def test_broken_packages_are_named_in_a_line_each_and_the_rest_is_printed(tmp_path):
    for name, text in DEATHS.items():
        fake(tmp_path, name, text)
    code = "import sys; from recbole_cierec.__main__ import main; sys.exit(main(['doctor']))"
    done = command(code, tmp_path, PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("error: problems that stop runs, listed above: ")
    assert done.stderr.count("\n") == 1
    problems = done.stdout.split("Problems\n")[1]
    assert "  numpy: ImportError: numpy was built for another Python\n" in problems
    assert "  torch: the process that imported it ended with code -6\n" in problems
    assert [s for s in SECTIONS if s not in done.stdout] == []
    assert done.stdout.splitlines()[-1].startswith("With a bug report send")


def test_an_import_that_ends_the_process_hides_no_other(tmp_path, monkeypatch):
    texts = {"dies": "import os; os._exit(9)", "late": "", "bad": "raise OSError('no such lib')"}
    for name, text in texts.items():
        fake(tmp_path, name, f"print('noise')\n{text}")
    monkeypatch.syspath_prepend(tmp_path)
    assert doctor.probe(["late", "dies", "absent", "bad", "json"]).errors == {
        "late": None,
        "dies": "the process that imported it ended with code 9",
        "absent": "ModuleNotFoundError: No module named 'absent'",
        "bad": "OSError: no such lib",
        "json": None,
    }


def test_an_import_that_hangs_ends(tmp_path, monkeypatch):
    fake(tmp_path, "hangs", "import time; time.sleep(60)")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(doctor, "_SECONDS", 1)
    assert doctor.probe(["hangs", "json"]).errors == {
        "hangs": "the process that imported it did not end in 1 seconds",
        "json": None,
    }


@pytest.fixture
def quick(monkeypatch, in_tmp, capsys):
    """``quick(*flags)`` -> (code, output) with all imports working, and no process started."""

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)  # other tests set it

    def run(*flags: str) -> tuple[int, str]:
        found = doctor.Findings(facts={"cuda": "99.1", "gpus": ["A, 1.0 of 2.0 GiB free", "B"]})
        monkeypatch.setattr(doctor, "probe", lambda modules: found)
        code = doctor.main(list(flags))
        return code, capsys.readouterr().out

    return run


def test_devices_are_shown(quick, monkeypatch):
    monkeypatch.setattr(doctor, "container_cpus", lambda: 1.5)
    said = quick()[1]
    assert "built for CUDA 99.1" in said
    assert "GPU     A, 1.0 of 2.0 GiB free\n          B\n" in said
    assert "the container is limited to 1.5" in said


def test_a_package_too_old_or_missing_is_a_problem(quick, monkeypatch):
    asked = [Requirement("numpy", ">=99"), Requirement("nowhere-1", ">=2"), Requirement("torch")]
    monkeypatch.setattr(doctor, "requirements", lambda: asked)
    code, said = quick()
    problems = said.split("Problems\n")[1].splitlines()[:2]
    assert code == 2
    assert problems == [
        "  numpy: needed is >=99: pip install 'numpy>=99'",
        "  nowhere-1: missing: pip install 'nowhere-1>=2'",
    ]


def test_a_checkout_that_is_not_installed_says_so(quick, monkeypatch):
    def refuse():
        raise PackageNotFoundError("recbole-cierec")

    monkeypatch.setattr(doctor, "requirements", refuse)
    code, said = quick()
    assert code == 2
    assert "recbole-cierec is not installed: pip install -e ." in said
    assert version("numpy") in said


def test_places_that_cannot_be_written_are_problems_but_data_may_be_read_only(
    quick, in_tmp, monkeypatch
):
    (in_tmp / "file").touch()
    code, said = quick("--checkpoint_dir=file", "--cache_dir=file/below")
    assert code == 2
    assert "file: cannot be written (Not a directory); set checkpoint_dir to another" in said
    assert "file/below: cannot be written" in said

    def refuse(dir):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    (in_tmp / "dataset").mkdir()
    problems = quick()[1].split("Problems\n")[1]
    assert "log: cannot be written (Read-only file system); start from another folder" in problems
    assert "dataset" not in problems


def test_a_value_may_be_the_next_word(in_tmp, monkeypatch):
    asked = {}
    monkeypatch.setattr(doctor, "examine", lambda folders: (asked.update(folders) or "", []))
    assert doctor.main(["--cache_dir", "there", "--data_path=here"]) == 0
    assert (asked["cache_dir"], asked["data_path"]) == ("there", "here")


@pytest.mark.parametrize("word", ["--model=MF", "--cache_dir", "--cache_dir=", "saved", "--data=x"])
def test_other_flags_are_refused(word, capsys):
    assert doctor.main([word]) == 2
    assert "is not a flag of doctor; the flags are --checkpoint_dir=DIR" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000"}, 1.5),
        ({"cpu.max": "max 100000"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000", "cpu/cpu.cfs_period_us": "100000"}, 4),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ({}, None),
    ],
)
def test_limit_of_a_container(files, cpus, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert doctor.container_cpus(tmp_path) == cpus


# -- requirements ------------------------------------------------------------------------------


def test_requirements_are_those_that_pip_knows():
    found = {(package.name, package.extra): package for package in requirements()}
    assert found["torch", ""].limits.startswith(">=")
    assert found["recbole", ""].limits.startswith("==1.2.")
    assert ("aiohttp", "images") in found
    assert DISTRIBUTION not in {name for name, _ in found}  # named by the extra `all`
    for name, extra in found:
        if extra and extra not in DEVELOPMENT:
            assert name in OPTIONAL, f"say what {name} of the extra {extra} is for"
        elif not extra and installed(name):
            __import__(module_of(name))


# -- words -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", __main__.COMMANDS)
def test_a_word_starts_the_command_of_that_name(name, capsys):
    assert __main__.main([name, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"python -m recbole_cierec {name}" in said or name == "run"
    assert said.startswith("usage: run_recbole.py") == (name == "run")
    assert said.startswith("usage: ")
    assert "\n  -h, --help " in said or name == "convert"  # whose options are those of a converter
    assert "`" not in said
    assert max(map(len, said.splitlines())) <= 100


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("doctr", "did you mean 'doctor'?"),
        ("x", f"known are {', '.join(__main__.COMMANDS)}"),
    ],
)
def test_an_unknown_word_names_the_nearest(word, hint, capsys):
    assert __main__.main([word]) == 2
    assert capsys.readouterr().err == (
        f"error: command line: there is no command '{word}'; {hint}\n"
    )
