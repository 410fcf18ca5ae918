"""Two processes on one batch train as one process does; their runs stop and resume as any other.

One pair of processes trains all cases, one after the other, and writes its results.
"""

from __future__ import annotations

import json
import math
import socket
from pathlib import Path

import numpy as np
import programs
import pytest
import torch
from PIL import Image
from run_helpers import same

from recbole_cierec.config.config import Config
from recbole_cierec.distributed import gradient_exchange
from recbole_cierec.distributed.batch_share import Share
from recbole_cierec.errors import NonFiniteLossError
from recbole_cierec.files.checkpoint import read_checkpoint
from recbole_cierec.quick_start import prepare

SOFTMAX = {"loss": "softmax", "shared_negatives": 9}
DECAY = {"lr_decay": 0.5, "lr_decay_epochs": 1}
PHASED = {"pretrain_epochs": 1}
STAGED = {"pretrain": {"epochs": 1}}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attn_dropout_prob": 0.0}
SMALL = {"n_layers": 1, "n_heads": 1, "hidden_size": 8, "inner_size": 8}
# From its default bias CIERec's fusion is linear at first: the gradients of the bias cancel, and
# Adagrad amplifies their rounding.
BENT = {"fusion_bias": 0.0}
STEPS = ("CIERec_Base", "CIERec_CI", "CIERec_CI_TA", "CIERec_CI_TA_GR")
# Two blocks per batch, of which one passes the network twice. Adagrad amplifies gradients that
# almost cancel, and so their rounding.
FINETUNE = {
    "learner": "sgd",
    "encoder_learning_rate": 0.1,
    "encoder_training": "finetune",
    "visual_encoder": "squeezenet1_1",
    "encoder_weights": "random",
    "image_size": 32,
    "encoder_batch_size": 16,
    "encoder_memory": 16,
    "features_file": None,
}
EXACT = {  # 219 rows in batches of 32: the last one has 27, which two cannot halve
    "MF": ("MF", {"train_batch_size": 109}),  # the last one is a single row: one process has none
    "MF-clipped": ("MF", {"clip_grad_norm": {"max_norm": 0.05}, "learner": "adam"}),
    "VBPR": ("VBPR", {"reg_weight": 0.01, "content_reg_weight": 0.01}),
    "MF_Image": ("MF_Image", SOFTMAX),
    "finetune": ("MF_Image", FINETUNE),
    "finetune-frozen-stage": ("MF_Image", {**FINETUNE, "encoder_freeze_until": "features.9"}),
    "finetune-CIERec": ("CIERec", {**FINETUNE, **SOFTMAX}),
    "MF_Semantics": ("MF_Semantics", {}),
    "MF_Content": ("MF_Content", {"reg_weight": 0.01}),
    "DeepStyle": ("DeepStyle", {}),
    "VECF": ("VECF", {"caption_weight": 0.1}),
    **{name: (name, BENT if name != "CIERec_Base" else {}) for name in STEPS},
    "CIERec": ("CIERec", {"backbone": "VBPR", "alignment_weight": 0.5, **BENT}),
    "CIERec-reinforce": ("CIERec", {"gr_mode": "reinforce", **SOFTMAX, **DECAY, **BENT}),
    "PiNet": ("PiNet", PHASED),
    "PiNet-softmax": ("PiNet", {**PHASED, **SOFTMAX}),
    "AMF": ("AMF", {"pretrain": {"epochs": 1, "learner": "sgd"}}),  # as above
    "AMR": ("AMR", {"adv_type": "both", "embedding_size": 4, **STAGED}),
    "CLCRec": ("CLCRec", {}),
    "FREEDOM": ("FREEDOM", {}),
    "BPR": ("BPR", {}),
    "BPR-two-negatives": ("BPR", {"train_neg_sample_args": {"sample_num": 2}}),
    "FM": ("FM", {}),
    "FISM": ("FISM", {}),
    "LightGCN": ("LightGCN", {"require_pow": True}),
    "NeuMF": ("NeuMF", {"dropout_prob": 0.0}),
    "SASRec": ("SASRec", {**NO_DROPOUT, **SMALL, "train_neg_sample_args": None}),
}
RESUMED = {  # both kinds of random draws: for all rows, and for a process's own rows
    "CIERec": {"gr_mode": "reinforce", **SOFTMAX, **DECAY, **BENT},
    "HAFR": {**SOFTMAX},
    "MultiVAE": {"mlp_hidden_size": [8], "latent_dimension": 4},  # its loader shares nothing
}


def train_all(rank: int, port: str) -> None:
    """Train every case as one of two processes."""
    gradient_exchange.LARGE = 8  # so that both ways of exchanging dense gradients are taken
    several = {"local_rank": rank, "offset": 0, "nproc": 2, "world_size": 2, "ip": "127.0.0.1"}
    got = {}
    for case, (name, keys) in json.loads(Path("cases.json").read_text()).items():
        breaks = keys.pop("breaks", None)
        got[case] = train(name, {**keys, **several, "port": int(port)}, rank == breaks)
        torch.distributed.barrier()  # the first may still write what the next case resumes
    torch.save(got, f"got{rank}")
    torch.distributed.destroy_process_group()


def train(name: str, keys: dict, breaks: bool = False) -> dict | str:
    """Parameters, and the losses of all epochs, of a run; or why it was stopped.

    Args:
        keys: Keys of the model; with ``checkpoint_dir`` checkpoints are kept.
        breaks: Whether the loss of this process's third batch is not a number.
    """
    saved = "checkpoint_dir" in keys
    job = prepare(Config(name, "tiny", None, keys, {}), saved=saved)
    compute, calls = job.model.calculate_loss, []
    if breaks:
        job.model.calculate_loss = lambda x: (
            calls.append(0) or compute(x) * (math.nan if len(calls) == 3 else 1.0)
        )
    try:
        job.trainer.fit(*job.loaders[:2], saved=saved)
    except NonFiniteLossError as error:
        return str(error)
    losses = torch.tensor(list(job.trainer.train_loss_dict.values()))
    return {"losses": losses} | {k: v.detach() for k, v in job.model.named_parameters()}


def cases_of(keys: dict) -> dict:
    own_file = {"VECF": {"features_file": keys["features_file"].replace("features", "regions")}}
    cases = {
        case: (name, {**keys, **own_file.get(name, {}), **own})
        for case, (name, own) in EXACT.items()
    }
    for name, own in RESUMED.items():
        for part, more in {
            "whole": {"epochs": 3, "checkpoint_dir": f"{name}-whole"},
            "kept": {"epochs": 1, "checkpoint_dir": f"{name}-kept"},
            "half": {"epochs": 1, "checkpoint_dir": f"{name}-half"},
            "rest": {"epochs": 3, "checkpoint_dir": f"{name}-half", "resume": "auto"},
        }.items():
            cases[f"{name}-{part}"] = name, {**keys, **own, **more}
    cases["linear"] = "CIERec", {**keys, "backbone": "VBPR"}
    cases["breaks"] = "VBPR", {**keys, "breaks": 1}
    return cases


def draw_pictures(into: Path, count: int) -> None:
    """Coarse noise for each item."""
    rng = np.random.default_rng(0)
    (into / "images").mkdir(parents=True)
    for item in range(count):
        pixels = rng.integers(0, 256, (4, 4, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)
        Image.fromarray(pixels).save(into / "images" / f"{item}.png")


@pytest.fixture(scope="module")
def pair(tiny_folder, tmp_path_factory):
    """(folder, results of both processes for every case, the cases)."""
    folder = tmp_path_factory.mktemp("pair")
    features = tiny_folder / "tiny" / "features.npy"
    draw_pictures(folder / "pictures", len(np.load(features)))
    cases = cases_of(
        {"data_path": str(tiny_folder), "embedding_size": 5, "train_batch_size": 32, "epochs": 1}
        | {"features_file": str(features), "image_dir": str(folder / "pictures"), "init_std": 0.5}
        | {"show_progress": False, "use_gpu": False, "state": "error"}
        | {"keep_last_checkpoint": True}
    )
    (folder / "cases.json").write_text(json.dumps(cases))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    workers = [programs.start(rank, port, cwd=folder, job=train_all) for rank in range(2)]
    codes = [worker.wait(600) for worker in workers]
    assert codes == [0, 0], "\n".join(worker.stderr for worker in workers)
    got = [torch.load(folder / f"got{rank}", weights_only=True) for rank in range(2)]
    return folder, got, cases


def apart(first: dict, second: dict) -> dict:
    """The largest distance of each tensor where it is more than 1e-5."""
    gaps = {key: float((first[key] - second[key]).abs().max()) for key in first}
    return {key: gap for key, gap in gaps.items() if not gap <= 1e-5}


@pytest.mark.parametrize("case", EXACT)
def test_two_processes_end_with_the_parameters_of_one(pair, in_tmp, case):
    _, (first, second), cases = pair
    same(first[case], second[case])
    assert apart(train(*cases[case]), first[case]) == {}


def test_from_its_default_bias_only_the_bias_of_cierecs_fusion_differs(pair, in_tmp):
    _, (first, second), cases = pair
    same(first["linear"], second["linear"])
    assert set(apart(train(*cases["linear"]), first["linear"])) <= {"fusion.maps.0.bias"}


def test_two_processes_compute_a_part_each_of_the_frozen_outputs(pair):
    (file,) = pair[0].glob("cache/frozen-*/manifest.json")
    assert [part["rows"] for part in json.loads(file.read_text())["parts"]] == [[0, 16], [16, 38]]


@pytest.mark.parametrize("name", RESUMED)
def test_a_run_of_two_goes_on_as_the_whole_one(pair, name):
    folder, (first, second), _ = pair
    files = [next(folder.glob(f"{name}-{part}/*.last.pth")) for part in ("whole", "half")]
    whole, rest = (read_checkpoint(file) for file in files)
    for state in (whole, rest):
        del state["config"]  # differs in the key resume
    same(whole, rest)
    same(first[f"{name}-rest"], second[f"{name}-rest"])
    assert apart(first[f"{name}-half"], first[f"{name}-whole"])


def test_one_process_goes_on_with_a_run_of_two(pair, in_tmp):
    folder, (first, _), cases = pair
    name, keys = cases["CIERec-whole"]
    half = next(folder.glob("CIERec-kept/*.last.pth"))
    assert apart(train(name, {**keys, "resume": str(half)}), first["CIERec-whole"]) == {}


def test_a_loss_that_is_no_number_in_one_process_stops_both_with_one_message(pair):
    _, (first, second), _ = pair
    assert first["breaks"] == second["breaks"]
    assert "VBPR: the training loss is nan in epoch 0, batch 2;" in first["breaks"]


@pytest.mark.parametrize("by_item", [False, True])
@pytest.mark.parametrize("rows", [1, 2, 3, 7])
def test_shares_of_a_batch_make_the_whole(rows, by_item):
    whole = torch.arange(2 * rows)  # two negatives of each row
    by = torch.tensor([5, 9, 5, 9, 7, 5, 1])[:rows] if by_item else None
    shares = [Share(whole, rank, 3, copies=2, by=by) for rank in range(3)]
    busy = [share for share in shares if share.weight]
    assert torch.equal(torch.cat([share.rows for share in busy]).sort().values, whole)
    assert sum(share.weight for share in shares) == pytest.approx(3)
    for share in busy:
        assert len(share.rows) / (2 * rows) == pytest.approx(share.weight / 3)
        first, second = share.rows.chunk(2)
        assert torch.equal(first + rows, second)
    assert all(len(share.own) for share in shares)
    for rank, share in enumerate(shares):
        if share.weight:
            assert (share.owners == rank).nonzero().squeeze(1).tolist() == share.rows.tolist()


def test_rows_of_one_item_go_to_one_process():
    items = torch.randint(40, (600,), generator=torch.Generator().manual_seed(0))
    shares = [Share(items, rank, 2, by=items) for rank in range(2)]
    first, second = ({*share.own.tolist()} for share in shares)
    assert len(first & second) <= 1  # the item at the border
    assert min(len(first), len(second)) >= 15
