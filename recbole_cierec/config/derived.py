"""Keys that follow from the model and from other keys, unless the user gives them."""

from __future__ import annotations

from collections.abc import Container, Mapping
from typing import Any

from recbole.model.abstract_recommender import AbstractRecommender
from recbole.utils import ModelType

from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.eval_mode import EvalMode
from recbole_cierec.registry import stages_of

PAIRS = 4096  # RecBole's own eval_batch_size
_OF_USER_MODE = ("eval_repeats", "candidates_file", "candidate_seed")
# For this package's models with Adagrad, whose files have the rate and the L2 for BPR.
_WITH_SOFTMAX = {"learning_rate": "softmax_learning_rate", "reg_weight": "softmax_reg_weight"}


def adjust(
    final: dict[str, Any], given: Container[str], model: str, model_class: type
) -> list[str]:
    """Set the keys in ``final`` that follow from others.

    Args:
        final: All keys with their values, ``eval_args`` merged; changed in place.
        given: The keys that the user gave; they are not changed.
        model: The model's name.
        model_class: Its class.

    Returns:
        Lines for the log.

    Raises:
        ConfigError: The interactions of a sequential model are in random order.
    """
    if "load_col" not in given:
        final["load_col"] = _columns(final)
    if "eval_batch_size" not in given and not _ranks_all_items(model_class):
        final["eval_batch_size"] = PAIRS  # every pair passes the network
    softmax = final.get("loss") == "softmax" and not no_reader_of_softmax(model, model_class)
    sequential = final["MODEL_TYPE"] == ModelType.SEQUENTIAL
    if sequential and final["eval_args"]["order"] != "TO":
        raise ConfigError(f"eval_args.order: {model} is a sequential model and needs TO, by time")
    no_negatives = softmax or (sequential and final.get("loss_type") == "CE")
    if no_negatives and "train_neg_sample_args" not in given:
        final["train_neg_sample_args"] = None
    if softmax and final["learner"] == "adagrad":
        final |= {key: final[own] for key, own in _WITH_SOFTMAX.items() if key not in given}
    notes = []
    if final["worker"]:
        # Each of RecBole's workers draws negatives from its own generator, so that their number
        # would change the result.
        notes.append("worker: batches are made in the main process, for equal results everywhere")
        final["worker"] = 0
    modes = EvalMode.all_of(final["eval_args"])
    others = [name for name in final.get("features") or () if name != "image"]
    if others and not getattr(model_class, "reads_features", True):
        notes.append(f"{model} reads no features of {' and '.join(others)}")
    notes += _notes_on_labels(final, any(mode.kind == "labeled" for mode in modes))
    return notes + _notes_on_modes([mode.by_user for mode in modes], given, model, sequential)


def _notes_on_labels(final: Mapping[str, Any], labeled: bool) -> list[str]:
    """``threshold`` makes labels, which hardly any run reads."""
    drawn = (final["train_neg_sample_args"] or {}).get("distribution", "none") != "none"
    if not final.get("threshold") or not drawn:
        return []
    if labeled:
        return [
            "threshold: training draws negatives and takes every interaction for a positive; "
            "train_neg_sample_args: null trains on the labels"
        ]
    return [
        "threshold is read in mode labeled of eval_args, and in training without drawn negatives, "
        "only; val_interval drops interactions, such as low ratings"
    ]


def _notes_on_modes(
    by_user: list[bool], given: Container[str], model: str, sequential: bool
) -> list[str]:
    notes = []
    if not any(by_user):
        idle = [key for key in _OF_USER_MODE if key in given]
        notes += [f"{key} is read in mode userN of eval_args only" for key in idle]
    if sequential and not all(by_user):
        notes.append(
            f"{model} is a sequential model: RecBole's modes rank each interaction separately "
            "(full) or against other negatives (uniN), so its numbers do not compare with those of "
            "other models; mode userN of eval_args, such as user500, is the same for all"
        )
    return notes


def _columns(final: Mapping[str, Any]) -> dict[str, list[str]]:
    """``load_col`` by the names in the field keys, with what a filter by items needs and all
    columns of files that ``unload_col`` removes some from."""
    columns = dict(final["load_col"] or {})
    fields = {"user_id": "USER_ID_FIELD", "item_id": "ITEM_ID_FIELD", "timestamp": "TIME_FIELD"}
    names = {name: final[key] for name, key in fields.items()}
    columns["inter"] = [names.get(name, name) for name in columns.get("inter", [])]
    if final["filter_inter_by_user_or_item"]:
        columns.setdefault("item", [final["ITEM_ID_FIELD"]])
    return columns | dict.fromkeys(final.get("unload_col") or (), "*")


def _ranks_all_items(model_class: type) -> bool:
    absent = AbstractRecommender.full_sort_predict
    return getattr(model_class, "full_sort_predict", absent) is not absent


def no_reader_of_softmax(model: str, model_class: type) -> str:
    """Why ``loss: softmax`` changes nothing in this model; empty where it does."""
    own_loss = getattr(model_class, "own_loss", None)
    if own_loss is None:
        return f"{model} is a model of RecBole and does not read loss: softmax"
    if not own_loss:
        return ""
    stage = ": it is the loss of the model that is trained first" * bool(stages_of(model_class))
    return f"{model} has another loss and does not read loss: softmax{stage}"
