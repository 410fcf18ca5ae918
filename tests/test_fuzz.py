"""Random inputs for some seconds, and inputs that longer runs have found; see fuzzing.py."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fuzz_parts import PARTS, tiny_keys
from fuzzing import FuzzError, check_line, memory_limit, spare_time_and_threads
from tiny_data import write_tiny

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.errors import CheckpointError, ConfigError, DataError, UserError
from recbole_cierec.evaluation.per_user import read_per_user
from recbole_cierec.files.npy import read_npz
from recbole_cierec.quick_start import prepare

# Inputs of each part: a few seconds. Fewer where each prepares a run.
INPUTS = {"atomic": 40, "keys": 60, "files": 60, "pictures": 1500, "checkpoints": 40}


@pytest.fixture
def part(in_tmp, monkeypatch):
    """``part(name)`` -> that part in a separate folder."""
    spare_time_and_threads(monkeypatch.setattr)

    def make(name):
        return PARTS[name](in_tmp)

    return make


@pytest.mark.parametrize("name", PARTS)
def test_every_input_ends_with_a_result_or_with_one_line(part, name):
    attempted = part(name)
    with memory_limit():
        lines = [attempted.attempt(0, number) for number in range(INPUTS[name])]
    refused = sum(line is not None for line in lines)
    assert 0 < refused < len(lines)  # else the inputs test one side only


def test_the_command_counts_its_inputs(tmp_path):
    script = Path(__file__).with_name("fuzzing.py")
    command = [sys.executable, script, "--part=pictures", "--seed=1", "--minutes=0.01"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 0, ended.stderr
    assert "a minute" in ended.stdout


@pytest.mark.parametrize("line", ["", "a\nb", "a\x1b[31m", "x" * 3000])
def test_the_check_of_messages_finds_what_it_must(line):
    with pytest.raises(FuzzError):
        check_line(line)


# ---- found by long runs --------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\nb", "a\x85b", "a\u2028b", "x" * 5000])
def test_an_error_quotes_any_input_in_one_clean_line(text):
    check_line(str(UserError(text)))


@pytest.mark.parametrize("value", [[1], {"a": 1}])
def test_an_encoding_that_is_no_text_is_refused(value):
    with pytest.raises(ConfigError, match="'encoding' must be text"):
        Config("MF", "tiny", None, {"encoding": value}, {})


@pytest.mark.parametrize("key", ["local_rank", "offset", "nproc", "world_size", "ip", "port"])
def test_keys_of_the_launch_are_refused_where_they_have_no_effect(tmp_path, key):
    file = tmp_path / "mine.yaml"
    file.write_text(f"{key}: 2\n")
    for files, flags in (([file], {}), ([], {key: "2"})):
        with pytest.raises(ConfigError, match=f"'{key}' is .* no effect here"):
            Config("MF", "tiny", files, {}, flags)


def test_a_rank_alone_does_not_make_a_process_of_several():
    with pytest.raises(ConfigError, match=r"local_rank also needs .*ip"):
        Config("MF", "tiny", None, {"local_rank": 0}, {})


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("recall@10", np.float64(1)),
        ("recall@10", np.zeros(3)),
        ("recall@10", np.zeros((2, 5))),
        ("recall@10", np.array(["a", "b"])),
        ("recall@10", np.array([1.0, np.inf])),
        ("users", np.zeros(2)),
        ("about", np.array("[]")),
    ],
)
def test_results_by_user_of_another_form_are_refused(tmp_path, name, array):
    plain = {"users": np.array(["a", "b"]), "recall@10": np.zeros(2), "about": np.array("{}")}
    for arrays in (plain, {**plain, name: array}):
        np.savez(tmp_path / "a.users.npz", **arrays)
        if arrays is plain:
            assert read_per_user(tmp_path / "a.users.npz").values.keys() == {"recall@10"}
    with pytest.raises(DataError, match="not a file of results by user"):
        read_per_user(tmp_path / "a.users.npz")


def test_a_long_name_in_a_damaged_archive_does_not_fill_the_message(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("b" * 60000 + ".npy", b"no array")
    with pytest.raises(ValueError, match="b") as error:
        read_npz(tmp_path / "a.npz")
    assert len(str(error.value)) <= 200


def _no_result(state):
    del state["best_valid_result"]


def _odd_parameter(state):
    state["other_parameter"] = 3


def _odd_attribute(state):
    state["plain_state"]["n_users"] = torch.zeros(2)


def _slots(state):
    return next(iter(state["optimizers"]["optimizer"]["state"].values()))


def _moment_that_is_no_tensor(state):
    _slots(state)["exp_avg"] = 7


def _moment_of_another_size(state):
    _slots(state)["exp_avg"] = torch.tensor(True)


def _steps_that_are_many(state):
    _slots(state)["step"] = torch.zeros(3)


def _rate_that_is_many(state):
    state["optimizers"]["optimizer"]["param_groups"][0]["lr"] = torch.zeros(2, 2)


def _rate_beyond_a_double(state):
    state["optimizers"]["optimizer"]["param_groups"][0]["lr"] = 2**64


def _end_without_parts(state):
    state["ended"] = {}


def _another_setting(state):
    state["optimizers"]["optimizer"]["param_groups"][0]["differentiable"] = torch.tensor(7)


def _half_of_adam(state):
    del next(iter(state["optimizers"]["optimizer"]["state"].values()))["exp_avg"]


def _one_without_state(state):
    state["optimizers"]["optimizer"]["state"].popitem()


ODD = [_no_result, _odd_parameter, _odd_attribute, _half_of_adam, _moment_that_is_no_tensor]
ODD += [_moment_of_another_size, _steps_that_are_many, _rate_that_is_many, _another_setting]
ODD += [_rate_beyond_a_double, _end_without_parts]
LEARNERS = {_one_without_state: "adagrad"}  # whose parameters have state from the start


@pytest.mark.parametrize("change", [*ODD, *LEARNERS])
def test_a_checkpoint_with_a_part_of_another_form_is_refused(in_tmp, change):
    write_tiny(in_tmp)
    keys = tiny_keys(in_tmp, learner=LEARNERS.get(change, "adam"))
    file = Path(run("VBPR", "tiny", config_dict=keys)["checkpoint"]).with_suffix(".last.pth")
    state = torch.load(file, weights_only=True)
    change(state)
    torch.save(state, file)
    with pytest.raises(CheckpointError):
        prepare(Config("VBPR", "tiny", None, {**keys, "resume": str(file)}, {}))
