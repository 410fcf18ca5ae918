"""Work-arounds for models of RecBole.

Most are for scipy: seven models build their adjacency matrix through
``scipy.sparse.dok_matrix._update``, a private method that scipy 1.13 dropped (AttributeError):
lightgcn.py:111, ngcf.py:110, ncl.py:131, gcmc.py:174, spectralcf.py:123 under
recbole/model/general_recommender; kgin.py:356, mcclk.py:425 under
recbole/model/knowledge_aware_recommender. Each gets a subclass that replaces this one
method and yields the same matrix, with the entries in the same order, so results do not change.

Goes when: RecBole builds these matrices in another way.
"""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import scipy.sparse as sp
import torch

from recbole_cierec.errors import CheckpointError, ConfigError, DataError
from recbole_cierec.files.checkpoint import read_checkpoint

if TYPE_CHECKING:  # RecBole has no types: attributes of its models are Any
    from recbole.model.abstract_recommender import AbstractRecommender
else:
    AbstractRecommender = object


class _ModelPatch(AbstractRecommender):
    """Mixed in before a model class of RecBole.

    Attributes:
        hook: The method that it replaces; empty: it is needed whatever the model replaces.
    """

    hook = ""


def _bipartite(interactions: sp.coo_matrix, n_users: int, n_others: int) -> sp.csr_matrix:
    """Return the graph of users and items, float32 [n_users + n_others] squared, 0 or 1.

    Args:
        interactions: [n_users, at most n_others], with duplicates and any values.
        n_users: Number of users; their rows come first.
        n_others: Number of items or entities.
    """
    users, others = interactions.row, interactions.col + n_users
    rows, columns = np.concatenate([users, others]), np.concatenate([others, users])
    size = n_users + n_others
    # Keep each edge where it first appears, unsorted, as RecBole does: sums over neighbours are
    # equal to the last bit only in the same order.
    _, first = np.unique(rows.astype(np.int64) * size + columns, return_index=True)
    first.sort()
    places = rows[first], columns[first]
    graph = sp.coo_matrix((np.ones(len(first), np.float32), places), shape=(size, size))
    graph.has_canonical_format = True  # no duplicates: keeps tocsr() from sorting
    return graph.tocsr()


def _to_tensor(matrix: sp.spmatrix) -> torch.Tensor:
    """Return a float32 sparse COO tensor with the entries in the order of the matrix."""
    matrix = matrix.tocoo()
    places = torch.from_numpy(np.stack([matrix.row, matrix.col]).astype(np.int64))
    values = torch.from_numpy(matrix.data.astype(np.float32))
    return torch.sparse_coo_tensor(places, values, matrix.shape, check_invariants=False)


class _SymmetricMatrix(_ModelPatch):
    """LightGCN, NGCF, NCL, GCMC: D^-1/2 A D^-1/2, with RecBole's 1e-7 added to the degrees."""

    hook = "get_norm_adj_mat"

    def get_norm_adj_mat(self) -> torch.Tensor:
        graph = _bipartite(self.interaction_matrix, self.n_users, self.n_items)
        scale = np.power(np.diff(graph.indptr) + 1e-7, -0.5)
        scaling = sp.diags(scale)
        return _to_tensor(scaling @ graph @ scaling)


class _Laplacian(_ModelPatch):
    """SpectralCF: I - D^-1 A, with RecBole's 1e-7 added to the degrees."""

    hook = "get_laplacian_matrix"

    def get_laplacian_matrix(self) -> torch.Tensor:
        graph = _bipartite(self.interaction_matrix, self.n_users, self.n_items)
        scaling = sp.diags(np.power(np.diff(graph.indptr) + 1e-7, -1))
        return self.get_eye_mat(self.n_users + self.n_items) - _to_tensor(scaling @ graph)


class _KnowledgeMatrix(_ModelPatch):
    """KGIN, MCCLK: D^-1/2 A D^-1/2 ("bi") or D^-1 A ("si") over users and entities."""

    hook = "get_norm_inter_matrix"

    def get_norm_inter_matrix(self, mode: str = "bi") -> tuple[torch.Tensor, torch.Tensor]:
        if mode not in ("bi", "si"):
            raise NotImplementedError(f"Normalize mode [{mode}] has not been implemented.")
        graph = _bipartite(self.inter_matrix, self.n_users, self.n_entities)
        degrees = np.diff(graph.indptr).astype(np.float32)
        scale = np.zeros_like(degrees)
        np.power(degrees, -0.5 if mode == "bi" else -1.0, out=scale, where=degrees > 0)
        scaled = sp.diags(scale) @ graph
        if mode == "bi":
            scaled = scaled @ sp.diags(scale)
        between = scaled.tocoo().tocsr()[: self.n_users, self.n_users :]
        return _to_tensor(between).to(self.device), _to_tensor(scaled).to(self.device)


class _UsersLeft(_ModelPatch):
    """LINE: stop where its draws would never end.

    Reason: general_recommender/line.py:83 draws users until one lacks the item, even if every user
    has it.

    Goes when: RecBole checks before it draws.
    """

    hook = "get_used_ids"

    def get_used_ids(self) -> np.ndarray:
        used = super().get_used_ids()
        full = sum(len(users) >= self.n_users - 1 for users in used)
        if full:
            raise DataError(
                f"LINE draws users who lack an item, and all users have {full} item(s); "
                "drop these by item_inter_num_interval"
            )
        return used


class _Counts(_ModelPatch):
    """Pop: the popularity of an item is its number of training interactions.

    Reason: general_recommender/pop.py:39 adds 1 to ``item_cnt[item]``, which counts an item once a
    batch however often it is there, and counts the batch's negatives as well. On small data all
    items are then equally popular.

    Goes when: RecBole counts positives.
    """

    hook = "calculate_loss"

    def __init__(self, config: Any, dataset: Any) -> None:
        super().__init__(config, dataset)
        # Here, and not by batch: each of several processes has a share of a batch only.
        items, label = dataset.inter_feat[self.ITEM_ID], config["LABEL_FIELD"]
        if label in dataset.inter_feat:
            items = items[dataset.inter_feat[label] > 0]
        counts = torch.bincount(items, minlength=self.n_items)
        self.item_cnt = counts.unsqueeze(1).to(self.device)
        self.max_cnt = counts.max().unsqueeze(0).to(self.device)

    def calculate_loss(self, interaction: Any) -> torch.Tensor:
        return torch.zeros((), device=self.device, requires_grad=True)


class _Staged(_ModelPatch):
    """S3Rec, RaCT: each stage starts from a checkpoint of the previous one.

    Reason: sequential_recommender/s3rec.py:120 and general_recommender/ract.py:75, 84 load
    ``pre_model_path`` unchecked, and ract.py:76, 85 log an argument without a place in the message,
    for which the logging module prints a traceback.

    Goes when: RecBole fixes its message; the checks stay ours.
    """

    def __init__(self, config: Any, dataset: Any) -> None:
        name, stage = config["model"], config["train_stage"]
        first, *later = STAGES[name]
        if stage not in STAGES[name]:
            known = ", ".join(STAGES[name])
            raise ConfigError(f"train_stage: of {name} must be one of {known}, not '{stage}'")
        if stage in later:
            _check_pretrained(config, dataset, first)
        super().__init__(config, dataset)

    @property
    def logger(self) -> logging.LoggerAdapter:
        return _JoiningLogger(logging.getLogger(), {})

    @logger.setter
    def logger(self, value: logging.Logger) -> None:
        """RecBole sets the root logger, which the getter returns anyway."""


class _JoiningLogger(logging.LoggerAdapter):
    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        super().info(" ".join(map(str, (msg, *args))), **kwargs)


def _check_pretrained(config: Any, dataset: Any, first: str) -> None:
    name, path = config["model"], config["pre_model_path"]
    if not path:
        raise ConfigError(
            f"pre_model_path: train_stage {config['train_stage']} of {name} starts from the "
            f"checkpoint of a run with an earlier train_stage (first: {first}); set it to that file"
        )
    state = read_checkpoint(Path(path))
    if state["model"] != name:
        raise CheckpointError(f"{path}: holds model {state['model']}, and {name} starts from it")
    digest = getattr(dataset, "digest", None)
    if digest is not None and state["data"].get("interactions") != digest():
        raise CheckpointError(
            f"{path}: was trained on other data or another split than this run's; "
            "pretrain it on the same"
        )


_GENERAL = "recbole.model.general_recommender"
_KNOWLEDGE = "recbole.model.knowledge_aware_recommender"
STAGES = {  # in order, of RecBole's models that separate runs pretrain
    "S3Rec": ("pretrain", "finetune"),
    "RaCT": ("actor_pretrain", "critic_pretrain", "finetune"),
}

# (module, class) of RecBole -> its patch, with any packages
LASTING_PATCHES: dict[tuple[str, str], type[_ModelPatch]] = {
    (f"{_GENERAL}.line", "LINE"): _UsersLeft,
    (f"{_GENERAL}.pop", "Pop"): _Counts,
    (f"{_GENERAL}.ract", "RaCT"): _Staged,
    ("recbole.model.sequential_recommender.s3rec", "S3Rec"): _Staged,
}
# (module, class) of RecBole -> its patch where scipy is too new
MODEL_PATCHES: dict[tuple[str, str], type[_ModelPatch]] = {
    (f"{_GENERAL}.lightgcn", "LightGCN"): _SymmetricMatrix,
    (f"{_GENERAL}.ngcf", "NGCF"): _SymmetricMatrix,
    (f"{_GENERAL}.ncl", "NCL"): _SymmetricMatrix,
    (f"{_GENERAL}.gcmc", "GCMC"): _SymmetricMatrix,
    (f"{_GENERAL}.spectralcf", "SpectralCF"): _Laplacian,
    (f"{_KNOWLEDGE}.kgin", "KGIN"): _KnowledgeMatrix,
    (f"{_KNOWLEDGE}.mcclk", "MCCLK"): _KnowledgeMatrix,
}


@functools.cache
def patch_model(model_class: type) -> type:
    """Return a model class that runs with the installed packages.

    Args:
        model_class: Any model class.

    Returns:
        A subclass of the same name if the class needs a patch, else the class itself. The same
        class each time.
    """
    patches = (
        LASTING_PATCHES
        if hasattr(sp.dok_matrix, "_update")
        else {**MODEL_PATCHES, **LASTING_PATCHES}
    )
    for base in model_class.__mro__:
        patch = patches.get((base.__module__, base.__name__))
        if patch is not None:
            if patch in model_class.__mro__:
                return model_class
            # A user's subclass may have replaced the method that is broken.
            if patch.hook and getattr(model_class, patch.hook) is not getattr(base, patch.hook):
                return model_class
            names = {"__module__": model_class.__module__, "__qualname__": model_class.__qualname__}
            return type(model_class.__name__, (patch, model_class), names)
    return model_class
