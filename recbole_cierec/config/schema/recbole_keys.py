"""RecBole's keys, as far as RecBole does not check them itself.

A key without types has the type of its default in RecBole's yaml files, and so have RecBole's keys
that are not listed here.
"""

from __future__ import annotations

import math

from recbole_cierec.config.schema.key import Columns, Key, Role
from recbole_cierec.config.schema.parts import (
    buckets,
    clipping,
    count,
    gpus,
    interval,
    mapping,
    number,
    one_or_more,
    three_parts,
    tokens_or_interval,
    word,
    words,
)

DATA, PLACE, PROTOCOL, TRAINING = Role.DATA, Role.PLACE, Role.PROTOCOL, Role.TRAINING
TOKENS, FLOATS = Columns(None, ("token", "token_seq")), Columns(None, ("float", "float_seq"))

KEYS = (
    Key("gpu_id", str, role=PLACE, check=gpus),
    Key("worker", role=PLACE, low=0, high=512),
    Key("use_gpu", role=PLACE),
    Key("seed", role=TRAINING, low=0, high=2**32 - 1, searched=False),
    Key(
        "state", (str, None), role=PLACE, choices=("debug", "info", "warning", "error", "critical")
    ),
    Key("data_path", role=PLACE, path="folder"),
    Key("checkpoint_dir", role=PLACE, not_empty=True, path="folder"),
    Key("show_progress", role=PLACE),
    Key("save_dataset", role=PLACE),
    Key("dataset_save_path", (str, None), role=PLACE),
    Key("save_dataloaders", role=PLACE),
    Key("dataloaders_save_path", (str, None), role=PLACE),
    Key("log_wandb", role=PLACE),
    Key("wandb_project", role=PLACE),
    Key("shuffle", (bool, None), role=TRAINING),
    Key("epochs", role=TRAINING, low=0, changes=True),
    Key("eval_step", role=TRAINING, low=1),
    Key("stopping_step", role=TRAINING, low=0, changes=True),
    Key("clip_grad_norm", (dict, None), role=TRAINING, check=clipping),
    Key("weight_decay", role=TRAINING, low=0),
    Key("loss_decimal_place", role=TRAINING, low=0, high=20),
    Key(
        "transform",
        (str, None),
        role=TRAINING,
        choices=("mask_itemseq", "inverse_itemseq", "crop_itemseq", "reorder_itemseq"),
    ),
    Key("seq_separator", role=DATA, not_empty=True),
    Key("USER_ID_FIELD", role=DATA, not_empty=True),
    Key("ITEM_ID_FIELD", role=DATA, not_empty=True),
    Key("RATING_FIELD", role=DATA, not_empty=True),
    Key("TIME_FIELD", role=DATA, not_empty=True),
    Key(
        "seq_len",
        (dict, None),
        role=DATA,
        check=mapping(count(1)),
        columns=Columns(None, ("token_seq", "float_seq")),
    ),
    Key("LABEL_FIELD", role=DATA, not_empty=True),
    Key(
        "threshold",
        (dict, None),
        role=PROTOCOL,
        check=mapping(number(-math.inf), only=1),
        columns=Columns("inter", ("float",)),
    ),
    Key("NEG_PREFIX", role=DATA, not_empty=True),
    Key("numerical_features", list, role=DATA, check=words, columns=FLOATS),
    Key("unload_col", (dict, None), role=PROTOCOL, check=mapping(words)),
    Key("unused_col", (dict, None), role=PROTOCOL, check=mapping(words)),
    Key("additional_feat_suffix", (str, list, None), role=DATA, check=one_or_more),
    Key("rm_dup_inter", (str, None), role=PROTOCOL, choices=("first", "last")),
    Key(
        "val_interval",
        (dict, None),
        role=PROTOCOL,
        check=mapping(tokens_or_interval),
        columns=Columns(None, ("token", "float")),
    ),
    Key("user_inter_num_interval", (str, list, None), role=PROTOCOL, check=interval),
    Key("item_inter_num_interval", (str, list, None), role=PROTOCOL, check=interval),
    Key("alias_of_user_id", (list, None), role=DATA, check=words, columns=TOKENS),
    Key("alias_of_item_id", (list, None), role=DATA, check=words, columns=TOKENS),
    Key("alias_of_entity_id", (list, None), role=DATA, check=words, columns=TOKENS),
    Key("alias_of_relation_id", (list, None), role=DATA, check=words, columns=TOKENS),
    Key("preload_weight", (dict, None), role=DATA, check=mapping(word)),
    Key("normalize_field", (list, None), role=PROTOCOL, check=words, columns=FLOATS),
    Key("normalize_all", (bool, None), role=PROTOCOL),
    Key("discretization", (dict, None), role=DATA, check=mapping(buckets)),
    Key("ITEM_LIST_LENGTH_FIELD", role=DATA, not_empty=True),
    Key("LIST_SUFFIX", role=DATA, not_empty=True),
    Key("MAX_ITEM_LIST_LENGTH", role=DATA, low=1),
    Key("HEAD_ENTITY_ID_FIELD", role=DATA, not_empty=True),
    Key("TAIL_ENTITY_ID_FIELD", role=DATA, not_empty=True),
    Key("RELATION_ID_FIELD", role=DATA, not_empty=True),
    Key("ENTITY_ID_FIELD", role=DATA, not_empty=True),
    Key("entity_kg_num_interval", (str, list, None), role=DATA, check=interval),
    Key("relation_kg_num_interval", (str, list, None), role=DATA, check=interval),
    Key("benchmark_filename", (list, None), role=DATA, check=three_parts),
    Key("encoding", (str, None), role=PLACE),
    # Some of RecBole's models
    Key("attn_dropout_prob", low=0, high=1),
    Key("hidden_dropout_prob", low=0, high=1),
    Key("hidden_size", low=1, high=2**16),
    Key("initializer_range", low=0),
    Key("inner_size", low=1, high=2**16),
    Key("item_attribute", columns=Columns("item", ("token", "token_seq"))),
    Key("mask_ratio", low=0, high=1),
    Key("mf_pretrain_path", path="any"),
    Key("mlp_pretrain_path", path="any"),
    Key("n_heads", low=1, high=1000),
    Key("n_layers", low=0, high=1000),
    Key("num_layers", low=1, high=1000),
    Key("pre_model_path", path="any"),
    Key("pretrain_path", path="any"),
    Key("save_step", low=1),
    Key("selected_features", columns=Columns("item", ("token", "float", "token_seq", "float_seq"))),
    Key("warm_up", path="any"),
)
