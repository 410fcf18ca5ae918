"""Lists of a checkpoint against full_sort_predict and numpy."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_cierec import load, recommend, run
from recbole_cierec.__main__ import main
from recbole_cierec.distributed.world import world
from recbole_cierec.errors import ConfigError, DataError, OutputError
from recbole_cierec.serving import ranking
from recbole_cierec.serving.ranking import top_items
from recbole_cierec.serving.trained import load_trained
from recbole_cierec.serving.web.catalogue import Catalogue

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def keys(tiny, tiny_folder, in_tmp):
    """Keys of a run whose data have a user without training interaction, ``late``."""
    home = shutil.copytree(tiny_folder / "tiny", in_tmp / "data" / "tiny")
    with (home / "tiny.inter").open("a") as file:
        file.write("late\ti3\t99\n")
    lines = (home / "tiny.item").read_text().splitlines()
    extra = ["price:float\tcolor:token", *(f"{k}\t{'red' if k % 3 else 'blue'}" for k in range(39))]
    (home / "tiny.item").write_text("\n".join("\t".join(x) for x in zip(lines, extra, strict=True)))

    def make(**more):
        split = {"order": "TO", "split": {"RS": [0.7, 0.1, 0.2]}, "group_by": "none"}
        return tiny(data_path="data", eval_args={**split, "mode": "full"}, epochs=1, **more)

    return make


def truth(checkpoint, seen_too=False) -> dict[str, dict[str, float]]:
    """Scores of every user for every item, without those seen, by the model itself."""
    job = load(checkpoint)
    data = job.loaders[0]._dataset
    users, items = (data.field2id_token[name] for name in ("user_id", "item_id"))
    scores = {}
    for number, name in enumerate(users[1:], 1):
        with torch.no_grad():
            row = of_user(job.model, number, len(items))
        row = dict(zip(items.tolist(), row.view(-1).tolist(), strict=True))
        row.pop("[PAD]")
        for part in () if seen_too else job.loaders[:2]:
            table = part._dataset.inter_feat
            for item in table["item_id"][table["user_id"] == number]:
                row.pop(items[int(item)], None)
        scores[str(name)] = row
    return scores


def of_user(model, number: int, n_items: int) -> torch.Tensor:
    user = torch.tensor([number])
    try:
        return model.full_sort_predict(Interaction({"user_id": user}))
    except NotImplementedError:
        pairs = {"user_id": user.repeat(n_items), "item_id": torch.arange(n_items)}
        return model.predict(Interaction(pairs))


def check(table: pd.DataFrame, scores: dict[str, float], topk: int) -> None:
    best = sorted(scores.values(), reverse=True)[:topk]
    assert table["score"].tolist() == pytest.approx(best, rel=1e-5, abs=1e-6)
    assert table["score"].tolist() == pytest.approx([scores[i] for i in table["item"]], abs=1e-5)
    assert table["rank"].tolist() == list(range(1, len(best) + 1))
    assert table["item"].is_unique


@pytest.mark.parametrize("name", ["MF", "VBPR", "CIERec", "HAFR", "BPR", "NeuMF", "DropoutNet"])
def test_lists_are_the_best_of_full_sort_predict_without_what_the_user_has(keys, name):
    done = run(name, "tiny", config_dict=keys(mlp_hidden_size=[8]))
    shutil.rmtree("data")
    table = recommend(done["checkpoint"], topk=7)
    scores = truth(done["checkpoint"])
    trained = table[table["user_status"] == "trained"]
    assert set(trained["user"]) == set(scores) - {"late"}
    for user, rows in trained.groupby("user"):
        check(rows, scores[user], 7)


def test_seen_items_stay_where_they_are_wanted(keys):
    done = run("VBPR", "tiny", config_dict=keys())
    table = recommend(done["checkpoint"], ["u3"], topk=100, with_seen=True)
    check(table, truth(done["checkpoint"], seen_too=True)["u3"], 100)
    assert len(recommend(done["checkpoint"], ["u3"], topk=100)) < len(table)


def test_what_new_users_had_before_the_test_is_not_recommended_again(keys):
    split = {"split": {"COLD_USER": {"share": [0.7, 0.15, 0.15], "history": 3}}}
    settings = keys() | {"eval_args": {**split, "order": "TO", "group_by": "user"}}
    done = run("VBPR", "tiny", config_dict=settings)
    data = load(done["checkpoint"]).loaders[0]._dataset
    new = data.field2id_token["user_id"][np.flatnonzero(data.cold_phase == 2)]
    rows = pd.read_csv("data/tiny/tiny.inter", sep="\t").set_axis(["user", "item", "time"], axis=1)
    known = rows.sort_values("time", kind="stable").groupby("user").head(3)
    table = recommend(done["checkpoint"], list(new), topk=100)
    for user in new:
        had = set(known["item"][known["user"] == user])
        listed = set(table["item"][table["user"] == user])
        assert listed == set(data.field2id_token["item_id"][1:]) - had


def test_a_model_of_short_histories_ranks_as_it_was_trained(keys):
    done = run("LightGCN", "tiny", config_dict=keys(max_user_interactions=2))
    table = recommend(done["checkpoint"], ["u3"], topk=100)
    scores = truth(done["checkpoint"])["u3"]
    check(table, {name: scores[name] for name in table["item"]}, 100)
    rows = pd.read_csv("data/tiny/tiny.inter", sep="\t").set_axis(["user", "item", "time"], axis=1)
    before = rows.sort_values("time").head(len(rows) // 2)  # surely in training
    had = before["item"][before["user"] == "u3"]
    assert len(had) > 2
    assert not set(table["item"]) & set(had)


@pytest.mark.parametrize(("name", "said"), [("VBPR", "one list"), ("BPR", "most popular")])
def test_unknown_users_get_the_list_of_users_without_interactions(keys, caplog, name, said):
    done = run(name, "tiny", config_dict=keys(state="warning"))
    Path("users.txt").write_text("u2\nnobody\n\nlate\nsomeone\nu2\n")
    table = recommend(done["checkpoint"], "users.txt", topk=4)
    assert table["user"].unique().tolist() == ["u2", "nobody", "late", "someone"]
    status = dict(zip(table["user"], table["user_status"], strict=True))
    assert status["u2"] == "trained"
    assert status["nobody"] == status["someone"] == "unknown"
    assert status["late"] == "no training interaction"
    lists = {user: rows["item"].tolist() for user, rows in table.groupby("user")}
    assert lists["nobody"] == lists["someone"] == lists["late"] != lists["u2"]
    assert "users.txt: 2 of 4 users are not in the model's data, the first is 'nobody'" in (
        caplog.text
    )
    assert f"3 of 4 users have no training interaction; {name} gives them" in caplog.text
    assert said in caplog.text
    if name == "BPR":
        train = load(done["checkpoint"]).loaders[0]._dataset
        counts = np.bincount(train.inter_feat["item_id"].numpy())
        top = table[table["user"] == "late"]["score"].tolist()
        assert top == sorted(counts.tolist(), reverse=True)[:4]


@pytest.mark.parametrize(
    ("flags", "allowed"),
    [
        ({"items": "i.txt"}, {"i1", "i4", "i9", "i20", "i30"}),
        ({"where": "color=blue"}, {f"i{k}" for k in range(0, 39, 3)}),
        ({"where": "color!=red & price<20"}, {f"i{k}" for k in range(0, 20, 3)}),
        ({"where": "price>=30&price<=32"}, {"i30", "i31", "i32"}),
        ({"items": "i.txt", "where": "color=blue"}, {"i9", "i30"}),
    ],
)
@pytest.mark.parametrize("name", ["VBPR", "HAFR"])
def test_lists_choose_among_the_items_that_are_allowed(keys, name, flags, allowed):
    Path("i.txt").write_text("i1\ni4\ni9\ni20\ni30\n")
    done = run(name, "tiny", config_dict=keys())
    table = recommend(done["checkpoint"], ["u5"], topk=50, **flags)
    scores = truth(done["checkpoint"])["u5"]
    check(table, {item: score for item, score in scores.items() if item in allowed}, 50)


def test_a_token_of_a_sequence_selects_an_item(keys):
    done = run("MF", "tiny", config_dict=keys())
    table = recommend(done["checkpoint"], ["u5"], 50, where="annotations=t3", with_seen=True)
    lines = [line.split("\t") for line in Path("data/tiny/tiny.item").read_text().splitlines()]
    wanted = {line[0] for line in lines[1:] if "t3" in line[2].split()}
    known = set(load(done["checkpoint"]).loaders[0]._dataset.field2id_token["item_id"])
    assert set(table["item"]) == wanted & known


@pytest.mark.parametrize("vocabulary", ["interacted", "all"])
def test_every_reader_of_a_file_in_another_encoding_reads_it_as_such(keys, vocabulary):
    path = Path("data/tiny/tiny.item")
    text = path.read_text().replace("color:", "title:").replace("blue", "bl\u00e5 ''XL''")
    path.write_bytes(text.encode("latin-1"))
    more = {"encoding": "latin-1", "item_vocabulary": vocabulary}
    done = run("MF_Semantics", "tiny", config_dict=keys(**more))
    table = recommend(done["checkpoint"], ["u5"], 50, where="title=bl\u00e5 ''XL''", with_seen=True)
    assert set(table["item"]) <= {f"i{k}" for k in range(0, 39, 3)}
    trained = load_trained(Path(done["checkpoint"]))
    number = trained.numbers_of("item", ["i3"])[0]
    assert Catalogue(trained).describe(number)["title"] == 'bl\u00e5 "XL"'


# -- files -------------------------------------------------------------------------------------


def test_the_three_formats_hold_the_same_lists(keys):
    done = run("VBPR", "tiny", config_dict=keys())
    table = recommend(done["checkpoint"], topk=3)
    for name in ("r.csv", "r.jsonl", "r.parquet"):
        assert recommend(done["checkpoint"], topk=3, out=name) == Path(name)
    read = {
        "csv": pd.read_csv("r.csv"),
        "parquet": duckdb.sql("SELECT * FROM 'r.parquet'").df(),
        "jsonl": pd.DataFrame(map(json.loads, Path("r.jsonl").open())).explode(
            ["rank", "item", "score"], ignore_index=True
        ),
    }
    for part in read.values():
        assert list(part.columns) == list(table.columns)
        for name in ("user", "user_status", "rank", "item"):
            assert part[name].tolist() == table[name].tolist()
        assert np.array_equal(part["score"].to_numpy(np.float32), table["score"])
    assert not list(Path().glob(".recbole_cierec-*"))


@pytest.mark.parametrize("case", ["no user", "nothing left"])
def test_a_table_without_a_row_has_its_columns(keys, case):
    done = run("MF", "tiny", config_dict=keys())
    whole = recommend(done["checkpoint"], ["u3"], topk=3)
    recommend(done["checkpoint"], ["u3"], topk=3, out="whole.parquet")
    arguments = {"users": []}
    if case == "nothing left":  # the user has the one item to choose from
        seen = set(truth(done["checkpoint"], seen_too=True)["u3"]) - set(
            truth(done["checkpoint"])["u3"]
        )
        Path("i.txt").write_text(min(seen))
        arguments = {"users": ["u3"], "items": "i.txt"}
    table = recommend(done["checkpoint"], **arguments)
    pd.testing.assert_frame_equal(table, whole[:0], check_dtype=False)
    for name in ("r.csv", "r.jsonl", "r.parquet"):
        assert recommend(done["checkpoint"], out=name, **arguments) == Path(name)
    assert Path("r.csv").read_text() == "user,user_status,rank,item,score\n"
    assert Path("r.jsonl").read_text() == ""
    found, kinds = (duckdb.read_parquet(f"{name}.parquet") for name in ("r", "whole"))
    assert found.fetchall() == []
    assert (found.columns, found.types) == (kinds.columns, kinds.types)


def test_users_without_anything_left_come_before_others(keys, monkeypatch):
    """The first block of a file may have no row."""
    done = run("MF", "tiny", config_dict=keys())
    left, without = (truth(done["checkpoint"], seen_too=x)["u3"] for x in (False, True))
    Path("i.txt").write_text(min(set(without) - set(left)))
    monkeypatch.setattr(ranking, "MOST_USERS", 1)
    recommend(done["checkpoint"], ["u3", "late"], items="i.txt", out="r.parquet")
    rows = duckdb.sql("SELECT user, item FROM 'r.parquet'").fetchall()
    assert rows == [("late", Path("i.txt").read_text())]


def test_small_blocks_and_large_ones_give_the_same_lists(keys, monkeypatch):
    done = run("VBPR", "tiny", config_dict=keys())
    whole = recommend(done["checkpoint"], topk=5)
    seen = []
    plain = ranking._block
    monkeypatch.setattr(ranking, "BLOCK_BYTES", 4 * 42 * 3)
    monkeypatch.setattr(ranking, "_block", lambda *a: seen.append(len(a[1])) or plain(*a))
    pd.testing.assert_frame_equal(recommend(done["checkpoint"], topk=5), whole, rtol=1e-5)
    assert max(seen) == 3


def test_a_run_that_fails_leaves_the_old_file(keys, monkeypatch):
    done = run("MF", "tiny", config_dict=keys())
    for name in ("r.csv", "r.parquet"):
        Path(name).write_text("old")
    monkeypatch.setattr(ranking, "MOST_USERS", 4)
    plain, calls = ranking._block, []

    def fail(*arguments):
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError
        return plain(*arguments)

    monkeypatch.setattr(ranking, "_block", fail)
    for name in ("r.csv", "r.parquet"):
        calls.clear()
        with pytest.raises(MemoryError):
            recommend(done["checkpoint"], out=name)
        assert Path(name).read_text() == "old"
    assert not list(Path().glob(".recbole_cierec-*"))


def test_ties_go_to_the_first_item():
    scores = torch.tensor([[1.0, 3.0, 3.0, 3.0, 3.0, 0.0], [0.0, 0.0, 0.0, 0.0, 0.0, 0.0]])
    values, columns = top_items(scores, 3)
    assert columns.tolist() == [[1, 2, 3], [0, 1, 2]]
    assert values.tolist() == [[3.0, 3.0, 3.0], [0.0, 0.0, 0.0]]
    random = torch.from_numpy(np.random.default_rng(0).integers(0, 9, (50, 40))).float()
    expected = np.argsort(-random.numpy(), axis=1, kind="stable")[:, :12]
    assert np.array_equal(top_items(random, 12)[1].numpy(), expected)


@pytest.mark.slow
def test_processes_and_torchrun_write_the_same_file(keys, quick_processes):
    done = run("VBPR", "tiny", config_dict=keys())
    recommend(done["checkpoint"], topk=5, out="one.csv")
    recommend(done["checkpoint"], topk=5, out="two.csv", nproc=3)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone"]
    command += ["-m", "recbole_cierec", "recommend", done["checkpoint"], "--topk=5"]
    env = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run([*command, "--out=three.csv"], env=env, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    one = Path("one.csv").read_bytes()
    assert Path("two.csv").read_bytes() == Path("three.csv").read_bytes() == one
    assert world() == (0, 1)


# -- refusals ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"users": "none.txt"}, DataError, r"none\.txt: cannot be read"),
        ({"users": "empty.txt"}, DataError, r"empty\.txt: holds no id"),
        ({"out": "x.xlsx"}, ConfigError, r"x\.xlsx: end its name in \.csv, \.jsonl, \.parquet"),
        ({"out": "folder.csv"}, OutputError, "it is a folder"),
        ({"items": "bad.txt"}, DataError, "1 of 2 items are not in the model's data.*'i777'"),
        (
            {"where": "colour=red"},
            DataError,
            "no column colour; did you mean 'color'.*; it has: item_id, .*, price, color$",
        ),
        ({"where": "price<cheap"}, ConfigError, "price holds numbers, and 'cheap' is none"),
        ({"where": "color<red"}, ConfigError, "has no order; use = or !="),
        ({"where": "red"}, ConfigError, "'red' is no condition; write COLUMN=VALUE"),
        ({"where": "price>1000"}, ConfigError, "it holds for none of the model's items"),
        ({"topk": 0}, ConfigError, "topk must be 1 or more"),
    ],
)
def test_wrong_requests_are_one_line(keys, arguments, error, said):
    Path("empty.txt").write_text("\n")
    Path("bad.txt").write_text("i1\ni777\n")
    Path("folder.csv").mkdir()
    done = run("MF", "tiny", config_dict=keys())
    with pytest.raises(error, match=said) as caught:
        recommend(done["checkpoint"], **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--feature_norm=none", "'feature_norm' is 'standard' in"),
        ("--learning_rate=3", "'learning_rate' is 0."),
        ("--user_inter_num_interval=[2,inf)", "'user_inter_num_interval' is '[0,inf)' in"),
        ("--dataset=other", "'dataset' is 'tiny' in"),
        ("--model=MF", "'model' is 'VBPR' in"),
        ("--seed=7", "'seed' is 2020 in"),
        ("--backbone=MF", "'backbone' is null in"),
        ("--resume=other.pth", "'resume' is "),
    ],
)
def test_what_decided_training_is_refused_by_every_command(keys, capsys, given, said):
    checkpoint = run("VBPR", "tiny", config_dict=keys(feature_norm="standard"))["checkpoint"]
    shutil.copy(checkpoint, "other.pth")
    outs = {"recommend": "r.csv", "export": "out", "report": "r.html"}
    for command, flag in {
        **{k: f"--out={v}" for k, v in outs.items()},
        "serve": "--port=0",
    }.items():
        assert main([command, checkpoint, flag, given]) == 2
        error = capsys.readouterr().err
        assert f"command line: {said}" in error
        assert "cannot be changed after training; what may differ: cache_dir, " in error
        assert error.count("\n") == 1
    assert not any(Path(out).exists() for out in outs.values())


def test_keys_of_place_and_speed_and_those_of_the_run_are_taken(keys):
    given = keys(feature_norm="standard")
    checkpoint = run("VBPR", "tiny", config_dict=given)["checkpoint"]
    wanted = recommend(checkpoint)
    shutil.move("data", "moved")
    place = {"data_path": "moved", "cache_dir": "other", "eval_batch_size": 9, "use_gpu": False}
    place["features_file"] = given["features_file"]
    here = {"model": "VBPR", "dataset": "tiny", "feature_norm": "standard", **place}
    pd.testing.assert_frame_equal(recommend(checkpoint, config_dict=here), wanted)


@pytest.mark.parametrize("flag", ["users", "items", "new_items"])
def test_no_file_that_the_command_reads_is_replaced(keys, capsys, flag):
    done = run("VBPR", "tiny", config_dict=keys())
    Path("read.csv").write_text("u1\n")
    assert main(["recommend", done["checkpoint"], f"--{flag}=read.csv", "--out=read.csv"]) == 2
    said = "read.csv: cannot be written (this command reads it); choose another file"
    assert said in capsys.readouterr().err
    assert Path("read.csv").read_text() == "u1\n"


def test_a_model_that_needs_more_than_a_user_is_refused(keys):
    done = run("SASRec", "tiny", config_dict=keys(hidden_size=8, inner_size=8))
    with pytest.raises(ConfigError, match=r"SASRec is a sequential model.*full_sort_topk"):
        recommend(done["checkpoint"])


def test_the_command_line_writes_a_file(keys, capsys):
    done = run("VBPR", "tiny", config_dict=keys())
    assert main(["recommend", done["checkpoint"], "--topk=2", "--out=r.csv"]) == 0
    assert len(pd.read_csv("r.csv")) == 2 * 31
    assert "written: r.csv" in capsys.readouterr().out
    for argv, said in [
        (["--out=r.csv"], "name the checkpoint first"),
        ([done["checkpoint"]], "--out=FILE is missing"),
        (
            ["saved", "--out=r.csv"],
            f"a folder; give a checkpoint, the newest is {Path(done['checkpoint'])}",
        ),
        (["A.pth", "B.pth", "--out=r.csv"], "this takes one checkpoint, not 2"),
        ([done["checkpoint"], "--out=r.csv", "--topk=many"], "--topk must be a whole number"),
        ([done["checkpoint"], "--topk=-3"], "--topk must be 1 or more, not -3"),
        ([done["checkpoint"], "--topk=0"], "--topk must be 1 or more, not 0"),
        ([done["checkpoint"], "--neighbours=-1"], "--neighbours must be 0 or more, not -1"),
        ([done["checkpoint"], "--outt=r.csv"], "unknown flag --outt; did you mean 'out'?"),
        ([done["checkpoint"], "--data_pth=x"], "unknown flag --data_pth; did you mean 'data_path'"),
        (
            [done["checkpoint"], "--out=r.csv", "--toppk=3"],
            "unknown flag --toppk; did you mean 'topk'?",
        ),
    ]:
        assert main(["recommend", *argv]) == 2
        assert said in capsys.readouterr().err


def test_the_functions_of_the_package_are_found_by_completion():
    import recbole_cierec

    assert {"run", "load", "recommend", "tune"} <= set(dir(recbole_cierec))
    for name in recbole_cierec.__all__:
        assert getattr(recbole_cierec, name) is not None
    assert recbole_cierec.recommend is recommend
