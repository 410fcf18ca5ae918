"""Values of configuration keys: their types, choices and ranges, checked before anything runs.

The type of a key's default is its type; the tables below name the exceptions. Keys of RecBole's own
models are checked loosely (a number stays a number unless its name says that it counts something),
because their yaml files write ``1`` where the model takes any float.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping
from difflib import SequenceMatcher
from numbers import Integral, Real
from types import NoneType
from typing import Any

from recbole_cierec.config.keys import nearest
from recbole_cierec.config.nested import check_parts
from recbole_cierec.config.split import COLD_KINDS, check_shares, cold_rule
from recbole_cierec.config.yaml import parse_value
from recbole_cierec.distributed.launch import MOST_PROCESSES
from recbole_cierec.errors import ConfigError
from recbole_cierec.terminal import shown

# Enumerated keys; spelling is forgiven in upper and lower case only.
CHOICES: dict[str, tuple[str, ...]] = {
    "item_vocabulary": ("interacted", "all"),
    "image_resize": ("squash", "crop", "pad"),
    "bad_image": ("error", "skip", "blank"),
    "encoder_training": ("frozen", "adapter", "finetune"),
    "feature_norm": ("none", "l2", "center", "standard"),
    "encoder_precision": ("float32", "bfloat16"),
    "encoder_stage_cache": ("float16", "float32", "none"),
    "augmentation": ("none", "flip", "crop_flip"),
    "picture_store_device": ("auto", "host", "device"),
    "train_negatives": ("seen", "all"),
    "loss": ("bpr", "softmax"),
    "user_group_count": ("test", "train", "total"),
    "backbone": ("MF", "VBPR"),
    "gate_activation": ("linear", "sigmoid"),
    "lstm_input": ("steps", "concat"),
    "annotation_encoder": ("mean", "sequence"),
    "fusion": ("mlp", "sum", "gated"),
    "content_projection": ("linear", "none"),
    "non_i_reading": ("information", "attention"),
    "merge": ("add", "mul", "concat"),
    "scorer": ("inner", "mlp"),
    "vecf_loss": ("bpr", "bce"),
    "gr_mode": ("paper", "reinforce", "fixed", "off"),
    "gr_reward": ("branch", "common"),
    # RecBole takes Adam, or INFO, for anything it does not know.
    "learner": ("adam", "sgd", "adagrad", "rmsprop", "sparse_adam"),
    "optimizer_kernel": ("fused", "plain"),
    "perturb": ("both", "item"),
    "adv_type": ("grad", "rand", "both"),
    "stage_model": ("MF", "BPR"),
    "target_pairs": ("top", "batch"),
    "state": ("debug", "info", "warning", "error", "critical"),
    "rm_dup_inter": ("first", "last"),
    "transform": ("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq"),
}
MINIMUM: dict[str, float] = {
    "seed": 0,
    "epochs": 0,
    "train_batch_size": 1,
    "eval_batch_size": 1,
    "stopping_step": 0,
    "learning_rate": 0,
    "weight_decay": 0,
    "metric_decimal_place": 0,
    "image_size": 1,
    "max_image_pixels": 1,
    "encoder_batch_size": 1,
    "encoder_memory": 0,
    "shared_negatives": 1,
    "shared_negatives_memory": 1,
    "softmax_temperature": 0.001,  # scores are divided by it
    "popularity_correction": 0,
    "lr_decay": 0,
    "lr_decay_epochs": 1,
    "user_group_boundary": 0,
    "item_group_boundary": 1,
    "candidate_seed": 0,
    "eval_repeats": 1,
    "feature_dim": 1,
    "max_annotation_tokens": 1,
    "encoder_learning_rate": 0,
    "embedding_size": 1,
    "init_std": 0,
    "reg_weight": 0,
    "content_reg_weight": 0,
    "alignment_weight": 0,
    "attention_size": 1,
    "region_grid": 1,
    "caption_weight": 0,
    "gr_learning_rate": 0,
    "semantic_weight": 0,
    "positive_weight": 0,
    "pretrain_epochs": 0,
    "pretrain_batch_size": 1,
    "pretrain_learning_rate": 0,
    "content_size": 1,
    "image_tokens": 1,
    "attention_blocks": 0,
    "attention_heads": 1,
    "image_weight": 0,
    "neighbours_count": 1,
    "content_layers": 0,
    "id_layers": 0,
    "align_weight": 0,
    "align_temperature": 0.001,  # cosines are divided by it
    "cosine_weight": 0,
    "similarity_weight": 0,
    "adv_eps": 0,
    "adv_weight": 0,
    "user_transform": 0,
    "contrastive_negatives": 1,
    "temperature": 0.001,  # similarities are divided by it
    "content_hidden_size": 1,
    "hidden_size": 1,
    "inner_size": 1,
    "n_layers": 0,
    "n_heads": 1,
    "num_layers": 1,
    "content_init_gain": 0,
    "initializer_range": 0,
    # Of RecBole, which divides by some of them.
    "eval_step": 1,
    "save_step": 1,
    "loss_decimal_place": 0,
    "worker": 0,
    "MAX_ITEM_LIST_LENGTH": 1,
}
LARGEST_COUNT = 2**31 - 1  # of any whole number without a limit of its own
LARGEST_NUMBER = 3.4e38  # of any other: what a float32 can hold
_WIDE, _DEEP = 2**16, 1000  # of a layer and of a stack of layers
# What is above can only be a slip, and would take all memory or all day.
MAXIMUM: dict[str, float] = {
    "seed": 2**32 - 1,
    "candidate_seed": 2**62,
    "worker": MOST_PROCESSES,
    "eval_repeats": 1000,
    "image_size": 2**14,
    "region_grid": 2**8,
    "metric_decimal_place": 20,
    "loss_decimal_place": 20,
    "lr_decay": 1,  # it is applied again and again
    **dict.fromkeys(
        "embedding_size attention_size content_size content_hidden_size hidden_size inner_size"
        " encoder_batch_size contrastive_negatives".split(),
        _WIDE,
    ),
    **dict.fromkeys(
        "content_layers id_layers attention_blocks attention_heads image_tokens neighbours_count"
        " n_layers n_heads num_layers".split(),
        _DEEP,
    ),
}
# Names and separators that RecBole puts between or before others; empty ones mix them up.
NOT_EMPTY = frozenset(
    "seq_separator NEG_PREFIX LIST_SUFFIX USER_ID_FIELD ITEM_ID_FIELD TIME_FIELD RATING_FIELD"
    " LABEL_FIELD ITEM_LIST_LENGTH_FIELD HEAD_ENTITY_ID_FIELD TAIL_ENTITY_ID_FIELD"
    " RELATION_ID_FIELD ENTITY_ID_FIELD image_path_field annotations_field checkpoint_dir".split()
)
SHARES = frozenset(  # from 0 to 1
    "privileged_dropout id_dropout user_dropout item_dropout dropout_prob mask_share target_top"
    " contrastive_weight replaced_share hidden_dropout_prob attn_dropout_prob mask_ratio".split()
)
NUMBERS: dict[str, int | None] = {"gr_scales": None, "gr_fixed_scales": 2}  # lists: their length
_NULL_DICT, _NULL_LIST, _NULL_TEXT = (dict, NoneType), (list, NoneType), (str, NoneType)
_INTERVAL = (str, list, NoneType)  # RecBole makes a string of it
# Keys that take more than the type of their default, or whose default is null.
ALLOWED: dict[str, tuple[type, ...]] = {
    "gpu_id": (str,),
    "encoding": _NULL_TEXT,
    "state": _NULL_TEXT,
    "shuffle": (bool, NoneType),
    "topk": (int, list),
    "numerical_features": (list,),
    "metrics": (str, list),
    "clip_grad_norm": _NULL_DICT,
    "train_neg_sample_args": _NULL_DICT,
    "load_col": _NULL_DICT,
    "unload_col": _NULL_DICT,
    "unused_col": _NULL_DICT,
    "seq_len": _NULL_DICT,
    "threshold": _NULL_DICT,
    "val_interval": _NULL_DICT,
    "preload_weight": _NULL_DICT,
    "discretization": _NULL_DICT,
    "normalize_field": _NULL_LIST,
    "normalize_all": (bool, NoneType),
    "benchmark_filename": _NULL_LIST,
    "alias_of_user_id": _NULL_LIST,
    "alias_of_item_id": _NULL_LIST,
    "alias_of_entity_id": _NULL_LIST,
    "alias_of_relation_id": _NULL_LIST,
    "additional_feat_suffix": (str, list, NoneType),
    "user_inter_num_interval": _INTERVAL,
    "item_inter_num_interval": _INTERVAL,
    "entity_kg_num_interval": _INTERVAL,
    "relation_kg_num_interval": _INTERVAL,
    "rm_dup_inter": _NULL_TEXT,
    "transform": _NULL_TEXT,
    "dataset_save_path": _NULL_TEXT,
    "dataloaders_save_path": _NULL_TEXT,
    "image_dir": _NULL_TEXT,
    "features_file": _NULL_TEXT,
    "category_field": _NULL_TEXT,
    "candidates_file": _NULL_TEXT,
    "resume": _NULL_TEXT,
    "pretrained": _NULL_TEXT,
    "word_vectors": _NULL_TEXT,
    "feature_dim": (int, NoneType),
    "encoder_memory": (int, NoneType),
    "encoder_freeze_until": _NULL_TEXT,
}
_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "text"}
_WORDS |= {list: "a list", dict: "a mapping", NoneType: "null"}
_TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
# Of RecBole's models: keys whose default is a whole number because they count something.
_COUNTS = re.compile(r"^(n|num)_|_(size|dim|dimension|num|layers|heads|epochs|steps?|k)$")
_EVAL_KEYS = ("split", "order", "group_by", "mode")
_EVAL_MODE = re.compile(r"full|labeled|(uni|pop|user)[1-9][0-9]*")
_LEAVE_ONE_OUT = ("valid_and_test", "valid_only", "test_only")


def check_value(
    key: str, value: Any, default: Any, origin: str, *, text: str | None = None, loose: bool = False
) -> Any:
    """Check one value and give it its key's type.

    Args:
        key: The key.
        value: The value, as read.
        default: The key's default; its type decides. A null default takes anything.
        origin: Where the value came from, for the error.
        text: The command line's own text, which is what a key of type text wants.
        loose: Only tell numbers, truth values, lists and mappings apart.

    Returns:
        The value, converted where that loses nothing (``3e2`` to 300, ``off`` to False).

    Raises:
        ConfigError: If it is of another type, no choice of the key, or out of range.
    """
    if key in CHOICES and value is not None:
        return _choice(key, value if text is None else text, origin)
    allowed = _types(key, default, loose)
    if allowed is None:
        return value
    if text is not None and str in allowed and not isinstance(value, (*allowed, NoneType)):
        value = text
    converted = _convert(value, allowed)
    if not isinstance(converted, allowed) or (isinstance(converted, bool) and bool not in allowed):
        kinds = allowed if float not in allowed else [k for k in allowed if k is not int]
        needed = " or ".join(_WORDS[kind] for kind in kinds)
        given = "null" if value is None else shown(value)
        raise ConfigError(f"{origin}: '{key}' must be {needed}, not {given}")
    if key in NOT_EMPTY and converted == "":
        raise ConfigError(f"{origin}: '{key}' must not be empty")
    if key in NUMBERS:
        _check_numbers(key, converted, origin)
    if loose and default and isinstance(default, list) and all(map(_is_number, default)):
        _check_like(key, converted, default, origin)
    if isinstance(converted, int | float) and not isinstance(converted, bool):
        _check_range(key, converted, origin)
    return check_parts(key, converted, origin)


def _types(key: str, default: Any, loose: bool) -> tuple[type, ...] | None:
    if key in ALLOWED:
        return ALLOWED[key]
    kind = type(default)
    if kind not in _WORDS or default is None or (loose and kind is str):
        return None
    if kind in (list, dict):
        return (kind, NoneType)
    if loose and kind in (int, float) and not (kind is int and _COUNTS.search(key)):
        return (int, float)
    return (kind,)


def _choice(key: str, value: Any, origin: str) -> str:
    choices = CHOICES[key]
    word = str(value)[:60]
    for choice in choices:
        if choice.lower() == word.lower():
            return choice
    ranked = sorted(choices, key=lambda choice: -SequenceMatcher(None, word, choice).ratio())
    raise ConfigError(f"{origin}: '{key}' must be one of {', '.join(ranked)}, not '{word}'")


def _convert(value: Any, allowed: tuple[type, ...]) -> Any:
    """The value in one of the allowed types if that loses nothing, else the value itself."""
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and str not in allowed:
        # Hyper-tuning and quoted yaml give lists and numbers as strings.
        word = value.strip().lower()
        value = _TRUTH[word] if bool in allowed and word in _TRUTH else parse_value(value)
    if isinstance(value, tuple):
        value = list(value)
    if isinstance(value, bool) or value is None or isinstance(value, allowed):
        return value
    if isinstance(value, Real):
        if int in allowed and (isinstance(value, Integral) or float(value).is_integer()):
            return int(value)
        if float in allowed:
            return float(value)
        if str in allowed:
            return str(value)
    return value


def _check_range(key: str, value: float, origin: str) -> None:
    if not math.isfinite(value):
        raise ConfigError(f"{origin}: '{key}' must be finite, not {value}")
    if key in MINIMUM and value < MINIMUM[key]:
        raise ConfigError(f"{origin}: '{key}' must be {MINIMUM[key]} or more, not {value}")
    most = MAXIMUM.get(key, LARGEST_COUNT if isinstance(value, int) else LARGEST_NUMBER)
    if value > most:
        raise ConfigError(f"{origin}: '{key}' must be {most} or less, not {value}")
    if key in SHARES and not 0 <= value <= 1:
        raise ConfigError(f"{origin}: '{key}' is a share, from 0 to 1, not {value}")


def _check_numbers(key: str, values: Any, origin: str) -> None:
    count = NUMBERS[key]
    real = [v for v in values or () if isinstance(v, Real) and not isinstance(v, bool)]
    good = real and real == values and all(0 <= v <= LARGEST_NUMBER for v in real)
    if not good or count not in (None, len(real)):
        kind = f"{count} numbers" if count else "numbers"
        raise ConfigError(
            f"{origin}: '{key}' must be a list of {kind}, 0 or more each, not {values}"
        )


def _check_like(key: str, values: Any, default: list, origin: str) -> None:
    """A list of numbers of a model of RecBole's; as many weights as it has losses."""
    length = len(default) if key.endswith(("weight", "weights")) else None
    numbers = isinstance(values, list) and all(map(_is_number, values))
    if not numbers or length not in (None, len(values)):
        kind = f"{length} numbers" if length else "numbers"
        raise ConfigError(f"{origin}: '{key}' must be a list of {kind}, not {shown(values)}")


def _is_number(value: Any) -> bool:
    real = isinstance(value, Real) and not isinstance(value, bool)
    return real and abs(value) <= LARGEST_NUMBER


def check_eval_args(args: Any, origin: str) -> None:
    """Check ``eval_args``: its four keys, the split, the order, the grouping and the modes."""
    if not isinstance(args, Mapping):
        raise ConfigError(f"{origin}: 'eval_args' must be a mapping, not {args!r}")
    for key in args:
        if key not in _EVAL_KEYS:
            hint = nearest(str(key), _EVAL_KEYS) or f"; known are {', '.join(_EVAL_KEYS)}"
            raise ConfigError(f"{origin}: unknown key '{key}' in eval_args{hint}")
    _check_split(args.get("split"), origin)
    for key, choices in (("order", ("TO", "RO")), ("group_by", ("user", "none", None))):
        if args.get(key) not in choices:
            listed = ", ".join(str(choice) for choice in choices if choice)
            raise ConfigError(
                f"{origin}: eval_args.{key} must be one of {listed}, not {args.get(key)!r}"
            )
    mode_or_modes = args.get("mode")
    if isinstance(mode_or_modes, Mapping):
        for phase in mode_or_modes:
            if phase not in ("valid", "test"):
                raise ConfigError(f"{origin}: eval_args.mode takes valid and test, not '{phase}'")
    for mode in modes_of(args):
        if not isinstance(mode, str) or not _EVAL_MODE.fullmatch(mode):
            raise ConfigError(
                f"{origin}: eval_args.mode must be full, labeled, uniN or popN (N negatives for"
                f" each positive, as uni100) or userN (N for each user), not {mode!r}"
            )


def modes_of(args: Mapping[str, Any]) -> list[Any]:
    """The modes in ``eval_args``: one for both phases, or one each."""
    modes = args.get("mode")
    return list(modes.values()) if isinstance(modes, Mapping) else [modes]


def _check_split(split: Any, origin: str) -> None:
    if not isinstance(split, Mapping) or len(split) != 1:
        raise ConfigError(
            f"{origin}: eval_args.split must be {{RS: [train, valid, test]}}, {{LS: WHICH}},"
            f" {{COLD_ITEM: [...]}} or {{COLD_USER: [...]}}, not {split!r}"
        )
    ((kind, parts),) = split.items()
    if kind == "RS":
        check_shares(parts, origin, "RS")
    elif kind == "LS":
        if parts not in _LEAVE_ONE_OUT:
            listed = ", ".join(_LEAVE_ONE_OUT)
            raise ConfigError(f"{origin}: eval_args.split LS must be one of {listed}")
    elif kind in COLD_KINDS:
        cold_rule(kind, parts, origin)
    else:
        raise ConfigError(
            f"{origin}: eval_args.split must be RS, LS, {' or '.join(COLD_KINDS)}, not '{kind}'"
        )
