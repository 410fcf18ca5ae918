"""The embedded demo data: complete, deterministic, and with the planted ranking."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from recbole_cierec.data import demo
from recbole_cierec.data.demo import ensure_demo, planted_truth
from recbole_cierec.errors import DataError

SEED = 2307


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """The demo data of the default seed; read only."""
    return ensure_demo(tmp_path_factory.mktemp("data"))


def digest(folder: Path) -> str:
    """SHA-256 over the names and bytes of all files."""
    total = hashlib.sha256()
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def read(path: Path) -> tuple[list[str], list[list[str]]]:
    """Header and cells of an atomic file."""
    header, *lines = path.read_text(encoding="utf-8").split("\n")
    assert lines.pop() == "", "the last line must end"
    return header.split("\t"), [line.split("\t") for line in lines]


def interactions(folder: Path) -> np.ndarray:
    """int64 [n, 3]: user, item, minute, as in the file."""
    _, rows = read(folder / "demo.inter")
    return np.array([[int(u[1:]), int(i[1:]), int(t)] for u, i, t in rows])


def item_table(folder: Path) -> dict[int, tuple[str, list[str]]]:
    """Picture path and annotations by item number."""
    return {int(i[1:]): (path, words.split()) for i, path, words in read(folder / "demo.item")[1]}


def split_sizes(count: int) -> tuple[int, int, int]:
    """RecBole's 60/10/30: parts rounded down, an empty one gets one from training."""
    valid, test = int(0.1 * count), int(0.3 * count)
    train = count - valid - test
    if train > 1 and test == 0:
        train, test = train - 1, 1
    if train > 1 and valid == 0:
        train, valid = train - 1, 1
    return train, valid, test


def split(folder: Path) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Training, validation and test items of each user, by time within the user."""
    table = interactions(folder)
    table = table[np.lexsort((table[:, 2], table[:, 0]))]
    users = np.split(table[:, 1], np.flatnonzero(np.diff(table[:, 0])) + 1)
    return [tuple(np.split(u, np.cumsum(split_sizes(len(u)))[:2])) for u in users]


def recall(scores: np.ndarray, parts: list, k: int = 10) -> np.ndarray:
    """Recall@k of each user in the full ranking without the items seen before."""
    values = []
    for row, (train, valid, test) in zip(scores, parts, strict=True):
        row = row.astype(np.float64)
        row[np.r_[train, valid]] = -np.inf
        values.append(np.isin(test, np.argsort(-row, kind="stable")[:k]).mean())
    return np.array(values)


def test_files_have_the_declared_columns(folder):
    header, rows = read(folder / "demo.inter")
    assert header == ["user_id:token", "item_id:token", "timestamp:float"]
    assert {len(row) for row in rows} == {3}
    header, rows = read(folder / "demo.item")
    assert header == ["item_id:token", "image_path:token", "annotations:token_seq"]
    assert {len(row) for row in rows} == {3}
    assert len({row[0] for row in rows}) == len(rows), "an item has one line"


def test_size_fits_a_run_of_two_minutes(folder):
    table = interactions(folder)
    assert 9_000 < len(table) < 15_000
    assert len({(u, i) for u, i, _ in table.tolist()}) == len(table), "nothing is taken twice"
    assert len(np.unique(table[:, 0])) == demo.N_USERS == 900
    assert len(list((folder / "images").iterdir())) < demo.N_ITEMS == 1000


def test_times_survive_float32_in_order(folder):
    table = interactions(folder)
    assert np.array_equal(table[:, 2].astype(np.float32).astype(np.int64), table[:, 2])
    assert len({(u, t) for u, _, t in table.tolist()}) == len(table), "a user's times differ"


def test_every_picture_named_exists_and_no_other(folder):
    named = {path for path, _ in item_table(folder).values() if path}
    present = {p.relative_to(folder).as_posix() for p in (folder / "images").iterdir()}
    assert named == present
    for path in sorted(named)[::50]:
        with Image.open(folder / path) as picture:
            picture.load()
            assert (picture.format, picture.size) == ("PNG", (demo.SIDE, demo.SIDE))
            assert not picture.info, "no metadata"


def test_states_have_the_stated_numbers(folder):
    items = item_table(folder)
    no_picture = {i for i, (path, _) in items.items() if not path}
    no_words = {i for i, (_, words) in items.items() if not words}
    assert len(no_picture & no_words) == demo.N_WITHOUT_BOTH == 4
    assert len(no_picture - no_words) == demo.N_WITHOUT_PICTURE == 40
    assert len(no_words - no_picture) == demo.N_WITHOUT_ANNOTATIONS == 40
    unlisted = set(interactions(folder)[:, 1].tolist()) - set(items)
    assert len(unlisted) == demo.N_UNLISTED == 3
    assert len(items) + len(unlisted) == demo.N_ITEMS


def test_annotations_are_the_planted_elements(folder):
    elements = planted_truth().elements
    for item, (_, words) in item_table(folder).items():
        if words:
            assert set(words) == {demo.ELEMENTS[k] for k in np.flatnonzero(elements[item])}
            assert 2 <= len(words) <= 3


def test_two_thirds_of_the_users_are_cold(folder):
    tests = np.array([len(test) for _, _, test in split(folder)])
    assert tests.min() >= 1
    assert 0.64 < (tests <= 3).mean() < 0.70
    assert tests.max() >= 12, "warm users have a long tail"


def test_popularity_has_a_long_tail(folder):
    counts = np.sort(np.bincount(interactions(folder)[:, 1], minlength=demo.N_ITEMS))[::-1]
    assert counts[: demo.N_ITEMS // 10].sum() > 0.3 * counts.sum()  # the top tenth
    assert counts[-demo.N_ITEMS // 4 :].max() <= 5  # the last quarter


def test_late_items_are_hardly_ever_trained_on(folder):
    late = np.flatnonzero(planted_truth().late)
    assert 0.08 <= len(late) / demo.N_ITEMS <= 0.10
    train, valid, test = (
        np.isin(np.concatenate(part), late).mean() for part in zip(*split(folder), strict=True)
    )
    assert train < 0.002
    assert valid < 0.07
    assert 0.08 < test < 0.2


def test_same_seed_same_bytes_other_seed_other_bytes(folder, tmp_path):
    assert digest(ensure_demo(tmp_path / "same")) == digest(folder)
    other = ensure_demo(tmp_path / "other", seed=1)
    for name in ("demo.inter", "demo.item", "images/i0000.png"):
        assert (other / name).read_bytes() != (folder / name).read_bytes()


def test_bytes_are_those_of_every_other_machine(folder):
    # Fails on purpose with every change of the data: increase demo.FORMAT then.
    assert demo.FORMAT == 1
    assert digest(folder) == "0acfd5072f7264835fb51abcb236c20c83c8023da842c4bc90fafa667366d487"


def test_planted_scores_are_a_function_of_the_seed():
    scores = planted_truth().scores
    assert scores.shape == (demo.N_USERS, demo.N_ITEMS)
    assert np.array_equal(scores, planted_truth(SEED).scores)
    assert not np.array_equal(scores, planted_truth(1).scores)


def test_planted_score_is_taste_plus_circle_plus_appeal():
    truth = planted_truth()
    scores = truth.scores
    for user, item in ((0, 0), (17, 404), (899, 999)):
        liked = sum(truth.tastes[user, k] for k in np.flatnonzero(truth.elements[item]))
        circle = demo.CIRCLE_WEIGHT * (truth.user_circle[user] == truth.item_circle[item])
        assert scores[user, item] == liked + circle + truth.appeal[item]


@pytest.mark.parametrize("seed", [SEED, 1])
def test_planted_ranking_beats_its_parts_and_popularity(seed, tmp_path):
    parts = split(ensure_demo(tmp_path, seed))
    truth = planted_truth(seed)
    trained = np.bincount(np.concatenate([p[0] for p in parts]), minlength=demo.N_ITEMS)
    cold = np.array([len(p[2]) <= 3 for p in parts])
    popularity = recall(np.tile(trained, (demo.N_USERS, 1)), parts)
    oracle = recall(truth.scores, parts)
    content = recall(truth.tastes @ truth.elements.T, parts)
    for group in (cold, ~cold):
        assert oracle[group].mean() > 4 * popularity[group].mean()
        assert oracle[group].mean() > 1.5 * content[group].mean()
        assert content[group].mean() > 1.5 * popularity[group].mean()


def layer_statistics(picture: np.ndarray) -> np.ndarray:
    """Colour by local texture, summed over the picture [H, W, 3] -> [features].

    A pixel counts for its coarse colour and for whether its neighbours eight pixels to the
    right, eight down and four down have the same, which distinguishes discs, stripes and checks.
    """
    coarse = (picture.astype(np.int64) + 40) // 75  # 0..3 for each channel
    code = coarse @ np.array([16, 4, 1])
    here = code[:-8, :-8]
    right, down, near = (
        here == code[:-8, 8:],
        here == code[8:, :-8],
        here == code[4:-4, :-8],
    )
    kind = here * 8 + right * 4 + down * 2 + near
    return np.bincount(kind.ravel(), minlength=64 * 8) / here.size


def test_a_linear_probe_reads_the_elements_from_the_pixels(folder):
    items = {i: path for i, (path, _) in item_table(folder).items() if path}
    rows = []
    for path in items.values():
        with Image.open(folder / path) as picture:
            rows.append(layer_statistics(np.asarray(picture.convert("RGB"))))
    features, truth = np.sqrt(np.array(rows)), planted_truth().elements[list(items)]
    cut = 2 * len(features) // 3
    features = features - features[:cut].mean(0)
    ridge = features[:cut].T @ features[:cut] + 0.1 * np.eye(features.shape[1])
    weights = np.linalg.solve(ridge, features[:cut].T @ (truth[:cut] - truth[:cut].mean(0)))
    guess = features[cut:] @ weights
    for k, name in enumerate(demo.ELEMENTS):
        yes, no = guess[truth[cut:, k], k], guess[~truth[cut:, k], k]
        auc = (yes[:, None] > no[None, :]).mean()
        assert auc > 0.95, name


def test_complete_folder_is_left_alone(folder, tmp_path, monkeypatch):
    first = ensure_demo(tmp_path)
    before = {p: p.stat().st_mtime_ns for p in first.rglob("*")}
    monkeypatch.setattr(demo, "_build", lambda *_: pytest.fail("built again"))
    assert ensure_demo(tmp_path) == first == tmp_path / "demo"
    assert {p: p.stat().st_mtime_ns for p in first.rglob("*")} == before


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_interrupted_build_leaves_nothing(error, tmp_path, monkeypatch):
    written, png = [], demo._png

    def interrupted(*args):
        written.append(1)
        if len(written) > 100:
            raise error
        return png(*args)

    monkeypatch.setattr(demo, "_png", interrupted)
    with pytest.raises(error):
        ensure_demo(tmp_path / "data")
    assert list((tmp_path / "data").iterdir()) == []
    monkeypatch.undo()
    assert ensure_demo(tmp_path / "data").is_dir()


def _ensure(data_path: Path, barrier, results) -> None:
    barrier.wait(30)
    results.put(str(ensure_demo(data_path)))


def test_two_processes_at_once_leave_one_whole_folder(folder, tmp_path):
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    workers = [context.Process(target=_ensure, args=(tmp_path, barrier, results)) for _ in "ab"]
    for worker in workers:
        worker.start()
    assert [results.get(timeout=60) for _ in workers] == [str(tmp_path / "demo")] * 2
    for worker in workers:
        worker.join(30)
        assert worker.exitcode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    assert digest(tmp_path / "demo") == digest(folder)


def test_loser_of_a_race_takes_the_winners_data(tmp_path, monkeypatch):
    build, calls = demo._build, []

    def overtaken(building, seed):
        build(building, seed)
        if not calls:
            calls.append(building)
            ensure_demo(tmp_path, seed)  # another process, while this one was building

    monkeypatch.setattr(demo, "_build", overtaken)
    assert ensure_demo(tmp_path) == tmp_path / "demo"
    assert calls
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]


def test_empty_folder_is_filled(tmp_path):
    (tmp_path / "demo").mkdir()
    assert (ensure_demo(tmp_path) / "demo.inter").is_file()


def test_damaged_or_foreign_folder_is_refused_and_kept(tmp_path):
    home = ensure_demo(tmp_path)
    (home / "images" / "i0000.png").unlink()
    with pytest.raises(DataError, match=r"images: files are missing or changed in size; move"):
        ensure_demo(tmp_path)

    marker = home / "demo.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "format": 0}))
    with pytest.raises(DataError, match="of format 0 and seed 2307, not of format 1"):
        ensure_demo(tmp_path)

    marker.unlink()
    with pytest.raises(DataError, match="not the embedded demo data"):
        ensure_demo(tmp_path)
    assert (home / "demo.inter").is_file(), "what lies there is the user's"


def test_other_seed_over_existing_data_is_refused(tmp_path):
    ensure_demo(tmp_path)
    with pytest.raises(DataError, match="seed 2307, not of format 1 and seed 5"):
        ensure_demo(tmp_path, seed=5)


def test_place_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the demo data") as caught:
        ensure_demo(tmp_path / "file")
    assert "\n" not in str(caught.value)
