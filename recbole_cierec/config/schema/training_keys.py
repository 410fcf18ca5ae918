"""Keys of training that this package adds to RecBole's."""

from __future__ import annotations

from functools import partial

from recbole_cierec.config.schema.key import Key, Role
from recbole_cierec.config.schema.parts import checkpoint_or_auto

key = partial(Key, role=Role.TRAINING)

KEYS = (
    key(
        "loss",
        str,
        "bpr: one negative for each positive; softmax: against negatives that a batch shares.",
        choices=("bpr", "softmax"),
        searched=False,
    ),
    key(
        "shared_negatives",
        int,
        "softmax: number of distinct negatives drawn for each batch from what "
        "train_negatives allows.",
        low=1,
    ),
    key(
        "shared_negatives_memory",
        int,
        "softmax: MiB of one tensor over all pairs; where item vectors depend on the "
        "user, fewer negatives are drawn to stay within it.",
        low=1,
    ),
    key(
        "softmax_learning_rate",
        float,
        "softmax: default learning_rate of this package's models with Adagrad; BPR's 0.2 "
        "overshoots.",
        low=0,
    ),
    key(
        "softmax_reg_weight",
        float,
        "softmax: default reg_weight of the same models; with BPR's 0.02 they overfit.",
        low=0,
    ),
    key("softmax_temperature", float, "softmax: scores are divided by it.", low=0.001),
    key(
        "popularity_correction",
        float,
        "softmax: weight of the log share of an item's interactions in training logits; 1"
        " removes popularity from scores.",
        low=0,
    ),
    key(
        "optimizer_kernel",
        str,
        "Adam and SGD: torch's fused step, or the slower plain step, which reproduces "
        "RecBole's last bits.",
        choices=("fused", "plain"),
    ),
    key(
        "lr_decay",
        float,
        "Factor on the learning rate, applied every lr_decay_epochs epochs.",
        low=0,
        high=1,
    ),
    key("lr_decay_epochs", int, "Epochs between two decays of the learning rate.", low=1),
    key(
        "warmup_steps",
        int,
        "Batches over which all rates grow linearly from near zero to their values; 0: none.",
        low=0,
    ),
    Key(
        "keep_last_checkpoint",
        bool,
        "Keep the checkpoint of the last epoch (NAME.last.pth) after a run has ended; else only "
        "the best remains.",
        role=Role.PLACE,
    ),
    Key(
        "verbose",
        bool,
        "Whether the console shows every record of the log file, as RecBole does.",
        role=Role.PLACE,
    ),
    Key(
        "resume",
        (str, None),
        "Checkpoint to continue from: a path, or auto for the newest of this model, data "
        "and settings.",
        role=Role.PLACE,
        path="file",
        words=("auto",),
        check=checkpoint_or_auto,
    ),
)
