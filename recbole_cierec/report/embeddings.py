"""Vectors of users and items, and their map in the plane (t-SNE, as in the paper's Fig. 3)."""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from recbole.utils import ModelType, init_seed
from torch.nn import functional as F

from recbole_cierec.compat.warnings import quiet_recbole
from recbole_cierec.registry import stages_of
from recbole_cierec.report.blocks import Figure, Figures, Note, Section
from recbole_cierec.report.drawing import INK, MARKERS, SERIES, Drawing
from recbole_cierec.report.source import Source
from recbole_cierec.serving.export import vectors_of
from recbole_cierec.serving.ranking import users_per_block
from recbole_cierec.serving.trained import TrainedModel

USERS = 5
MOST_ITEMS = 60  # of a user
FEWEST_ITEMS = 4
NEAR = 5  # neighbours that the share below counts
EPS = 1e-9
PROBES = 128  # users whose scores describe an item where there are no vectors


@dataclass
class UnitVectors:
    """Row k belongs to internal number k; rows have unit length.

    Attributes:
        items: float32 [n_items, k].
        users: float32 [n_users, k]; None where the model is no inner product.
    """

    items: np.ndarray
    users: np.ndarray | None


def item_vectors(trained: TrainedModel, seed: int) -> UnitVectors:
    """The model's vectors, or, where its scores are no inner products, the scores of each item for
    PROBES users drawn by the seed, less the mean of each user."""
    found = vectors_of(trained)
    if found is not None:
        sides = (np.concatenate([np.zeros_like(x[:1]), x]) for x in (found.items, found.users))
        items, users = (_unit(side) for side in sides)
        return UnitVectors(items, users)
    known = np.flatnonzero(trained.trained_users)
    chosen = np.sort(np.random.default_rng([seed, 2]).permutation(known)[:PROBES])
    step = users_per_block(trained)
    blocks = [trained.scores(chosen[k : k + step]) for k in range(0, len(chosen), step)]
    scores = torch.cat(blocks)
    scores = (scores - scores[:, 1:].mean(1, keepdim=True)).float()
    return UnitVectors(_unit(scores.T.cpu().numpy()), None)


def _unit(rows: np.ndarray) -> np.ndarray:
    return F.normalize(torch.from_numpy(np.ascontiguousarray(rows)).float()).numpy()


def fresh(trained: TrainedModel) -> TrainedModel:
    """The same model before training: made again with the seed of the run."""
    config, data = trained.config, trained.parts[0]
    with quiet_recbole():
        init_seed(config["seed"], config["reproducibility"])
        model = config.model_class(config, data).to(config["device"]).eval()
    again = copy(trained)
    again.model = model
    return again


def five_users(source: Source) -> list[tuple[int, np.ndarray]]:
    """Users drawn by the seed and their items of all parts, each item with the first who has it."""
    trained = source.trained
    parts = [part.inter_feat for part in trained.parts]
    fields = trained.dataset.uid_field, trained.dataset.iid_field
    users, items = (np.concatenate([np.asarray(part[f]) for part in parts]) for f in fields)
    counts = np.bincount(users, minlength=len(trained.user_ids))
    enough = max(FEWEST_ITEMS, int(np.quantile(counts[counts > 0], 0.75)))
    pool = np.flatnonzero((counts >= enough) & trained.trained_users)
    taken: set[int] = set()
    found = []
    for user in np.random.default_rng([source.seed, 3]).permutation(pool)[:USERS].tolist():
        own = [i for i in np.unique(items[users == user]).tolist() if i not in taken][:MOST_ITEMS]
        taken.update(own)
        found.append((user, np.array(own, dtype=np.int64)))
    return [(user, own) for user, own in found if len(own)]


def purity(points: np.ndarray, owners: np.ndarray) -> float:
    """How many of an item's NEAR nearest items belong to the same user, on average (0 to 1).

    Args:
        points: Unit vectors [n, k].
        owners: The user of each [n].
    """
    near = min(NEAR, len(points) - 1)
    cosines = points @ points.T
    np.fill_diagonal(cosines, -np.inf)
    found = np.argsort(-cosines, axis=1, kind="stable")[:, :near]
    return float((owners[found] == owners[:, None]).mean())


def plane(points: np.ndarray, seed: int) -> np.ndarray:
    """t-SNE of unit vectors [n, k] to [n, 2]."""
    from sklearn.manifold import TSNE

    points = points.astype(np.float64)
    perplexity = min(30.0, max(1.0, (len(points) - 1) / 3))
    # Equal points (of Pop, for instance) have no principal component to start from.
    start = "pca" if points.std(0).max() > EPS else "random"
    tsne = TSNE(2, perplexity=perplexity, init=start, random_state=seed, n_jobs=1)
    return tsne.fit_transform(points)


def draw_map(
    name: str, title: str, vectors: UnitVectors, people: list[tuple[int, np.ndarray]], seed: int
) -> tuple[Figure, float]:
    """The map, and the share of :func:`purity`."""
    items = np.concatenate([own for _, own in people])
    owners = np.repeat(np.arange(len(people)), [len(own) for _, own in people])
    points = vectors.items[items]
    share = purity(points, owners)
    if vectors.users is not None:
        points = np.concatenate([points, vectors.users[[user for user, _ in people]]])
    places = plane(points, seed)
    with Drawing(name, title, (4.0, 3.6)) as drawing:
        for k in range(len(people)):
            x, y = places[: len(items)][owners == k].T
            drawing.axes.scatter(
                x, y, s=26, marker=MARKERS[k], color=SERIES[k], alpha=0.8, linewidths=0,
                label=f"user {k + 1}",
            )  # fmt: skip
            if vectors.users is not None:
                x, y = places[len(items) + k]
                drawing.axes.scatter(
                    x, y, s=150, marker="*", color=SERIES[k], edgecolors=INK, linewidths=0.9
                )
        drawing.axes.set(xticks=[], yticks=[])
        drawing.axes.grid(False)
        for side in drawing.axes.spines.values():
            side.set_visible(True)
        drawing.legend(5)
        drawing.caption = f"{share:.0%} of an item's {NEAR} nearest items are of the same user."
        drawing.alt = f"Map of {len(items)} items of {len(people)} users. {drawing.caption}"
    return drawing.made, share


def _lead(source: Source, people: list[tuple[int, np.ndarray]]) -> str:
    names = ", ".join(
        f"{k}: {source.trained.user_ids[user]} ({len(own)} items)"
        for k, (user, own) in enumerate(people, 1)
    )
    return (
        f"As in the paper's Fig. 3: item vectors of five users, drawn by the seed {source.seed} "
        "among the quarter with most interactions, in the plane by t-SNE; stars are the vectors of "
        f"users. An item of two users is drawn for the first. Users {names}. Distances between far "
        "groups mean nothing in such a map; the shares under the maps are computed with the "
        "vectors themselves."
    )


def _without_vectors(source: Source, vectors: UnitVectors) -> list[Note]:
    """What stands for the vectors of a model that is no inner product."""
    if vectors.users is not None:
        return []
    text = (
        f"{source.name} is no inner product of a user's and an item's vector, so there are no "
        f"stars, and an item's vector is its scores for {PROBES} users, less each user's mean."
    )
    return [Note(text)]


def map_section(source: Source, vectors: UnitVectors) -> Section:
    """Before training and after."""
    people = five_users(source)
    section = Section("map", "Map", "Items of five users", "")
    if sum(len(own) for _, own in people) < 3 * FEWEST_ITEMS:
        section.parts.append(Note("There are too few interactions for a map."))
        return section
    section.lead = _lead(source, people)
    section.parts += _without_vectors(source, vectors)
    moments = {"after": vectors}
    if source.trained.config["MODEL_TYPE"] == ModelType.TRADITIONAL:
        section.parts.append(
            Note(f"{source.name} has no parameters to start from before training.")
        )
    else:
        moments = {"before": item_vectors(fresh(source.trained), source.seed), **moments}
    figures = [
        draw_map(f"map-{when}", f"{source.name}, {when} training", each, people, source.seed)[0]
        for when, each in moments.items()
    ]
    section.parts.append(Figures(figures))
    if stages_of(source.trained.config.model_class):
        section.parts.append(
            Note(
                "Before training means freshly initialised with the seed of the run, before the "
                "weights of the model that this one starts from are loaded."
            )
        )
    return section


def two_maps(sources: tuple[Source, Source], vectors: tuple[UnitVectors, UnitVectors]) -> Section:
    """Two models side by side."""
    people = five_users(sources[0])
    section = Section("map", "Map", "Items of five users", _lead(sources[0], people))
    for source, each in zip(sources, vectors, strict=True):
        section.parts += _without_vectors(source, each)
    figures = [
        draw_map(f"map-{letter}", f"{letter}: {source.name}", each, people, source.seed)[0]
        for letter, source, each in zip("AB", sources, vectors, strict=True)
    ]
    section.parts.append(Figures(figures))
    return section
