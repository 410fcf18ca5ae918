"""A trained model from its checkpoint, with what recommending needs of its data."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.utils import ModelType, init_seed
from torch import Tensor

from recbole_cierec.compat.warnings import quiet_recbole
from recbole_cierec.data.recbole_errors import as_model_errors
from recbole_cierec.data.short_histories import shortened
from recbole_cierec.errors import ConfigError
from recbole_cierec.evaluation.candidates import Ragged
from recbole_cierec.evaluation.scoring import PAIRS
from recbole_cierec.files.checkpoint import fitting, read_checkpoint, to_plain
from recbole_cierec.quick_start import config_of, dataset_of
from recbole_cierec.serving.new_items import NewItems
from recbole_cierec.trainer.checkpoints import load_weights
from recbole_cierec.trainer.plain_state import PlainState
from recbole_cierec.trainer.resuming import data_of, refuse_other_data, refuse_other_settings

PADDING = 0  # user and item 0 are RecBole's padding
_KINDS = (ModelType.GENERAL, ModelType.TRADITIONAL, ModelType.KNOWLEDGE)


@dataclass
class TrainedModel:
    """A model ready to score.

    Attributes:
        path: Its checkpoint.
        config: Its configuration.
        model: On its device, in eval mode.
        dataset: The data set, split.
        parts: Its training, validation and test part.
        provenance: As in the checkpoint.
        plain_state: State of the model, as in the checkpoint; see
            :class:`recbole_cierec.trainer.plain_state.PlainState`.
    """

    path: Path
    config: Any
    model: Any
    dataset: Any
    parts: tuple[Any, ...]
    provenance: dict[str, Any]
    plain_state: dict[str, Any]

    @property
    def name(self) -> str:
        """The model's name."""
        return self.config["model"]

    @property
    def user_ids(self) -> np.ndarray:
        """External id of each user [n_users]; entry 0 is the padding."""
        return self.dataset.field2id_token[self.dataset.uid_field]

    @property
    def item_ids(self) -> np.ndarray:
        """External id of each item [n_items]; entry 0 is the padding."""
        return self.dataset.field2id_token[self.dataset.iid_field]

    def numbers_of(self, kind: str, ids: list[str]) -> np.ndarray:
        """Internal numbers of users (``user``) or items (``item``); -1 for unknown ids."""
        field = self.dataset.uid_field if kind == "user" else self.dataset.iid_field
        known = self.dataset.field2token_id[field]
        return np.array([known.get(token, -1) or -1 for token in ids], dtype=np.int64)

    def pairs(self, parts: tuple[Any, ...]) -> tuple[np.ndarray, np.ndarray]:
        """Internal numbers of the users and items of all interactions of some of the parts."""
        tables = [part.inter_feat for part in parts if part is not None and len(part)]
        fields = (self.dataset.uid_field, self.dataset.iid_field)
        users, items = (np.concatenate([t[f].numpy() for t in tables]) for f in fields)
        return users, items

    @cached_property
    def seen(self) -> Ragged:
        """The items of each user in training and validation, and those of ``rowless``: one row for
        each user."""
        users, items = self.pairs(self.parts[:2])
        more = self.parts[0].rowless
        users, items = np.append(users, more.users), np.append(items, more.items)
        return Ragged.group(users, items, len(self.user_ids))

    @cached_property
    def popularity(self) -> np.ndarray:
        """Training interactions of each item [n_items]."""
        return np.bincount(self.pairs(self.parts[:1])[1], minlength=len(self.item_ids))

    @cached_property
    def trained_users(self) -> np.ndarray:
        """bool [n_users]: has a training interaction."""
        return np.bincount(self.pairs(self.parts[:1])[0], minlength=len(self.user_ids)) > 0

    @property
    def ranks_unseen_users(self) -> bool:
        """Whether the scores of users without training interactions mean anything."""
        return getattr(self.model, "ranks_unseen_users", False)

    @torch.no_grad()
    def scores(self, users: np.ndarray, items: Tensor | None = None) -> Tensor:
        """Scores of users [B] for all items [B, n_items], or for ``items`` [C]: [B, C].

        Users without training interactions, for whom the model has nothing, score items by
        popularity.
        """
        numbers = torch.from_numpy(users).to(self.config["device"])
        batch = Interaction({self.dataset.uid_field: numbers})
        if items is not None and hasattr(self.model, "candidate_scores"):
            found = self.model.candidate_scores(batch, items.expand(len(users), -1))
        else:
            try:
                found = self.model.full_sort_predict(batch).view(len(users), -1)
                found = found if items is None else found[:, items]
            except NotImplementedError:
                found = self._of_pairs(numbers, items)
        if not self.ranks_unseen_users:
            rows = torch.from_numpy(np.flatnonzero(~self.trained_users[users])).to(found.device)
            counts = torch.from_numpy(self.popularity).to(found)
            found[rows] = counts if items is None else counts[items]
        return found

    def _of_pairs(self, users: Tensor, items: Tensor | None) -> Tensor:
        """Scores of a model of RecBole that scores nothing but pairs, as NeuMF."""
        if items is None:
            items = torch.arange(len(self.item_ids), device=users.device)
        rows, columns = users.repeat_interleave(len(items)), items.repeat(len(users))
        fields = (self.dataset.uid_field, self.dataset.iid_field)
        parts = [
            self.model.predict(Interaction(dict(zip(fields, pair, strict=True)))).view(-1)
            for pair in zip(rows.split(PAIRS), columns.split(PAIRS), strict=True)
        ]
        return torch.cat(parts).view(len(users), len(items))


def load_trained(
    path: Path,
    config_dict: Mapping[str, Any] | None = None,
    cmd_line: Mapping[str, str] | None = None,
    added: NewItems | None = None,
) -> TrainedModel:
    """Read a checkpoint and make its model; see :func:`recbole_cierec.quick_start.load`.

    Args:
        path: The checkpoint.
        config_dict: Keys over those of the run, of those that a trained model takes.
        cmd_line: Flags over these.
        added: New items.

    Raises:
        UserError: The checkpoint cannot be used, a key is of training, its pictures are missing or
            others, or its model needs more than a user to rank items.
    """
    state = read_checkpoint(path)
    with quiet_recbole():
        config = config_of(path, state, None, config_dict, cmd_line)
        if config["MODEL_TYPE"] not in _KINDS:
            kind = config["MODEL_TYPE"].name.lower()
            raise ConfigError(
                f"{path}: {config['model']} is a {kind} model, which needs more than a user's id "
                "to rank items; load(...) gives the model and its data for RecBole's full_sort_topk"
            )
        refuse_other_settings(path, state, config)
        dataset = dataset_of(path, state, config)
        init_seed(config["seed"], config["reproducibility"])
        parts = dataset.build()
        if most := config["max_user_interactions"]:
            parts[0] = shortened(parts[0], most)
        data = {"interactions": parts[0].digest()}
        if added is not None:
            _extend(dataset, parts, added)
        with as_model_errors(config):
            model = config.model_class(config, parts[0])
        data |= data_of(parts[0]) if added is None else added.known_digests()
        refuse_other_data(path, state["data"], data, "use its own data")
        with fitting(path):
            model = _filled(model, path, state, config["device"], added)
    return TrainedModel(
        path, config, model, dataset, tuple(parts), state["provenance"], state["plain_state"]
    )


def with_items(trained: TrainedModel, added: NewItems) -> TrainedModel:
    """The model with new items, as :func:`load_trained` gives it; ``trained`` stays as it is.

    Nothing is read but the content of the new items: interactions and the content of the known
    items are shared, and weights are copied.

    Raises:
        UserError: The model cannot score the items, or their content cannot be used.
    """
    dataset, parts = copy.copy(trained.dataset), tuple(map(copy.copy, trained.parts))
    config, model = trained.config, trained.model
    _extend(dataset, parts, added)
    state = {
        "state_dict": to_plain(model.state_dict()),
        "other_parameter": to_plain(model.other_parameter()),
        "plain_state": trained.plain_state,
    }
    with quiet_recbole(), as_model_errors(config):
        made = config.model_class(config, parts[0])
    made = _filled(made, trained.path, state, config["device"], added)
    return replace(trained, model=made, dataset=dataset, parts=parts)


def _extend(dataset: Any, parts: tuple[Any, ...] | list[Any], added: NewItems) -> None:
    added.extend(dataset)
    for part in parts:
        part.field2id_token = dataset.field2id_token
        part.field2token_id = dataset.field2token_id
        part.content = dataset.content


def _filled(
    model: Any, path: Path, state: Mapping[str, Any], device: Any, added: NewItems | None
) -> Any:
    """A new model with the weights of a checkpoint, on its device and in eval mode."""
    built = PlainState(model)
    model = model.to(device).eval()
    weights = dict(state) if added is None else added.padded(state, model)
    load_weights(model, path, weights, device)
    built.restore(state["plain_state"], device)
    if added is not None:
        model.add_items(added.first)
    return model
