"""Lists of items for users, and users for new items, from a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_cierec.config.paths import given_path
from recbole_cierec.distributed.launch import launch
from recbole_cierec.distributed.world import wait_for_all, world
from recbole_cierec.errors import ConfigError
from recbole_cierec.files.atomic_write import check_output
from recbole_cierec.serving.audience import audience, nearest_items
from recbole_cierec.serving.new_items import NewItems
from recbole_cierec.serving.ranking import Lists, ranked_blocks
from recbole_cierec.serving.requests import filtered_items, listed_items, read_ids
from recbole_cierec.serving.tables import Write, check_format, writing
from recbole_cierec.serving.trained import PADDING, TrainedModel, load_trained

Path_ = str | os.PathLike[str]
EVERYONE = "all"
TRAINED, UNTRAINED, UNKNOWN = "trained", "no training interaction", "unknown"


@dataclass
class Request:
    """What was asked for; see :func:`recommend`."""

    checkpoint: Path
    users: list[str] | None
    topk: int
    out: Path | None
    items: Path | None
    where: str | None
    with_seen: bool
    new_items: Path | None
    new_features: Path | None
    neighbours: int
    source: str  # of the users, for messages


def recommend(
    checkpoint: Path_,
    users: str | Path_ | Sequence[str] = EVERYONE,
    topk: int = 20,
    out: Path_ | None = None,
    *,
    items: Path_ | None = None,
    where: str | None = None,
    with_seen: bool = False,
    new_items: Path_ | None = None,
    new_features: Path_ | None = None,
    neighbours: int = 10,
    config_dict: Mapping[str, Any] | None = None,
    cmd_line: Mapping[str, str] | None = None,
    nproc: int = 1,
) -> pd.DataFrame | Path | None:
    """Rank items for users, or users for new items; scores are those of ``full_sort_predict``.

    A row of the result is a place in a list: ``user``, ``user_status``, ``rank``, ``item`` and
    ``score``. Users without training interactions share one list; ``user_status`` marks them, and
    ids that the model does not know. With ``new_items`` a row is ``new_item``, ``kind`` (``user``:
    the users with the highest scores; ``item``: the nearest known items, by cosine), ``rank``,
    ``id`` and ``score``.

    Args:
        checkpoint: The model; its data set's files are not needed, pictures or features are.
        users: ``all``, a file with one id a line, or ids.
        topk: Length of a list.
        out: A file that ends in .csv, .jsonl or .parquet; None: the table is returned.
        items: A file with the ids to choose from, one a line.
        where: Conditions on columns of NAME.item, ``color=red & price<20``.
        with_seen: Keep items that the user has in training or validation.
        new_items: A CSV file with the columns of NAME.item, or a picture.
        new_features: Features of the new items (.npy), where the model has read ``features_file``.
        neighbours: Nearest known items of each new one.
        config_dict: Keys over those of the run, as ``data_path``.
        cmd_line: Flags over these, as texts.
        nproc: Processes on this machine; under torchrun, its processes are used instead.

    Returns:
        The table or ``out``; None in all but the first process.

    Raises:
        UserError: For any input that the user can correct.
    """
    ids, source = _asked(users)
    request = Request(
        checkpoint=given_path("checkpoint", checkpoint),
        users=ids,
        topk=topk,
        out=_path(out),
        items=_path(items),
        where=where,
        with_seen=with_seen,
        new_items=_path(new_items),
        new_features=_path(new_features),
        neighbours=neighbours,
        source=source,
    )
    _check(request)
    arguments = {
        "request": request,
        "config_dict": dict(config_dict or {}),
        "cmd_line": dict(cmd_line or {}),
    }
    return launch(recommend_one, arguments, nproc, -1, "localhost", "5678", 0)


def _check(request: Request) -> None:
    """Refuse what cannot be answered, before anything is read."""
    for name, value, low in (("topk", request.topk, 1), ("neighbours", request.neighbours, 0)):
        if value < low:
            raise ConfigError(f"{name} must be {low} or more, not {value}")
    if request.new_items and (request.items or request.where):
        raise ConfigError("new_items: the users of new items do not depend on items or where")
    if request.new_features and not request.new_items:
        raise ConfigError("new_features belongs to new_items, which is not given")
    if request.out is not None:
        check_format(request.out)
        read = (request.checkpoint, _path(request.source or None), request.items)
        check_output(request.out, inputs=(*read, request.new_items, request.new_features))


def _asked(users: str | Path_ | Sequence[str]) -> tuple[list[str] | None, str]:
    """The ids of the users, None for all, and where they were given."""
    if isinstance(users, list | tuple | np.ndarray):
        return list(dict.fromkeys(map(str, users))), "users"
    if str(users) == EVERYONE:
        return None, ""
    source = os.fspath(users)  # type: ignore[arg-type]
    return read_ids(Path(source)), source


def _path(path: Path_ | None) -> Path | None:
    return None if path is None else Path(path)


def recommend_one(
    request: Request, config_dict: Mapping[str, Any], cmd_line: Mapping[str, str]
) -> pd.DataFrame | Path | None:
    """The part of one process."""
    added = None
    if request.new_items is not None:
        added = NewItems.read(request.new_items, request.new_features)
    trained = load_trained(request.checkpoint, config_dict, cmd_line, added)
    tables = _lists(trained, request) if added is None else _of_new_items(trained, request, added)
    if world()[0]:
        for _ in tables:  # nothing comes here, but its share is computed
            pass
        wait_for_all()
        return None
    kept: list[pd.DataFrame] = []
    write: Write
    context = nullcontext(kept.append) if request.out is None else writing(request.out)
    with context as write:
        for table in tables:
            write(table)
    wait_for_all()
    return pd.concat(kept, ignore_index=True) if request.out is None else request.out


def _users(trained: TrainedModel, request: Request) -> tuple[np.ndarray, np.ndarray]:
    """Internal numbers [U], 0 for unknown ids, and external ids [U]."""
    if request.users is None:
        numbers = np.arange(1, len(trained.user_ids))
        return numbers, trained.user_ids[1:]
    numbers = trained.numbers_of("user", request.users)
    unknown = np.flatnonzero(numbers < 0)
    if len(unknown) and world()[0] == 0:
        getLogger().warning(
            f"{request.source}: {len(unknown)} of {len(numbers)} users are not in the model's "
            f"data, the first is '{request.users[unknown[0]]}'; they get the list of users without "
            "training interactions"
        )
    return np.where(numbers < 0, PADDING, numbers), np.array(request.users)


def _lists(trained: TrainedModel, request: Request) -> Iterator[pd.DataFrame]:
    users, names = _users(trained, request)
    untrained = int((~trained.trained_users[users]).sum())
    if untrained and world()[0] == 0:
        kind = "one list" if trained.ranks_unseen_users else "the most popular items"
        getLogger().warning(
            f"{untrained} of {len(users)} users have no training interaction; {trained.name} gives "
            f"them {kind}"
        )
    candidates = None
    if request.items is not None:
        candidates = listed_items(trained, request.items)
    if request.where is not None:
        chosen = filtered_items(trained, request.where)
        candidates = chosen if candidates is None else np.intersect1d(candidates, chosen)
        if not len(candidates):
            raise ConfigError("no item is both in --items and in what --where selects")
    status = np.where(trained.trained_users[users], TRAINED, UNTRAINED).astype(object)
    status[users == PADDING] = UNKNOWN
    blocks = ranked_blocks(trained, users, request.topk, candidates, not request.with_seen)
    if not len(users):  # the columns of a table without a row
        none = np.empty((0, 0), dtype=np.float32)
        blocks = iter([Lists(users, none.astype(np.int64), none)])
    with _bar(trained, len(users)) as bar:
        for lists in blocks:
            yield _table(lists, names, status, trained.item_ids)
            bar.update(len(lists.rows))


def _bar(trained: TrainedModel, total: int) -> Any:
    shown = None if trained.config["show_progress"] and world()[0] == 0 else True
    return tqdm(total=total, desc="Recommend", unit="user", disable=shown)


def _table(
    lists: Lists, names: np.ndarray, status: np.ndarray, item_ids: np.ndarray
) -> pd.DataFrame:
    rows, places = np.nonzero(lists.items >= 0)
    users = lists.rows[rows]
    return pd.DataFrame(
        {
            "user": names[users].astype(object),
            "user_status": status[users],
            "rank": (places + 1).astype(np.int32),
            "item": item_ids[lists.items[rows, places]].astype(object),
            "score": lists.scores[rows, places],
        }
    )


def _of_new_items(
    trained: TrainedModel, request: Request, added: NewItems
) -> Iterator[pd.DataFrame]:
    users, _ = _users(trained, request)
    users = np.unique(users[trained.trained_users[users]])
    with _bar(trained, len(users)) as bar:
        best = audience(trained, users, added, request.topk, bar.update)
    if best is None:
        return
    near = nearest_items(trained, added, request.neighbours)
    kinds = (("user", trained.user_ids, best), ("item", trained.item_ids, near))
    for row, name in enumerate(added.ids):
        for kind, ids, (values, numbers) in kinds:
            found = numbers[row][numbers[row] >= 0]
            yield pd.DataFrame(
                {
                    "new_item": name,
                    "kind": kind,
                    "rank": np.arange(1, len(found) + 1, dtype=np.int32),
                    "id": ids[found].astype(object),
                    "score": values[row][: len(found)],
                }
            )
