"""What the API answers, as plain data, from one trained model; no web framework is needed here.

Everything that computes with torch is called by one thread (see
:mod:`recbole_cierec.serving.web.batches`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.data.interaction import Interaction

from recbole_cierec.errors import CheckpointError, PictureError, UserError
from recbole_cierec.serving.audience import audience, nearest_items
from recbole_cierec.serving.new_items import (
    BY_ANNOTATIONS,
    BY_PICTURE,
    NewItems,
    reads_of,
)
from recbole_cierec.serving.ranking import ranked_blocks
from recbole_cierec.serving.recommend import TRAINED, UNKNOWN, UNTRAINED
from recbole_cierec.serving.similar import Neighbours
from recbole_cierec.serving.trained import TrainedModel, with_items
from recbole_cierec.serving.web.catalogue import Catalogue
from recbole_cierec.serving.web.refusal import Refusal
from recbole_cierec.vision.item_pictures import pictures_of

PERSONAL, SHARED, POPULAR = "personal", "shared", "popular"  # kinds of lists
BY_CONTENT, BY_POPULARITY = "content", "popularity"  # what a score comes from, besides the model
# Of CIERec's maps of items: to rank one user, reading larger ones takes longer than they save.
MAPS_BYTES = 32 * 2**20
BATCH_USERS, FEW_USERS = 256, 4  # of a call, so that short requests need not wait long
HISTORY = 60  # newest items of a user
OFFERED = "the item offered"


@dataclass(frozen=True)
class ListRequest:
    """Lists that one request asks for."""

    users: Sequence[str]
    topk: int
    with_seen: bool = False
    history: bool = False


def _lean(trained: TrainedModel) -> TrainedModel:
    if hasattr(trained.model, "maps_bytes"):
        trained.model.maps_bytes = MAPS_BYTES
    return trained


class ServedModel:
    """Answers of one model.

    Args:
        name: By which requests name it.
        trained: The model.
    """

    def __init__(self, name: str, trained: TrainedModel) -> None:
        self.name, self.trained = name, _lean(trained)
        self.catalogue, self.neighbours = Catalogue(trained), Neighbours(trained)
        counts = trained.popularity.copy()
        counts[0] = -1  # the padding
        self._popular = np.argsort(-counts, kind="stable")[:-1]

    def warm_up(self) -> None:
        """Rank for one user, which computes the side of the items.

        Raises:
            CheckpointError: The model's scores are no numbers.
        """
        user = self.trained.user_ids[np.flatnonzero(self.trained.trained_users)[0]]
        self.recommend([ListRequest([str(user)], 1)])
        self.catalogue.users("", 1)
        pictures = self.trained.dataset.content.pictures
        if pictures is not None:
            pictures.forget_raw()

    @property
    def batch_users(self) -> int:
        """How many users are best ranked together: where each pair of a user and an item has a
        vector, those of few users stay in the processor's cache."""
        return FEW_USERS if getattr(self.trained.model, "pair_width", 0) else BATCH_USERS

    def described(self) -> dict[str, Any]:
        """The model in a few words."""
        trained = self.trained
        return {
            "name": self.name,
            "model": trained.name,
            "dataset": str(trained.config["dataset"]),
            "users": len(trained.user_ids) - 1,
            "items": len(trained.item_ids) - 1,
            "interactions": int(trained.popularity.sum()),
            "new_items": self._reads(),
        }

    def _reads(self) -> list[str]:
        """What scores new items: ``picture``, ``annotations``, both or nothing."""
        reads = reads_of(self.trained.config)
        if BY_PICTURE in reads and self._given_pictures:
            return []  # nothing says which network would make features of new pictures
        return reads

    @property
    def _given_pictures(self) -> bool:
        return pictures_of(self.trained.dataset.content).given is not None

    # ------------------------------------------------------------------------------ lists

    def recommend(self, requests: Sequence[ListRequest]) -> list[list[dict[str, Any]]]:
        """The lists of several requests, which are ranked together."""
        found: list[dict[str, dict[str, Any]]] = [{} for _ in requests]
        for with_seen in {request.with_seen for request in requests}:
            rows = [
                (k, user, number)
                for k, request in enumerate(requests)
                if request.with_seen is with_seen
                for user, number in zip(
                    request.users, self.trained.numbers_of("user", list(request.users)), strict=True
                )
            ]
            known = [row for row in rows if row[2] > 0]
            lists = self._ranked(known, max(request.topk for request in requests), with_seen)
            for (k, user, number), (items, scores) in zip(known, lists, strict=True):
                most = requests[k].topk
                found[k][user] = self._list(user, int(number), items[:most], scores[:most])
            for k, user, _ in (row for row in rows if row[2] < 0):
                items = self._popular[: requests[k].topk]
                found[k][user] = self._list(user, 0, items, self.trained.popularity[items])
        for request, answers in zip(requests, found, strict=True):
            if request.history:
                self._add_history(answers)
        return [[found[k][user] for user in request.users] for k, request in enumerate(requests)]

    def _ranked(
        self, rows: list[tuple[int, str, int]], topk: int, with_seen: bool
    ) -> list[tuple[np.ndarray, np.ndarray]]:
        users = np.array([number for _, _, number in rows], dtype=np.int64)
        blocks = ranked_blocks(self.trained, users, topk, hide_seen=not with_seen)
        return [pair for b in blocks for pair in zip(b.items, b.scores, strict=True)]

    def _list(
        self, user: str, number: int, items: np.ndarray, scores: np.ndarray
    ) -> dict[str, Any]:
        trained = self.trained
        known = bool(trained.trained_users[number])
        kind = PERSONAL if known else SHARED if number and trained.ranks_unseen_users else POPULAR
        status = TRAINED if known else UNTRAINED if number else UNKNOWN
        return {
            "user": user,
            "user_status": status,
            "list": kind,
            "items": self._ranks(items, scores),
        }

    def _ranks(self, items: np.ndarray, scores: np.ndarray) -> list[dict[str, Any]]:
        return [
            {"rank": rank, "score": score, **self.catalogue.describe(item)}
            for rank, (item, score) in enumerate(
                zip(items.tolist(), np.asarray(scores, np.float64).tolist(), strict=True), 1
            )
            if item > 0
        ]

    def _add_history(self, lists: dict[str, dict[str, Any]]) -> None:
        numbers = self.trained.numbers_of("user", list(lists))
        for answer, number in zip(lists.values(), numbers.tolist(), strict=True):
            items, total = self.catalogue.history(max(number, 0), HISTORY)
            answer["history"] = [self.catalogue.describe(item) for item in items]
            answer["history_total"] = total

    # ----------------------------------------------------------------------------- scores

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Scores of pairs of a user and an item.

        Raises:
            Refusal: An item is unknown to the model, and NAME.item has no content of it that the
                model reads.
        """
        users = np.maximum(self.trained.numbers_of("user", [u for u, _ in pairs]), 0)
        items = self.trained.numbers_of("item", [i for _, i in pairs])
        scorer, unknown = self.trained, items < 0
        if unknown.any():
            scorer, items = self._with_unknown(pairs, items)
        values = self._values(scorer, users, items)
        popular = self._by_popularity(users)
        values[popular] = np.append(self.trained.popularity, 0)[
            np.minimum(items[popular], len(self.trained.popularity))
        ]
        answers = []
        for k, (user, item) in enumerate(pairs):
            by = BY_POPULARITY if popular[k] else BY_CONTENT if unknown[k] else "model"
            answers.append({"user": user, "item": item, "score": float(values[k]), "by": by})
        return answers

    def _by_popularity(self, users: np.ndarray) -> np.ndarray:
        trained = self.trained
        without = ~trained.trained_users[users]
        return without if not trained.ranks_unseen_users else users == 0

    def _values(self, scorer: TrainedModel, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        device, data = scorer.config["device"], scorer.dataset
        sides = {data.uid_field: users, data.iid_field: items}
        pairs = {field: torch.from_numpy(ids).to(device) for field, ids in sides.items()}
        with torch.no_grad():
            values = scorer.model.predict(Interaction(pairs)).view(-1).double().cpu().numpy().copy()
        if not np.isfinite(values).all():
            raise CheckpointError(f"{scorer.name} gives scores that are no numbers")
        return values

    def _with_unknown(
        self, pairs: Sequence[tuple[str, str]], items: np.ndarray
    ) -> tuple[TrainedModel, np.ndarray]:
        asked = zip(pairs, items, strict=True)
        names = list(dict.fromkeys(item for (_, item), number in asked if number < 0))
        rows = [self._row(name) for name in names]
        columns = {name: [row.get(name, "") for row in rows] for name in rows[0]}
        scorer = self._extended(NewItems(Path(self.catalogue.folder) / "NAME.item", names, columns))
        return scorer, scorer.numbers_of("item", [item for _, item in pairs])

    def _row(self, item: str) -> dict[str, str]:
        """The content of an item that the model does not know, from NAME.item."""
        row = self.catalogue.unlisted(item)
        if row is None:
            raise Refusal(
                404,
                f"item '{item}' is neither in the model's data nor in NAME.item",
                "check the id, or send the item's picture or annotations to /api/new_item",
            )
        config = self.trained.config
        path = row.get(config["image_path_field"], "")
        tokens = self.catalogue.split(row.get(config["annotations_field"], ""))
        self._refuse_unread(bool(path), tokens)
        if path:
            try:
                self.catalogue.check_path(path)
            except PictureError as error:
                raise Refusal(
                    422,
                    f"the picture of item '{item}' cannot be used: {error.reason}",
                    "correct the row in NAME.item, or send a picture to /api/new_item",
                ) from error
        return row

    # ------------------------------------------------------------------------------ items

    def number_of(self, item: str) -> int:
        """The internal number of an item.

        Raises:
            Refusal: The model does not know it.
        """
        number = int(self.trained.numbers_of("item", [item])[0])
        if number < 0:
            raise Refusal(
                404,
                f"item '{item}' is not in the model's data",
                "check the id, or send the item's picture or annotations to /api/new_item",
            )
        return number

    def similar(self, item: str, by: str, topk: int) -> dict[str, Any]:
        """Known items that are like a known one."""
        number = self.number_of(item)
        values, numbers = self.neighbours.nearest(number, by, topk)
        return {
            "of": self.catalogue.describe(number),
            "by": by,
            "items": self._ranks(numbers, values),
        }

    def new_item(
        self, picture: Path | None, annotations: str, topk: int, neighbours: int
    ) -> dict[str, Any]:
        """Who would like an item that the model does not know, and which known items are near.

        Args:
            picture: Its file, which is read as a picture of any name.
            annotations: Tokens, separated as in NAME.item.
        """
        tokens = self.catalogue.split(annotations)
        ignored = self._refuse_unread(picture is not None, tokens)
        if BY_PICTURE not in self._reads():
            picture = None
        added = NewItems(
            picture or Path(OFFERED),
            [self._free_id()],
            {"": [picture.name if picture else ""]}
            | {self.trained.config["annotations_field"]: [annotations]},
        )
        scorer = self._extended(added)
        users = np.flatnonzero(self.trained.trained_users)
        best = audience(scorer, users, added, topk, lambda done: None)
        assert best is not None  # noqa: S101  # one process
        if picture is None:
            values, numbers = self.neighbours.nearest_to_words(tokens, neighbours)
        else:
            values, numbers = (found[0] for found in nearest_items(scorer, added, neighbours))
        return {
            "reads": self._reads(),
            "ignored": ignored,
            "users": [
                {"rank": rank, "user": str(self.trained.user_ids[n]), "score": float(v)}
                for rank, (v, n) in enumerate(zip(best[0][0], best[1][0], strict=True), 1)
            ],
            "nearest": self._ranks(numbers, values),
            "nearest_by": BY_ANNOTATIONS if picture is None else BY_PICTURE,
        }

    def _extended(self, added: NewItems) -> TrainedModel:
        try:
            return _lean(with_items(self.trained, added))
        except UserError as error:
            reason = getattr(error, "reason", None)
            what = f"the picture cannot be used: {reason}" if reason else str(error)
            raise Refusal(422, what, "send another picture, or annotations alone") from error

    def _free_id(self) -> str:
        known = self.trained.dataset.field2token_id[self.trained.dataset.iid_field]
        name = OFFERED
        while name in known:
            name += "'"
        return name

    def _refuse_unread(self, picture: bool, tokens: list[str]) -> list[str]:
        """Refuse an item of which the model reads nothing; returns tokens that it ignores."""
        reads, name = self._reads(), self.trained.name
        if not reads:
            why = "does not score items by their content"
            if getattr(self.trained.model, "unseen_items", ""):
                why = "was trained on given features, so new pictures have none"
            raise Refusal(
                409,
                f"{name} {why}, so it has nothing for new items",
                "serve a model that scores unseen items: docs/models/index.md names them",
            )
        vocabulary = frozenset(self.trained.dataset.content.token_names) if tokens else ()
        known = [t for t in tokens if t in vocabulary]
        if not (picture and BY_PICTURE in reads) and not (known and BY_ANNOTATIONS in reads):
            unknown = ", none of them known" if tokens and not known else ""
            raise Refusal(
                422,
                f"{name} scores new items by {' and '.join(reads)}; the item has "
                f"{'a' if picture else 'no'} picture and {len(tokens)} annotations{unknown}",
                f"send {' or '.join(reads)} that the model can read",
            )
        return tokens if BY_ANNOTATIONS not in reads else [t for t in tokens if t not in vocabulary]
