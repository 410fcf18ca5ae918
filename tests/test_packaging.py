"""The distribution: sources with tests and docs; a wheel that runs after installation."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from importlib import resources
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {
    "recbole_cierec": ROOT / "recbole_cierec",
    "recbole_cierec/properties": ROOT / "properties",
    "recbole_cierec/dataset_converters": ROOT / "dataset_converters",
}
needs_checkout = pytest.mark.skipif(
    not (ROOT / "setup.py").is_file(), reason="these tests build the wheel from a checkout"
)
pytestmark = needs_checkout


def call(*command: str | Path, cwd: Path) -> str:
    """Run a command without the settings of the surrounding Python; return its output."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**inherited, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def sdist(tmp_path_factory) -> Path:
    """Build the source distribution from a copy of the checkout, which is not changed."""
    folder = tmp_path_factory.mktemp("sdist")
    names = (".git", ".nox", "build", "dist", "*.egg-info", "__pycache__", "saved")
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*names))
    code = "from setuptools import build_meta; build_meta.build_sdist('..')"
    call(sys.executable, "-c", code, cwd=folder / "source")
    (built,) = folder.glob("*.tar.gz")
    return built


@pytest.fixture(scope="module")
def wheel(sdist, tmp_path_factory) -> Path:
    """Build the wheel from the source distribution, which shows that it is complete."""
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-q"]
    call(*pip, "--wheel-dir", folder, sdist, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> Path:
    """Return a fresh Python with the wheel, which finds the other packages where they are."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=os.name != "nt", with_pip=False)
    python = folder / ("Scripts" if os.name == "nt" else "bin") / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "-q"]
    call(*pip, "--no-deps", "--no-index", wheel, cwd=folder)
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    site_packages = Path(call(python, "-c", code, cwd=folder).strip())
    # Adds the folder to the path, but does not read the .pth files in it: an editable installation
    # of this checkout stays out of sight.
    (site_packages / "parent.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return python


def files_of(folder: Path, pattern: str) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob(pattern)}


def test_the_wheel_holds_every_module_and_yaml_and_nothing_else(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{name}"
        for package, folder in PACKAGES.items()
        for pattern in ("*.py", "*.yaml", "py.typed", "templates/*", "static/*")
        for name in files_of(folder, pattern)
    }
    assert names == expected
    assert "recbole_cierec/py.typed" in names


def metadata(wheel: Path) -> tuple[str, bytes]:
    """Its METADATA and its LICENSE."""
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        license_text = archive.read(name.replace("METADATA", "licenses/LICENSE"))
        return archive.read(name).decode(), license_text


def test_the_wheel_names_its_license_and_holds_it(wheel):
    text, license_text = metadata(wheel)
    assert "License-Expression: MIT" in text.splitlines()
    assert license_text == (ROOT / "LICENSE").read_bytes()


def test_the_extra_all_has_every_feature(wheel):
    text, _ = metadata(wheel)
    extras = set(re.findall(r"^Provides-Extra: (\S+)", text, re.M))
    (all_,) = re.findall(r'^Requires-Dist: recbole-cierec\[(.+)\]; extra == "all"', text, re.M)
    assert set(all_.split(",")) == extras - {"all", "test", "docs", "dev"}


LINK = re.compile(r"\]\(([^)]+)\)")


def test_the_long_description_has_no_link_into_a_folder(wheel):
    description = metadata(wheel)[0].split("\n\n", 1)[1]
    assert description.startswith("# recbole_cierec")
    links = LINK.findall(description)
    assert links
    assert all(link.startswith(("https://", "#")) for link in links)
    assert "docs/protocol.md" in description  # what was a link is still named


def test_with_an_address_all_links_of_the_long_description_are_absolute(tmp_path):
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / "recbole_cierec").mkdir()
    (tmp_path / "recbole_cierec" / "__init__.py").write_text('__version__ = "0"\n')
    for name in ("properties", "dataset_converters"):
        (tmp_path / name).mkdir()
    project = tmp_path / "pyproject.toml"
    line = '[project.urls]\nRepository = "https://example.org/a/b/"\n'
    project.write_text(project.read_text("utf-8").replace("[project.urls]\n", line), "utf-8")
    code = "from setuptools import build_meta as b; print(b.prepare_metadata_for_build_wheel('.'))"
    folder = call(sys.executable, "-c", code, cwd=tmp_path).split()[-1]
    text = (tmp_path / folder / "METADATA").read_text(encoding="utf-8")
    ours, theirs = (LINK.findall(t) for t in ((ROOT / "README.md").read_text("utf-8"), text))
    assert len(ours) == len(theirs)
    for mine, other in zip(ours, theirs, strict=True):
        kind = "raw" if mine.endswith((".png", ".svg")) else "blob"
        assert other == (mine if "://" in mine else f"https://example.org/a/b/{kind}/HEAD/{mine}")


def test_the_source_distribution_holds_tests_docs_and_examples(sdist):
    with tarfile.open(sdist) as archive:
        names = {name.split("/", 1)[1] for name in archive.getnames() if "/" in name}
    for folder in ("docs", "tests", "benchmarks"):
        assert {
            path.relative_to(ROOT).as_posix()
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and not {"__pycache__", "_build"} & set(path.parts)
        } <= names
    assert {f"examples/{path.name}" for path in (ROOT / "examples").glob("*.ipynb")} <= names
    assert {"LICENSE", "README.md", "CHANGELOG.md", "run_recbole.py", "noxfile.py"} <= names
    assert not [name for name in names if "__pycache__" in name or name.startswith(".")]


def test_the_wheel_runs_from_another_folder(python, tmp_path):
    code = "import recbole_cierec, recbole_cierec.dataset_converters as d; "
    code += "print(recbole_cierec.__file__); print(d.__file__)"
    for line in call(python, "-c", code, cwd=tmp_path).split():
        assert Path(line).is_relative_to(python.parents[1])


def test_the_installed_property_files_are_those_of_the_checkout(python, tmp_path):
    code = "from recbole_cierec.config.properties import properties_dir as d; print(d())"
    installed = Path(call(python, "-c", code, cwd=tmp_path).strip())
    assert installed.is_relative_to(python.parents[1])
    assert files_of(installed, "*.yaml") == files_of(ROOT / "properties", "*.yaml")
    for name in files_of(installed, "*.yaml"):
        assert (installed / name).read_bytes() == (ROOT / "properties" / name).read_bytes()


def test_the_editable_installation_finds_the_property_files():
    folder = resources.files("recbole_cierec.properties")
    assert (folder / "overall.yaml").is_file()
    assert (folder / "model" / "CIERec.yaml").is_file()


def test_module_and_console_script_print_their_help(python, tmp_path):
    by_module = call(python, "-m", "recbole_cierec", "--help", cwd=tmp_path)
    by_script = call(python.parent / "recbole-cierec", "--help", cwd=tmp_path)
    assert by_module == by_script
    assert "usage:" in by_module
    assert "CIERec" in by_module


@pytest.mark.slow
def test_the_wheel_trains_cierec_on_the_demo_from_another_folder(python, tmp_path):
    command = ["-m", "recbole_cierec", "--model=CIERec", "--epochs=1", "--use_gpu=False"]
    call(python, *command, cwd=tmp_path)
    assert list((tmp_path / "saved").glob("CIERec*.pth"))
    assert (tmp_path / "dataset" / "demo" / "demo.inter").is_file()
