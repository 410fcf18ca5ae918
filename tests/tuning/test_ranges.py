"""Ranges, the draws of each sampler, and refused words."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path

import pytest
from tune_helpers import SEARCHED, arguments, fake, search, write_two_tastes

from recbole_cierec.cli import tune
from recbole_cierec.config.config import Config
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.tuning import ranges, report


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("tastes")
    write_two_tastes(folder)
    (folder / "space.yaml").write_text(SEARCHED)
    return folder


# ------------------------------------------------------------------------------------- ranges


def space_of(data: Path, text: str, model="MF", fixed=()):
    Path("s.yaml").write_text(text + "\n")
    config = Config(model, "tastes", None, {"data_path": str(data)})
    return config, ranges.read_space(config, [Path("s.yaml")], fixed)


def test_an_interval_is_drawn_from_within_its_ends_and_evenly(data, in_tmp):
    text = "learning_rate: {low: 1e-4, high: 1, log: true}\nepochs: {low: 3, high: 7}\n"
    text += "embedding_size: {low: 1, high: 64, log: true}"
    _, space = space_of(data, text)
    drawn = [ranges.draw(space, 7, k) for k in range(4000)]
    assert Counter(one["epochs"] for one in drawn).keys() == {3, 4, 5, 6, 7}
    assert max(Counter(one["epochs"] for one in drawn).values()) < 920  # 800 and 5 deviations
    rates = sorted(math.log10(one["learning_rate"]) for one in drawn)
    assert -4 <= rates[0] < -3.99 < -0.01 < rates[-1] <= 0
    assert abs(rates[2000] + 2) < 0.1
    sizes = sorted(one["embedding_size"] for one in drawn)
    assert {type(size) for size in sizes} == {int}
    assert (sizes[0], sizes[-1]) == (1, 64)
    assert 5 <= sizes[2000] <= 9  # the middle of the logarithms is 5.7


def test_draws_are_free_of_the_order_and_number_of_other_keys(data, in_tmp):
    one = "learning_rate: [0.05, 0.1, 0.2]"
    two = "reg_weight: [0.0, 0.01]"
    drawn = [
        [ranges.draw(space_of(data, text)[1], 1, k)["learning_rate"] for k in range(20)]
        for text in (one, f"{one}\n{two}", f"{two}\n{one}")
    ]
    assert drawn[0] == drawn[1] == drawn[2]
    assert len(set(drawn[0])) == 3


def test_a_random_search_tries_all_settings_once_and_then_ends(data, in_tmp, monkeypatch, capsys):
    asked = fake(monkeypatch, lambda settings: settings["learning_rate"])
    result = search(data, trials=50)
    texts = {json.dumps(settings, sort_keys=True) for settings in asked}
    assert len(asked) == len(texts) == len(result["rows"]) == 4 * 2 + 1  # the defaults lie outside
    assert "hold 9 settings" in capsys.readouterr().err


def test_defaults_within_the_ranges_are_not_tried_again(data, in_tmp):
    config, space = space_of(data, "learning_rate: [0.1, 0.2]\nreg_weight: [0.02, 0.05]")
    first = ranges.defaults(space, config)
    assert ranges.size(space, first) == 4
    drawn = ranges.draws(space, 3, 4, first)
    assert drawn[0] == first == {"learning_rate": 0.2, "reg_weight": 0.02}
    assert len({json.dumps(one) for one in drawn}) == 4
    assert drawn[:3] == ranges.draws(space, 3, 3, first)


def test_a_key_of_the_command_line_is_not_searched(data, in_tmp, monkeypatch):
    asked = fake(monkeypatch, lambda settings: 1.0)
    search(data, trials=9, flags={"learning_rate": 0.05})
    assert {tuple(settings) for settings in asked} == {("reg_weight",)}


def test_the_softmax_loss_has_rates_of_its_own(data, in_tmp):
    spaces = {}
    for loss in ("bpr", "softmax"):
        config = Config("VBPR", "tastes", None, {"data_path": str(data), "loss": loss})
        spaces[loss] = ranges.read_space(config, ranges.range_files(config))
    assert spaces["bpr"].keys() == spaces["softmax"].keys()
    bpr, softmax = (spaces[loss]["learning_rate"].values for loss in spaces)
    assert max(softmax) < max(bpr)
    bpr, softmax = (spaces[loss]["reg_weight"].values for loss in spaces)
    assert max(softmax) > max(bpr)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["holds no range"]),
        ("learning_rat: [0.1]", ["unknown key", "did you mean 'learning_rate'"]),
        ("gr_mode: [off, paper]", ["MF does not read 'gr_mode'"]),
        ("seed: [1, 2]", ["'seed' cannot be searched"]),
        ("loss: [bpr, softmax]", ["'loss' cannot be searched"]),
        ("valid_metric: [Recall@10]", ["'valid_metric' cannot be searched"]),
        ("learning_rate: 0.1", ["must be a list of values or"]),
        ("learning_rate: []", ["must be a list of values or"]),
        ("learning_rate: [fast]", ["'learning_rate' must be a number"]),
        ("learning_rate: [0.1, 0.1]", ["a value twice"]),
        ("stopping_step: {low: 1.5, high: 3}", ["'stopping_step' must be a whole number"]),
        ("learning_rate: {low: 0.1}", ["needs numbers as low and high"]),
        ("learning_rate: {low: 0.1, hi: 3}", ["unknown part 'hi'", "did you mean 'high'"]),
        ("learning_rate: {low: 1, high: 0.1}", ["low below high"]),
        ("learning_rate: {low: 0, high: 0.1, log: true}", ["low above 0"]),
        ("learning_rate: {low: 0.1, high: 1, log: 3}", ["log is true or false"]),
    ],
)
def test_a_wrong_range_is_one_line_with_its_file(data, in_tmp, capsys, text, words):
    Path("s.yaml").write_text(text + "\n")
    assert tune.main(arguments(data, search="s.yaml")) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert all(word in said for word in ["error: s.yaml", *words]), said
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"trials": 0}, ["--trials must be from 1 to 1000000, not '0'"]),
        ({"processes": 9999}, ["--processes must be from 1 to"]),
        ({"trials": "many"}, ["--trials must be from 1"]),
        ({"processes": 0}, ["--processes must be from 1"]),
        ({"sampler": "grid"}, ["--sampler must be one of random, tpe"]),
        ({"model": "MV"}, ["model 'MV' is not known"]),
        ({"model": "FISM", "search": None}, ["no search range for FISM", "--search=FILE.yaml"]),
        ({"search": "none.yaml"}, ["none.yaml: there is no such"]),
        ({"nproc": 2}, ["--nproc is not for tune", "--processes"]),
        ({"resume": "auto"}, ["--resume is not for tune"]),
        ({"name": "a/b"}, ["--name must not be a path", "--out"]),
        ({"learning_rate": 0.1, "reg_weight": 0.1}, ["nothing is left to search"]),
        ({"dataset": "absent"}, ["absent", "no such data set folder"]),
        ({"storage": "sqlite:///a.db"}, ["--storage must be a file", "sqlite:///a.db"]),
        ({"storage": "/proc/x/y.journal"}, ["/proc/x/y.journal: cannot be opened"]),
    ],
)
def test_a_wrong_word_is_one_line_and_code_2(data, in_tmp, capsys, own, words):
    given = [a for a in arguments(data, **{"trials": 2, **own}) if not a.endswith("=None")]
    assert tune.main(given) == 2
    said = [line for line in capsys.readouterr().err.splitlines() if "trials of" not in line]
    assert len(said) == 1
    assert said[0].startswith("error: ")
    assert all(word in said[0] for word in words), said


def test_help_names_every_flag_and_ends_well(capsys):
    assert tune.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"--{flag}" in said for flag in tune._OWN)
    assert max(map(len, said.splitlines())) <= 100


# ------------------------------------------------------------------------------------ samplers


def hill(settings: dict) -> float:
    """The best is at a rate of 0.01."""
    return 1 - abs(math.log10(settings["learning_rate"]) + 2)


def test_tpe_draws_near_what_was_good(data, in_tmp, monkeypatch):
    fake(monkeypatch, hill)
    Path("wide.yaml").write_text("learning_rate: {low: 1e-6, high: 10, log: true}\n")
    rows = search(data, trials=30, sampler="tpe", search="wide.yaml")["rows"]
    drawn, learnt = rows[1:11], rows[11:]
    mean = [sum(row["valid"] for row in part) / len(part) for part in (drawn, learnt)]
    assert mean[1] > mean[0] + 0.5
    assert max(row["valid"] for row in learnt) > 0.9


def test_a_tpe_search_that_was_stopped_ends_as_the_whole_one(data, in_tmp, monkeypatch):
    fake(monkeypatch, hill)
    Path("wide.yaml").write_text("learning_rate: {low: 1e-6, high: 10, log: true}\n")
    words = {"sampler": "tpe", "search": "wide.yaml"}
    whole = search(data, trials=16, name="whole", **words)["rows"]
    search(data, trials=13, name="parts", **words)
    assert search(data, trials=16, name="parts", **words)["rows"] == whole


def test_settings_that_tpe_draws_twice_are_trained_once(data, in_tmp, monkeypatch):
    asked = fake(monkeypatch, lambda settings: settings["learning_rate"])
    Path("wide.yaml").write_text("learning_rate: [0.1, 0.2, 0.3, 0.4]\nreg_weight: [0, 1, 2, 3]\n")
    rows = search(data, trials=17, sampler="tpe", search="wide.yaml")["rows"]
    again = [row for row in rows if "repeats" in row]
    assert again
    assert len(rows) == len(asked) + len(again) == 17
    for row in again:
        first = rows[row["repeats"]]
        assert (row["settings"], row["valid"]) == (first["settings"], first["valid"])


def test_lists_can_be_chosen_by_tpe_too(data, in_tmp, monkeypatch):
    asked = fake(monkeypatch, lambda settings: len(settings["mlp_hidden_size"]))
    Path("s.yaml").write_text(
        "mlp_hidden_size: [[8], [8, 4]]\ndropout_prob: {low: 0.0, high: 0.5}\n"
    )
    search(data, "NeuMF", trials=13, sampler="tpe", search="s.yaml")
    assert {tuple(settings["mlp_hidden_size"]) for settings in asked[1:]} == {(8,), (8, 4)}


@pytest.mark.parametrize("value", [0.1, 1e-05, 3, True, None, "VBPR", "off", "true", "1e3", "a: b",
                                   [1, 2], {"a": "x y"}])  # fmt: skip
def test_values_of_the_best_yaml_are_read_back_as_they_were(tmp_path, value):
    (tmp_path / "a.yaml").write_text(f"key: {report.yaml_text(value)}  # (x) Found.\n")
    assert read_yaml(tmp_path / "a.yaml") == {"key": value}
