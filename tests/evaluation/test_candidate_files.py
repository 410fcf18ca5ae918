"""Candidate lists on disk: ours read back, another program's used, unfit ones refused."""

from __future__ import annotations

import os

import numpy as np
import pytest

from recbole_cierec.config.config import Config
from recbole_cierec.data import dataset
from recbole_cierec.errors import DataError, UserError
from recbole_cierec.quick_start import prepare

N = 6
MODE = {"valid": "full", "test": f"user{N}"}


@pytest.fixture
def job(tiny, tmp_path):
    """``job(mode, **keys)`` -> a prepared run of VBPR with ``lists.npz`` as its file."""

    def build(mode=MODE, **keys):
        keys = {"candidates_file": str(tmp_path / "lists.npz"), **keys}
        return prepare(Config("VBPR", "tiny", None, tiny(eval_args={"mode": mode}, **keys), {}))

    return build


def by_user(loader, view="", repeat=0):
    """External user to the user's list of external items, as in the plan."""
    plan, names = loader.plan, loader._dataset.field2id_token
    lists = plan.negatives[view, repeat].select()
    return {
        str(names["user_id"][user]): names["item_id"][
            lists.values[lists.starts[k] : lists.starts[k + 1]]
        ].tolist()
        for k, user in enumerate(plan.users)
    }


def evaluated(job):
    job.trainer.fit(*job.loaders[:2], saved=False)
    return job.trainer.evaluate(job.loaders[2], load_best_model=False)


def used(job):
    """External user to all external items that the user interacted with."""
    found = {}
    for loader in job.loaders:
        names, feat = loader._dataset.field2id_token, loader._dataset.inter_feat
        for user, item in zip(feat["user_id"].tolist(), feat["item_id"].tolist(), strict=True):
            found.setdefault(str(names["user_id"][user]), set()).add(str(names["item_id"][item]))
    return found


def test_lists_read_back_are_the_lists_written(job, tmp_path):
    drawn = job(eval_repeats=2, cold_item_views=True)
    read = job(eval_repeats=2, cold_item_views=True, candidate_seed=99)  # the file's lists count
    for key in drawn.loaders[2].plan.negatives:
        assert by_user(drawn.loaders[2], *key) == by_user(read.loaders[2], *key)
    fresh = job(eval_repeats=2, candidate_seed=99, candidates_file=None)
    assert by_user(fresh.loaders[2]) != by_user(read.loaders[2])


def test_results_from_the_file_are_those_of_the_draw(job):
    assert evaluated(job()) == evaluated(job())


def test_the_file_says_what_it_holds_in_external_ids(job, tmp_path):
    made = job(eval_repeats=2)
    with np.load(tmp_path / "lists.npz", allow_pickle=False) as file:
        items, users = file["items"], file["test/users"]
        assert {"test/0", "test/1", "test/about"} <= set(file)
        table = file["test/1"]
    rows = {str(u): items[row[row >= 0]].tolist() for u, row in zip(users, table, strict=True)}
    assert rows == by_user(made.loaders[2], repeat=1)


def test_both_phases_share_a_file(job, tmp_path):
    both = {"valid": f"user{N}", "test": f"user{N}"}
    job({"valid": "full", "test": f"user{N}"})
    drawn = job(both)  # validation is added to the existing test lists
    read = job(both, candidate_seed=99)
    for k in (1, 2):
        assert by_user(drawn.loaders[k]) == by_user(read.loaders[k])


def hand_made(job, tmp_path, change=lambda lists: None):
    """Lists made without this package: the first unused items by name, users backwards."""
    own, names = used(job), sorted({item for items in used(job).values() for item in items})
    lists = {u: [names.index(i) for i in names if i not in own[u]][:N] for u in sorted(own)}
    change(lists)
    users = sorted(lists)[::-1]
    table = np.full((len(users), max(map(len, lists.values()))), -1)
    for row, user in zip(table, users, strict=True):
        row[: len(lists[user])] = lists[user]
    arrays = {"items": np.array(names), "test/users": np.array(users), "test/0": table}
    np.savez(tmp_path / "lists.npz", **arrays)
    names.append("beyond")
    return {user: [names[k] for k in row] for user, row in lists.items()}, arrays


def test_lists_of_another_program_are_used(job, tmp_path):
    expected, _ = hand_made(job("full", candidates_file=None), tmp_path)
    made = job()
    assert by_user(made.loaders[2]) == expected
    plan, names = made.loaders[2].plan, made.loaders[2]._dataset.field2id_token
    ((_, _, lists),) = plan.lists()
    for k, user in enumerate(plan.users):
        row = lists.items.values[lists.items.starts[k] : lists.items.starts[k + 1]]
        name = str(names["user_id"][user])
        asked = used_in_test(made)[name]
        assert sorted(names["item_id"][row].tolist()) == sorted([*expected[name], *asked])


def used_in_test(job):
    names, feat = job.loaders[2]._dataset.field2id_token, job.loaders[2]._dataset.inter_feat
    found = {}
    for user, item in zip(feat["user_id"].tolist(), feat["item_id"].tolist(), strict=True):
        found.setdefault(str(names["user_id"][user]), []).append(str(names["item_id"][item]))
    return found


def test_some_lists_of_another_program_may_be_shorter(job, tmp_path):
    def shorten(lists):
        lists["u3"] = lists["u3"][:2]

    expected, _ = hand_made(job("full", candidates_file=None), tmp_path, shorten)
    assert by_user(job().loaders[2]) == expected
    assert len(expected["u3"]) == 2


def replace_with_used(lists):
    lists["u0"] = list(range(40))  # all items, including the user's own


REFUSED = [
    (lambda lists: lists.pop("u7"), "has no candidates for 1 of 30 users of the test part"),
    (replace_with_used, "holds items that their user has interacted with"),
    (lambda lists: lists["u1"].__setitem__(0, lists["u1"][1]), "holds an item twice"),
    (lambda lists: lists["u1"].__setitem__(0, 40), "has an index beyond its"),
    (lambda lists: [row.pop() for row in lists.values()], f"not the {N} of the mode user{N}"),
]


@pytest.mark.parametrize(("change", "message"), REFUSED)
def test_unfit_lists_are_refused_in_one_line(job, tmp_path, change, message):
    hand_made(job("full", candidates_file=None), tmp_path, change)
    with pytest.raises(DataError, match=message) as caught:
        job()
    assert str(tmp_path / "lists.npz") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_unknown_items_are_refused(job, tmp_path):
    _, arrays = hand_made(job("full", candidates_file=None), tmp_path)
    arrays["items"][int(arrays["test/0"][0, 0])] = "x1"
    np.savez(tmp_path / "lists.npz", **arrays)
    with pytest.raises(DataError, match="names items that the data set lacks"):
        job()


@pytest.mark.parametrize("table", [np.zeros((3, N), int), np.zeros(30, int), np.zeros((30, N))])
def test_tables_of_another_shape_or_kind_are_refused(job, tmp_path, table):
    _, arrays = hand_made(job("full", candidates_file=None), tmp_path)
    np.savez(tmp_path / "lists.npz", **{**arrays, "test/0": table})
    with pytest.raises(DataError, match="test/0 must be whole numbers with a row for each"):
        job()


def test_lists_of_another_number_are_refused(job):
    job()
    with pytest.raises(DataError, match=f"has up to {N} items a user, not the 5 of the mode user5"):
        job({"valid": "full", "test": "user5"})


def test_more_repeats_than_the_file_has_are_refused(job):
    job(eval_repeats=2)
    with pytest.raises(DataError, match="has no test/2; lower eval_repeats"):
        job(eval_repeats=3)


def test_small_catalogues_give_all_that_is_left_and_are_read_back(job):
    mode = {"valid": "full", "test": "user500"}
    drawn, read = job(mode), job(mode, candidate_seed=99)
    own = used(drawn)
    for user, items in by_user(read.loaders[2]).items():
        assert len(items) == 40 - len(own[user])
    assert by_user(drawn.loaders[2]) == by_user(read.loaders[2])


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_npz_is_refused(job, tmp_path, content):
    (tmp_path / "lists.npz").write_bytes(content)
    with pytest.raises(DataError, match=r"lists\.npz: not a file of candidates"):
        job()


@pytest.mark.parametrize("content", [{"x": np.zeros(3)}, {"test/users": np.array(["u0"])}])
def test_an_archive_of_another_program_is_neither_used_nor_changed(job, tmp_path, content):
    np.savez(tmp_path / "lists.npz", **content)
    before = (tmp_path / "lists.npz").read_bytes()
    with pytest.raises(DataError, match=r"lists\.npz: not a file of candidates"):
        job()
    assert (tmp_path / "lists.npz").read_bytes() == before


def into_a_file(tmp_path):
    (tmp_path / "file").touch()
    return tmp_path / "file" / "lists.npz"


def a_pipe(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


UNFIT = {  # a path, and a part of the message
    "pipe": (a_pipe, "pipe"),
    "folder": (lambda tmp_path: tmp_path, "folder"),
    "below a file": (into_a_file, "cannot be written"),
    "impossible name": (lambda tmp_path: tmp_path / ("x" * 300), "longer than 255"),
}


@pytest.mark.parametrize("place", UNFIT)
def test_an_unfit_place_is_refused_before_the_data_are_read(job, tmp_path, monkeypatch, place):
    where, words = UNFIT[place]
    path = where(tmp_path)
    before = sorted(tmp_path.iterdir())

    def read(config):
        raise AssertionError("the data were read")

    monkeypatch.setattr(dataset, "create_dataset", read)
    with pytest.raises(UserError, match=words) as caught:
        job(candidates_file=str(path))
    message = str(caught.value)
    assert str(path) in message or "candidates_file" in message
    assert "\n" not in str(caught.value)
    assert sorted(set(tmp_path.iterdir()) - {tmp_path / "saved"}) == before


def test_a_whole_file_need_not_be_writable(job, tmp_path, monkeypatch):
    expected = by_user(job().loaders[2])

    def refuse(*_, **__):
        raise AssertionError("it is not to be written")

    monkeypatch.setattr("recbole_cierec.evaluation.candidate_files.check_output", refuse)
    monkeypatch.setattr("recbole_cierec.evaluation.candidate_files.replacing", refuse)
    assert by_user(job().loaders[2]) == expected


@pytest.mark.parametrize("kind", ["u1", "u8", ">i4", "i8"])
def test_numbers_of_any_width_are_read(job, tmp_path, kind):
    expected, arrays = hand_made(job("full", candidates_file=None), tmp_path)
    arrays["test/0"] = arrays["test/0"].astype(kind)
    np.savez(tmp_path / "lists.npz", **arrays)
    assert by_user(job().loaders[2]) == expected


@pytest.mark.parametrize("name", ["items", "test/users"])
def test_ids_that_are_no_list_are_refused(job, tmp_path, name):
    _, arrays = hand_made(job("full", candidates_file=None), tmp_path)
    np.savez(tmp_path / "lists.npz", **{**arrays, name: arrays[name][:, None]})
    with pytest.raises(DataError, match=f"'{name}' is not a list of ids"):
        job()


def test_damage_never_changes_the_lists_silently(job, tmp_path):
    expected = by_user(job().loaders[2])
    whole, file = (tmp_path / "lists.npz").read_bytes(), tmp_path / "lists.npz"
    for place in np.random.default_rng(0).integers(len(whole), size=12):
        content = bytearray(whole)
        content[place] ^= 8
        file.write_bytes(content)
        try:
            found = by_user(job().loaders[2])
        except DataError:
            found = expected
        assert found == expected
        assert file.read_bytes() == bytes(content)
