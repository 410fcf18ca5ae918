"""The error for a missing or half-installed package is one line with advice."""

from __future__ import annotations

import sys

import pytest

from recbole_cierec import run
from recbole_cierec.cli.exit_codes import run_command
from recbole_cierec.compat.optional_packages import lacking, named_where_missing, require
from recbole_cierec.errors import ConfigError


@pytest.mark.parametrize(
    ("model", "module", "package"),
    [
        ("NCL", "faiss", "faiss-cpu"),
        ("NNCF", "networkx", "networkx"),
    ],
)
def test_what_a_model_of_recbole_needs_is_named(tiny, monkeypatch, model, module, package):
    monkeypatch.setitem(sys.modules, module, None)
    keys = tiny()
    for own in ("features_file", "init_std"):
        keys.pop(own)
    if model == "NNCF":
        keys["neigh_info_method"] = "louvain"
    with pytest.raises(ConfigError) as error:
        run(model, "tiny", config_dict=keys)
    assert "\n" not in str(error.value)
    assert model in str(error.value)
    assert f"needs the package {package}, which is not installed: pip install {package}" in str(
        error.value
    )


def test_wandb_that_is_not_installed(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said = "log_wandb needs the package wandb, which is not installed: pip install wandb"
    with pytest.raises(ConfigError, match=said):
        run("MF", "tiny", config_dict=tiny(log_wandb=True))


@pytest.fixture
def half_installed(in_tmp, monkeypatch):
    """``half_installed(text)``: a folder ``wandb`` that Python finds, with this __init__.py."""

    def make(text: str | None) -> None:
        (in_tmp / "wandb").mkdir()
        if text is not None:
            (in_tmp / "wandb" / "__init__.py").write_text(text)
        monkeypatch.delitem(sys.modules, "wandb", raising=False)
        elsewhere = [place for place in sys.path if "site-packages" not in place]
        monkeypatch.setattr(sys, "path", [str(in_tmp), *elsewhere])
        monkeypatch.setattr(sys, "path_importer_cache", {})

    yield make
    sys.modules.pop("wandb", None)


def test_a_folder_of_wandbs_runs_is_not_wandb(half_installed):
    half_installed(None)
    with pytest.raises(ConfigError, match=r"pip install wandb \(.*wandb is taken for it\)"):
        require("wandb", "init", "log_wandb")


@pytest.mark.parametrize("text", ["import absent_part", "raise RuntimeError('a\\nb')", "1 / 0"])
def test_a_broken_wandb_is_to_be_installed_anew(half_installed, text):
    half_installed(text)
    with pytest.raises(ConfigError) as error:
        require("wandb", "init", "log_wandb")
    said = str(error.value)
    assert said.startswith("log_wandb needs the package ")
    assert "\n" not in said
    assert "pip install" in said


def test_modules_of_recbole_and_of_ours_are_faults():
    for name in ("recbole.quick_start", "recbole_cierec.absent"):
        assert lacking(ModuleNotFoundError(name=name)) is None
    with pytest.raises(ModuleNotFoundError), named_where_missing("x"):
        raise ModuleNotFoundError(name="recbole.absent")


def test_a_command_names_it_too(capsys):
    def job(_):
        import absent_package  # noqa: F401

    assert run_command(job, [], str) == 2
    assert capsys.readouterr().err == (
        "error: this needs the package absent_package, which is not installed: "
        "pip install absent_package\n"
    )
