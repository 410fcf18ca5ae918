"""A run that is stopped and resumed equals an uninterrupted one, bit for bit (F3, F6, F8)."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from run_helpers import Killed, kill_before, last_of, same

from recbole_cierec import run
from recbole_cierec.config.config import Config
from recbole_cierec.distributed.random_state import rng_state, set_rng_state
from recbole_cierec.errors import CheckpointError
from recbole_cierec.evaluation.per_user import read_per_user
from recbole_cierec.files import atomic_write as whole_file
from recbole_cierec.files import checkpoint
from recbole_cierec.files.checkpoint import read_checkpoint, write_checkpoint
from recbole_cierec.quick_start import prepare
from recbole_cierec.registry import get_model_class
from recbole_cierec.report.source import find_checkpoint

RUNS = [
    ("CIERec", {}),
    ("CIERec", {"backbone": "VBPR", "gr_mode": "reinforce", "lr_decay_epochs": 1}),
    ("CIERec", {"gr_mode": "gradnorm", "gr_learning_rate": 0.05, "lr_decay_epochs": 1}),
    ("CIERec", {"gr_mode": "bandit", "warmup_steps": 50}),
    ("CIERec_CI_TA_GR", {}),
    ("VBPR", {"encoder_training": "adapter"}),
    ("MF", {"learner": "adam", "clip_grad_norm": {"max_norm": 0.5}}),
    ("MF_Semantics", {}),
    ("FREEDOM", {"edge_dropout": 0.5}),
    ("BPR", {}),
    ("LightGCN", {"embedding_size": 8}),
    ("NeuMF", {"embedding_size": 8}),
    ("Pop", {}),
    ("MultiVAE", {"mlp_hidden_size": [8], "latent_dimension": 4}),
    ("RecVAE", {"latent_dimension": 4, "hidden_dimension": 8}),
    ("DiffRec", {"dims_dnn": [8], "embedding_size": 4, "steps": 4}),
]
runs = pytest.mark.parametrize(
    ("name", "keys"), RUNS, ids=["-".join([n, *map(str, k.values())]) for n, k in RUNS]
)


def whole_state(**parts) -> dict:
    """The minimal content of a checkpoint, and ``parts``."""
    least = {name: kind() for name, kind in checkpoint._PARTS.items()}
    return least | dict.fromkeys(checkpoint._MAY_BE_NONE) | parts


@runs
def test_two_epochs_resumed_for_two_more_equal_four(tiny, name, keys):
    if name in ("Pop",):
        keys = {**keys, "epochs": 1}
    whole = run(name, "tiny", config_dict=tiny(**{"epochs": 4, **keys}))
    half = run(name, "tiny", config_dict=tiny(**{"epochs": 2, **keys}))
    file = str(Path(half["checkpoint"]).with_suffix(".last.pth"))
    rest = run(name, "tiny", config_dict=tiny(**{"epochs": 4, **keys}, resume=file))
    a, b = last_of(whole), last_of(rest)
    a.pop("config"), b.pop("config")  # differ in the key resume
    same(a, b)
    for part in ("test_result", "best_valid_result"):
        np.testing.assert_equal(dict(rest[part]), dict(whole[part]))  # NaN equals NaN


def test_resuming_the_best_checkpoint_also_equals_the_whole_run(tiny):
    keys = {"learning_rate": 0.05}
    whole = run("CIERec", "tiny", config_dict=tiny(epochs=4, **keys))
    part = run("CIERec", "tiny", config_dict=tiny(epochs=1, **keys))
    rest = run("CIERec", "tiny", config_dict=tiny(epochs=4, resume=part["checkpoint"], **keys))
    same(last_of(whole)["state_dict"], last_of(rest)["state_dict"])


ENDED = {"keep_last_checkpoint": False}


@pytest.mark.parametrize("resume", ["best", "auto"])
def test_a_run_that_ended_well_leaves_one_checkpoint_from_which_a_longer_one_continues(
    tiny, resume
):
    """Also where the best epoch is before the last: those in between are trained again."""
    keys = {"learning_rate": 0.5, "stopping_step": 9, "seed": 1}
    whole = run("VBPR", "tiny", config_dict=tiny(**keys, epochs=6))
    part = run("VBPR", "tiny", config_dict=tiny(**keys, **ENDED, epochs=4, checkpoint_dir="ended"))
    assert [path.name for path in Path("ended").glob("*.pth")] == [Path(part["checkpoint"]).name]
    best = read_checkpoint(Path(part["checkpoint"]))
    assert best["epoch"] < 3
    assert best["ended"]["epochs"] == 4
    file = part["checkpoint"] if resume == "best" else "auto"
    longer = tiny(**keys, epochs=6, checkpoint_dir="ended")
    rest = run("VBPR", "tiny", config_dict={**longer, "resume": file})
    a, b = last_of(whole), last_of(rest)
    for part in ("config", "given", "provenance"):
        a.pop(part), b.pop(part)
    same(a, b)
    np.testing.assert_equal(dict(rest["test_result"]), dict(whole["test_result"]))


def test_a_run_that_ended_well_is_only_evaluated_again(tiny, monkeypatch):
    keys = tiny(**ENDED, learning_rate=0.5, epochs=4, seed=1)
    done = run("VBPR", "tiny", config_dict=keys)
    before = Path(done["checkpoint"]).read_bytes()
    assert read_checkpoint(Path(done["checkpoint"]))["epoch"] < 3
    monkeypatch.setattr(get_model_class("VBPR"), "calculate_loss", None)
    again = run("VBPR", "tiny", config_dict={**keys, "resume": "auto"})
    assert (again["epochs"], again["test_result"]) == (done["epochs"], done["test_result"])
    assert Path(done["checkpoint"]).read_bytes() == before


def test_a_run_that_was_stopped_keeps_its_last_epoch(tiny, monkeypatch):
    whole = run("MF", "tiny", config_dict=tiny(epochs=4))
    keys = tiny(**ENDED, epochs=4, checkpoint_dir="killed")
    with monkeypatch.context() as patch:
        kill_before(patch, "MF", 3)
        with pytest.raises(Killed):
            run("MF", "tiny", config_dict=keys)
    (left,) = Path("killed").glob("*.last.pth")
    assert read_checkpoint(left)["ended"] is None
    rest = run("MF", "tiny", config_dict={**keys, "resume": "auto"})
    assert not left.exists()
    np.testing.assert_equal(dict(rest["test_result"]), dict(whole["test_result"]))


def test_auto_takes_the_newest_of_this_model_and_data(tiny):
    run("MF", "tiny", config_dict=tiny(epochs=1))
    half = run("MF", "tiny", config_dict=tiny(epochs=2, learning_rate=0.01))
    run("VBPR", "tiny", config_dict=tiny(epochs=1))
    rest = run("MF", "tiny", config_dict=tiny(epochs=3, learning_rate=0.01, resume="auto"))
    assert rest["checkpoint"] == half["checkpoint"]
    assert last_of(rest)["epoch"] == 2


def test_auto_passes_over_a_file_that_another_run_removes_at_this_moment(tiny):
    """A link to nothing is listed in its folder and is no file, as one removed a moment ago."""
    keys = tiny(epochs=2, checkpoint_dir="shared")
    half = run("MF", "tiny", config_dict=keys)
    Path("shared/MF-Nov-29-2026_00-00-00-abcdef.last.pth").symlink_to("gone")
    rest = run("MF", "tiny", config_dict={**keys, "epochs": 3, "resume": "auto"})
    assert rest["checkpoint"] == half["checkpoint"]
    assert read_checkpoint(find_checkpoint(Path("shared")))["model"] == "MF"
    Path("shared/MF-z.users.npz").symlink_to("gone")
    assert read_per_user(Path("shared")).path == Path(half["checkpoint"]).with_suffix(".users.npz")


@pytest.mark.parametrize(
    "change",
    [{"seed": 7}, {"learning_rate": 0.07}, {"loss": "softmax"}, {"valid_metric": "NDCG@10"}],
)
def test_auto_takes_no_checkpoint_of_other_settings(tiny, change):
    """Else its numbers would be reported with the settings of this run."""
    same = run("MF", "tiny", config_dict=tiny(epochs=1))
    other = run("MF", "tiny", config_dict=tiny(epochs=1, **change))
    rest = run("MF", "tiny", config_dict=tiny(epochs=2, resume="auto"))
    assert rest["checkpoint"] == same["checkpoint"]
    for file in (Path(same["checkpoint"]), Path(same["checkpoint"]).with_suffix(".last.pth")):
        file.unlink()
    with pytest.raises(CheckpointError) as error:
        run("MF", "tiny", config_dict=tiny(epochs=2, resume="auto"))
    (key, value), message = next(iter(change.items())), str(error.value)
    assert f"{key} {value} (here" in message
    assert Path(other["checkpoint"]).stem in message
    assert "\n" not in message


def test_auto_goes_on_where_only_length_places_and_measures_differ(tiny):
    part = run("MF", "tiny", config_dict=tiny(epochs=1, eval_args={"mode": "full"}))
    more = {"epochs": 2, "stopping_step": 3, "metrics": ["MRR", "Recall"], "state": "warning"}
    keys = tiny(**more, eval_args={"mode": {"valid": "full", "test": "user5"}}, resume="auto")
    assert run("MF", "tiny", config_dict=keys)["checkpoint"] == part["checkpoint"]


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        ({}, {"eval_args": {"mode": "full"}}, "validation by user5 (here full)"),
        ({}, {"candidate_seed": 7}, "candidate_seed 2020 (here 7)"),
        (
            {"valid_metric": "Recall@10_item_common", "item_group_boundary": 2},
            {"valid_metric": "Recall@10_item_common", "item_group_boundary": 3},
            "item_group_boundary 2 (here 3)",
        ),
    ],
)
def test_scores_of_another_validation_do_not_choose_the_best_epoch(tiny, caplog, then, now, words):
    keys = {"eval_args": {"mode": "user5"}, "learning_rate": 0.3}
    part = run("MF", "tiny", config_dict=tiny(epochs=2, **{**keys, **then}))
    state = read_checkpoint(Path(part["checkpoint"]))
    now = tiny(epochs=4, state="warning", **{**keys, **now})
    with pytest.raises(CheckpointError) as error:
        run("MF", "tiny", config_dict={**now, "resume": "auto"})
    assert words in str(error.value)
    # A score that no epoch can reach.
    write_checkpoint(Path(part["checkpoint"]), {**state, "best_valid_score": 2.0})
    with caplog.at_level("WARNING"):
        rest = run("MF", "tiny", config_dict={**now, "resume": part["checkpoint"]})
    assert f"chosen with {words}; the best is chosen anew from epoch" in caplog.text
    assert rest["best_valid_score"] <= 1.0
    assert rest["best_epoch"] > state["epoch"] + 1


def test_auto_takes_no_run_that_started_from_another_checkpoint(tiny):
    first, other = (
        run(
            "PiNet",
            "tiny",
            config_dict=tiny(epochs=1, seed=k, checkpoint_dir=str(k), pretrain_epochs=1),
        )["checkpoint"]
        for k in (1, 2)
    )
    part = run("PiNet", "tiny", config_dict=tiny(epochs=1, pretrained=first))
    for named in (other, None):
        with pytest.raises(CheckpointError, match=f"pretrained {first}"):
            run("PiNet", "tiny", config_dict=tiny(epochs=2, pretrained=named, resume="auto"))
    more = run("PiNet", "tiny", config_dict=tiny(epochs=2, pretrained=first, resume="auto"))
    assert more["checkpoint"] == part["checkpoint"]


def test_a_named_checkpoint_of_other_settings_goes_on_with_a_warning(tiny, caplog):
    part = run("MF", "tiny", config_dict=tiny(epochs=1))
    keys = {"epochs": 2, "state": "warning", "resume": part["checkpoint"]}
    with caplog.at_level("WARNING"):
        run("MF", "tiny", config_dict=tiny(**keys))
        assert "trained with" not in caplog.text
        run("MF", "tiny", config_dict=tiny(**keys, learning_rate=0.07))
    told = [r.getMessage() for r in caplog.records if "trained with" in r.getMessage()]
    assert len(told) == 1
    assert "(here 0.07)" in told[0]


@pytest.mark.parametrize("name", ["MF", "BPR"])
def test_no_epoch_at_all_tests_the_model_as_it_starts(tiny, name):
    """As RecBole does; and the run can continue from there."""
    start = run(name, "tiny", config_dict=tiny(epochs=0))
    assert start["epochs"] == 0
    assert 0.0 <= start["test_result"]["recall@10"] < 1.0
    more = {"resume": str(Path(start["checkpoint"]).with_suffix(".last.pth"))}
    assert run(name, "tiny", config_dict=tiny(epochs=1, **more))["epochs"] == 1


def test_a_folder_for_checkpoints_that_is_a_file_is_one_line_before_any_work(tiny, monkeypatch):
    Path("notes.txt").write_text("mine")
    monkeypatch.setattr("recbole_cierec.data.dataset.create_dataset", None)
    with pytest.raises(CheckpointError, match=r"notes.txt/s: no checkpoint .* set checkpoint_dir"):
        run("MF", "tiny", config_dict=tiny(checkpoint_dir="notes.txt/s"))


def test_auto_passes_over_a_damaged_file(tiny):
    good = run("MF", "tiny", config_dict=tiny(epochs=1))
    Path("saved/MF-zz.last.pth").write_bytes(b"PK\x03\x04 cut off")
    rest = run("MF", "tiny", config_dict=tiny(epochs=2, resume="auto"))
    assert rest["checkpoint"] == good["checkpoint"]


def test_a_finished_run_resumed_is_only_evaluated(tiny):
    keys = {"metrics": ["Recall", "ItemCoverage"]}
    done = run("VBPR", "tiny", config_dict=tiny(epochs=2, **keys))
    file = Path(done["checkpoint"]).with_suffix(".last.pth")
    before = file.read_bytes(), Path(done["checkpoint"]).read_bytes()
    again = run("VBPR", "tiny", config_dict=tiny(epochs=2, resume=str(file), **keys))
    assert again["test_result"] == done["test_result"]
    assert (file.read_bytes(), Path(done["checkpoint"]).read_bytes()) == before


def test_a_resumed_early_stop_stays_stopped(tiny):
    keys = {"epochs": 50, "stopping_step": 1, "learning_rate": 0.5}
    done = run("MF", "tiny", config_dict=tiny(**keys))
    stopped = last_of(done)["epoch"]
    assert stopped < 49
    file = str(Path(done["checkpoint"]).with_suffix(".last.pth"))
    again = run("MF", "tiny", config_dict=tiny(**keys, resume=file))
    assert last_of(again)["epoch"] == stopped


@pytest.mark.parametrize(
    ("change", "both"),
    [
        ({"model": "VBPR"}, ["MF", "VBPR"]),
        ({"embedding_size": 9}, ["[41, 5]", "[41, 9]"]),
        ({"user_inter_num_interval": "[9,inf)"}, ["user_bias.weight", "[31, 1]"]),
        ({"eval_args": {"split": {"RS": [0.5, 0.2, 0.3]}}}, ["other data", "interactions"]),
    ],
    ids=["model", "size", "users", "split"],
)
def test_another_model_size_or_data_is_refused_in_one_line(tiny, change, both):
    done = run("MF", "tiny", config_dict=tiny(epochs=1))
    change = dict(change)
    name = change.pop("model", "MF")
    with pytest.raises(CheckpointError) as error:
        run(name, "tiny", config_dict=tiny(epochs=2, resume=done["checkpoint"], **change))
    message = str(error.value)
    assert "\n" not in message
    assert done["checkpoint"] in message
    for value in both:
        assert value in message


def test_the_same_seed_gives_the_same_bits_and_another_does_not(tiny):
    first, second = (run("CIERec", "tiny", config_dict=tiny()) for _ in range(2))
    other = run("CIERec", "tiny", config_dict=tiny(seed=7))
    same(last_of(first)["state_dict"], last_of(second)["state_dict"])
    assert first["test_result"] == second["test_result"]
    weights = [last_of(r)["state_dict"]["user_embedding.weight"] for r in (first, other)]
    assert not torch.equal(*weights)


@pytest.mark.parametrize("name", ["LightGCN", "ItemKNN"])
def test_a_checkpoint_is_read_beside_the_device_and_what_belongs_there_goes_there(tiny, name):
    done = run(name, "tiny", config_dict=tiny(epochs=1, embedding_size=8))
    saved = read_checkpoint(Path(done["checkpoint"]))
    job = prepare(Config(name, "tiny", None, tiny(epochs=1, embedding_size=8)))
    job.trainer.device = torch.device("meta")  # nothing that is read onto it would remain
    job.trainer.resume_checkpoint(done["checkpoint"])
    same(dict(job.model.state_dict()), saved["state_dict"])
    same(job.trainer.optimizer.state_dict(), saved["optimizers"]["optimizer"])
    others = job.model.other_parameter()
    assert others.keys() == saved["other_parameter"].keys()
    tensors = [value for value in others.values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == (2 if name == "LightGCN" else 0)  # ItemKNN's are matrices of scipy
    assert all(tensor.is_meta for tensor in tensors)


def test_a_run_begun_with_two_gpus_goes_on_with_one(monkeypatch):
    gpus = [torch.Generator().manual_seed(seed) for seed in (1, 2)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: [g.get_state() for g in gpus])
    state = rng_state()
    wanted = torch.rand(3, generator=gpus[0])
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "default_generators", (torch.Generator(),))
    monkeypatch.setattr(torch.cuda.random, "_lazy_call", lambda call: call())
    set_rng_state(state)
    (left,) = torch.cuda.default_generators
    assert torch.equal(torch.rand(3, generator=left), wanted)


def test_a_write_that_fails_leaves_the_old_checkpoint_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "model.pth"
    write_checkpoint(path, whole_state(epoch=1))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError, match="No space left"):
        write_checkpoint(path, whole_state(epoch=2))
    assert read_checkpoint(path)["epoch"] == 1
    assert [p.name for p in tmp_path.iterdir()] == ["model.pth"]


class _Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        import os

        return os.system, (f"touch {self.target}",)


def test_a_malicious_checkpoint_is_refused_and_not_executed(tmp_path):
    target, path = tmp_path / "ran", tmp_path / "evil.pth"
    torch.save(whole_state(format=checkpoint.FORMAT, x=_Payload(target)), path)
    with pytest.raises(CheckpointError, match=r"evil\.pth"):
        read_checkpoint(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("damage", "word"),
    [
        (lambda s: {"format": s["format"]}, "no model"),
        (lambda s: {k: v for k, v in s.items() if k != "rng"}, "no rng"),
        (lambda s: {**s, "state_dict": [1]}, "no state_dict"),
        (lambda s: {**s, "state_dict": {k: 1 for k in s["state_dict"]}}, "AttributeError"),
        (lambda s: {**s, "epoch": "x"}, "no epoch"),
        (lambda s: {**s, "optimizers": {k: {} for k in s["optimizers"]}}, "KeyError"),
        (lambda s: {**s, "extra": {"visual": 3}}, "Error"),
        (lambda s: {**s, "plain_state": {"no_such.part": 3}}, "no_such"),
        (lambda s: {**s, "rng": {"torch": torch.zeros(3)}}, "Error"),
    ],
)
def test_a_checkpoint_whose_parts_are_not_what_they_should_be_is_one_line(tiny, damage, word):
    done = run("CIERec", "tiny", config_dict=tiny(epochs=1, gr_mode="paper"))
    torch.save(damage(read_checkpoint(Path(done["checkpoint"]))), "made.pth")
    keys = tiny(epochs=2, gr_mode="paper", resume="made.pth")
    with pytest.raises(CheckpointError) as error:
        run("CIERec", "tiny", config_dict=keys)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("made.pth: ")
    assert word in message


@pytest.mark.parametrize("change", ["pictures", "exchanged pictures", "annotations"])
def test_other_contents_of_the_items_are_refused_in_one_line(pictured, change):
    keys = pictured(epochs=1)
    done = run("CIERec", "tiny", config_dict=keys)
    home = Path(keys["data_path"]) / "tiny"
    first, second = home / "images" / "0.png", home / "images" / "1.png"
    if change == "pictures":
        first.write_bytes(second.read_bytes())
    elif change == "exchanged pictures":
        first.rename(home / "x"), second.rename(first), (home / "x").rename(second)
    else:
        table = (home / "tiny.item").read_text()
        (home / "tiny.item").write_text(table.replace("t1", "tx").replace("t2", "t1"))
    with pytest.raises(CheckpointError) as error:
        run("CIERec", "tiny", config_dict=pictured_again(keys, done))
    assert f"other data ({change.split()[-1]})" in str(error.value)
    assert "\n" not in str(error.value)


def pictured_again(keys, done) -> dict:
    return {**keys, "epochs": 2, "resume": done["checkpoint"]}


def test_other_ready_made_features_are_refused_and_a_copy_of_the_same_is_not(tiny, in_tmp):
    features = np.load(tiny()["features_file"])
    keys = tiny(epochs=1, features_file=str(in_tmp / "f.npy"))
    np.save("f.npy", features)
    done = run("VBPR", "tiny", config_dict=keys)
    again = {**keys, "epochs": 2, "resume": done["checkpoint"]}
    np.save("g.npy", features[::-1])
    with pytest.raises(CheckpointError, match=r"other data \(features\)"):
        run("VBPR", "tiny", config_dict={**again, "features_file": str(in_tmp / "g.npy")})
    np.save("h.npy", features)
    run("VBPR", "tiny", config_dict={**again, "features_file": str(in_tmp / "h.npy")})


@pytest.mark.parametrize("resume", ["nowhere.pth", "auto", "MF.pth"])
def test_a_wrong_checkpoint_is_refused_before_any_data_are_read(tiny, monkeypatch, resume):
    write_checkpoint(Path("MF.pth"), whole_state(model="MF", dataset="other"))
    monkeypatch.setattr("recbole_cierec.data.dataset.create_dataset", None)
    with pytest.raises(CheckpointError, match=r"no such|no checkpoint|holds dataset other"):
        run("MF", "tiny", config_dict=tiny(resume=resume))


def test_a_folder_that_cannot_be_written_is_refused_before_any_data_are_read(tiny, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("recbole_cierec.data.dataset.create_dataset", None)
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(CheckpointError, match=r"saved: .*Read-only.* set checkpoint_dir"):
        run("MF", "tiny", config_dict=tiny())


def test_a_full_disk_is_said_in_its_own_words_whichever_write_fails(tmp_path, monkeypatch):
    class Full:
        def write(self, data):
            raise OSError(28, "No space left on device")

        def flush(self):
            pass

    @contextmanager
    def replacing(path):
        with whole_file._one_line(path):
            yield Full()

    monkeypatch.setattr(checkpoint, "replacing", replacing)
    with pytest.raises(CheckpointError, match="No space left on device"):
        write_checkpoint(tmp_path / "x.pth", whole_state(w=torch.zeros(9)))


def test_a_checkpoint_of_an_older_format_is_refused_by_its_number(tmp_path):
    path = tmp_path / "old.pth"
    torch.save(whole_state(format="recbole_cierec checkpoint 2"), path)
    with pytest.raises(CheckpointError, match=r"old\.pth: is of format 2, .* reads 3; train"):
        read_checkpoint(path)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_cut_off_checkpoint_is_refused_by_name(tmp_path, share):
    path = tmp_path / "model.pth"
    write_checkpoint(path, whole_state(w=torch.randn(1000), epoch=3))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        read_checkpoint(path)


def test_flipped_bytes_are_refused_or_harmless(tmp_path):
    path = tmp_path / "model.pth"
    state = whole_state(w=torch.arange(500.0), epoch=3)
    write_checkpoint(path, state)
    whole = path.read_bytes()
    rng, refused = np.random.default_rng(0), 0
    for place in rng.choice(len(whole), 100, replace=False):
        flipped = bytearray(whole)
        flipped[place] ^= 0xFF
        path.write_bytes(bytes(flipped))
        try:
            read = read_checkpoint(path)
        except CheckpointError:
            refused += 1
        else:  # a byte that means nothing, such as a date in the archive
            same({k: read[k] for k in state}, state)
    assert refused > 50
