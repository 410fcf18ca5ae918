"""No training for a run, of the model or of its stages, uses what is held out.

Two properties, for every model and both cold splits: all trained parts of a run have the same
training interactions, and other interactions and contents of what is held out change no score
among the rest.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from recbole.data.interaction import Interaction

from recbole_cierec.config.config import Config
from recbole_cierec.errors import ConfigError
from recbole_cierec.quick_start import prepare
from recbole_cierec.registry import MODELS
from recbole_cierec.trainer.trainer import TrainerMixin

SHARE = [0.7, 0.15, 0.15]
SPLITS = {
    "by ratio": {"RS": [0.5, 0.2, 0.3]},
    "leave one out": {"LS": "valid_and_test"},
    "new items": {"COLD_ITEM": SHARE},
    "newest items": {"COLD_ITEM": {"share": SHARE, "by": "newest", "rest": [0.6, 0.2, 0.2]}},
    "new users": {"COLD_USER": {"share": SHARE, "history": 2, "seed": 7}},
}
COLD = {"COLD_ITEM": "item_id", "COLD_USER": "user_id"}
STAGED = [f"{name}-{stage}" for name, entry in MODELS.items() for stage in entry.stages]
SMALL = {"embedding_size": 6, "mlp_hidden_size": [7], "pretrain_epochs": 1, "epochs": 1}
OVER_REGIONS = {"VECF"}


@pytest.fixture
def train_parts(monkeypatch) -> list:
    """(model, training data) of every ``fit`` from now on."""
    plain, seen = TrainerMixin.fit, []

    def fit(self, train_data, *args, **kwargs):
        seen.append((self.config["model"], train_data._dataset))
        return plain(self, train_data, *args, **kwargs)

    monkeypatch.setattr(TrainerMixin, "fit", fit)
    return seen


@pytest.mark.parametrize("split", SPLITS.values(), ids=SPLITS)
@pytest.mark.parametrize("pair", STAGED)
def test_a_stage_trains_on_the_training_part_of_the_run_itself(tiny, train_parts, pair, split):
    name, stage = pair.split("-")
    chosen = {"stage_model": stage} if len(MODELS[name].stages) > 1 else {}
    keys = tiny(eval_args={"split": split}, **chosen, **SMALL)
    job = prepare(Config(name, "tiny", None, keys, {}), saved=False)
    ((trained, part),) = train_parts
    assert trained == stage
    assert part.digest() == job.loaders[0]._dataset.digest()
    own = job.loaders[0]._dataset.cold_phase
    assert own is None or np.array_equal(own, part.cold_phase)


@pytest.mark.parametrize(
    "pretrain",
    [{"eval_args": {"split": {"RS": [0.8, 0.1, 0.1]}}}, {"user_inter_num_interval": "[9,inf)"}],
)
def test_a_stage_with_data_of_its_own_is_refused_before_it_trains(tiny, train_parts, pretrain):
    keys = tiny(eval_args={"split": {"COLD_ITEM": SHARE}}, pretrain=pretrain, **SMALL)
    with pytest.raises(ConfigError, match=r"stage MF .* pretrain") as error:
        prepare(Config("AMF", "tiny", None, keys, {}))
    assert "\n" not in str(error.value)
    assert not train_parts


@pytest.mark.parametrize("name", ["MF", "BPR", "GRU4Rec"])
def test_draws_by_popularity_know_nothing_of_later_interactions(tiny, name):
    """An item's share is that of its interactions in training; the test set has others."""
    popular = {"train_neg_sample_args": {"distribution": "popularity"}, "train_negatives": "all"}
    keys = tiny(eval_args={"split": SPLITS["by ratio"]}, **popular)
    if name == "GRU4Rec":
        keys = {"loss_type": "BPR", **{k: v for k, v in keys.items() if k != "features_file"}}
    train, _, test = prepare(Config(name, "tiny", None, keys, {}), saved=False).loaders
    counts, later = (
        np.bincount(part._dataset.inter_feat["item_id"].numpy(), minlength=train._dataset.item_num)
        for part in (train, test)
    )
    assert (later[counts == 0] > 0).any()
    np.random.seed(3)
    drawn = np.bincount(train._sampler.sampling(200_000), minlength=len(counts))
    assert drawn / 200_000 == pytest.approx(counts / counts.sum(), abs=0.003)


# ------------------------------------------- other interactions and contents of the held out


@pytest.fixture(scope="module")
def worlds(tiny_folder, tmp_path_factory):
    """``worlds[split]`` -> two data folders that differ only in what is held out."""
    return {
        split: [_write(tiny_folder / "tiny", tmp_path_factory.mktemp(k) / k, field) for k in "ab"]
        for split, field in COLD.items()
    }


def _write(source: Path, folder: Path, field: str) -> Path:
    """A copy in which the last ids of ``field`` come later than all others, so that a split by
    newest holds them out. In folder ``b`` their rows have other users (held-out users: other
    items), and held-out items other contents.

    Their rows are last, so that every id has the same number in both folders.
    """
    home = folder / "tiny"
    shutil.copytree(source, home)
    table = pd.read_csv(home / "tiny.inter", sep="\t").set_axis(
        ["user_id", "item_id", "when"], axis=1
    )
    names = table[field].unique()
    held = set(names[round(SHARE[0] * len(names)) :])
    rows = table[field].isin(held)
    kept, cold = table[~rows], table[rows].assign(when=table["when"] + 1000)
    items = pd.read_csv(home / "tiny.item", sep="\t", keep_default_na=False, dtype=str)
    other = {"item_id": "user_id", "user_id": "item_id"}[field]
    assert set(cold[other]) <= set(kept[other])
    if folder.name == "b":
        cold = cold.assign(**{other: np.random.default_rng(5).permutation(cold[other])})
        if field == "item_id":
            _exchange_contents(home, items, np.flatnonzero(items["item_id:token"].isin(held)))
    columns = ["user_id:token", "item_id:token", "timestamp:float"]
    pd.concat([kept, cold]).to_csv(home / "tiny.inter", sep="\t", index=False, header=columns)
    items.to_csv(home / "tiny.item", sep="\t", index=False)
    return folder


def _exchange_contents(home: Path, items: pd.DataFrame, lines: np.ndarray) -> None:
    moved, tokens = np.roll(lines, 1), "annotations:token_seq"
    items.loc[lines, tokens] = items[tokens].to_numpy()[moved]
    for name in ("features.npy", "regions.npy"):
        array = np.load(home / name)
        array[lines] = array[moved]
        np.save(home / name, array)


def _scores_of_the_rest(name: str, folder: Path, split: str, keys: dict) -> pd.DataFrame:
    """Scores [users, items] of what is not held out, after an epoch."""
    file = "regions.npy" if name in OVER_REGIONS else "features.npy"
    keys |= {"data_path": str(folder), "features_file": str(folder / "tiny" / file)}
    keys["eval_args"] = {"split": {split: {"share": SHARE, "by": "newest"}}}
    job = prepare(Config(name, "tiny", None, keys, {}), saved=False)
    job.trainer.fit(job.loaders[0], None, saved=False)
    train, model = job.loaders[0]._dataset, job.model.eval()
    users = torch.arange(1, model.n_users)
    scores = model.full_sort_predict(Interaction({"user_id": users})).view(len(users), -1)[:, 1:]
    names = (train.field2id_token[field][1:] for field in ("user_id", "item_id"))
    frame = pd.DataFrame(scores.detach().numpy(), *names)
    held = train.field2id_token[COLD[split]][np.flatnonzero(train.cold_phase)]
    return frame.drop(held, axis="columns" if split == "COLD_ITEM" else "index")


@pytest.mark.parametrize("split", COLD)
@pytest.mark.parametrize("name", [*MODELS, "BPR", "LightGCN"])
def test_what_is_held_out_changes_no_score_among_the_rest(tiny, worlds, name, split):
    extra = {"init_std": 0.1} if name in MODELS else {}
    keys = {k: v for k, v in tiny(**SMALL).items() if k != "init_std"} | extra
    if name not in MODELS:
        keys = {k: v for k, v in keys.items() if k not in ("mlp_hidden_size", "pretrain_epochs")}
    one, other = (_scores_of_the_rest(name, folder, split, dict(keys)) for folder in worlds[split])
    assert one.to_numpy().std() > 0
    pd.testing.assert_frame_equal(one, other.loc[one.index, one.columns], rtol=1e-4, atol=1e-5)
