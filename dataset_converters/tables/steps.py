"""The steps that all converters share: numbering of ids, filters, annotations.

A converter fills ``interactions(user_id, item_id, rating, timestamp[, split])``, in the order of
its files, and ``items(item_id, title, annotations, image, image_url[, feature_row])``. The steps
make of them

* ``users(u, user_id)`` and ``catalogue(i, item_id, line)``; line is the item's row in ``items``,
* ``work(row, u, i, rating, timestamp, split)`` with integers instead of texts: 20 million rows
  take some 500 MB,
* ``tokens(i, annotations)``, the cells of NAME.item.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

from recbole_cierec.errors import ConfigError, DataError

from .sql import quote
from .tokens import clean_text, label_token
from .workspace import Workspace


@dataclass(frozen=True)
class Count:
    """What remains after a step."""

    step: str
    interactions: int
    users: int
    items: int


class Steps:
    """Applies the shared steps and counts what remains after each.

    Args:
        space: The workspace, with the two tables of a converter.
        options: The shared options.

    Attributes:
        counts: One entry per step.
        has: Which of rating, timestamp and split the data have.
        elements: Number of distinct annotation tokens.
    """

    def __init__(self, space: Workspace, options: argparse.Namespace) -> None:
        self.space, self.options = space, options
        self.counts: list[Count] = []
        self.has: dict[str, bool] = {}
        self.elements = 0
        self._splits: set[str] = set()

    def run(self) -> None:
        """Apply all of them.

        Raises:
            DataError: No interaction remains.
        """
        self._number()
        self._filter_times()
        self._drop_duplicates()
        if self.options.min_rating is not None:
            if not self.has["rating"]:
                raise DataError("--min-rating: these data have no ratings")
            self._keep("minimum rating", f"rating >= {self.options.min_rating!r}")
        self._filter_items()
        if self.options.sample_users:
            self._sample()
        self._core()
        if not self.counts[-1].interactions:
            most = next(c.step for c in self.counts if not c.interactions)
            raise DataError(f"no interaction remains after the step '{most}'; loosen its option")
        self._refuse_empty_parts()
        self._annotate()

    def _number(self) -> None:
        run, value = self.space.run, self.space.value
        if not value("SELECT count(*) FROM interactions"):
            raise DataError("the input holds no interaction")
        known = {row[0] for row in run("DESCRIBE interactions").fetchall()}
        for key in ("rating", "timestamp", "split"):
            some = key in known and value(f"SELECT count({key}) FROM interactions")
            self.has[key] = bool(some)
        run(
            "CREATE TABLE users AS SELECT CAST(row_number() OVER () AS INTEGER) AS u, user_id "
            "FROM (SELECT DISTINCT user_id FROM interactions)",
            "users",
        )
        run(
            "CREATE TABLE catalogue AS SELECT CAST(row_number() OVER () AS INTEGER) AS i, item_id, "
            "min(line) AS line FROM (SELECT item_id, rowid AS line FROM items UNION ALL "
            "SELECT DISTINCT item_id, NULL FROM interactions) GROUP BY item_id",
            "items",
        )
        split = "split" if self.has["split"] else "CAST(NULL AS VARCHAR) AS split"
        run(
            f"CREATE TABLE work AS SELECT n.rowid AS row, u, i, rating, timestamp, {split} "
            "FROM interactions n JOIN users USING (user_id) JOIN catalogue USING (item_id)",
            "number users and items",
        )
        run("DROP TABLE interactions")
        self._splits = self._parts()
        self._count("read")

    def _filter_times(self) -> None:
        options = self.options
        if options.after is None and options.before is None:
            return
        if not self.has["timestamp"]:
            raise DataError("--after and --before: these data have no times")
        low = "TRUE" if options.after is None else f"timestamp >= {options.after!r}"
        high = "TRUE" if options.before is None else f"timestamp < {options.before!r}"
        self._keep("time window", f"{low} AND {high}")

    def _drop_duplicates(self) -> None:
        if self.options.duplicates == "all":
            return
        # The order of the file decides between equal times, so that the result is deterministic.
        way = "DESC" if self.options.duplicates == "last" else "ASC"
        place = f"PARTITION BY u, i ORDER BY timestamp {way} NULLS LAST, row {way}"
        query = f"SELECT * FROM work QUALIFY row_number() OVER ({place}) = 1"
        self._rework("duplicates", query)

    def _filter_items(self) -> None:
        for need in self.options.require:
            test = {
                "metadata": "TRUE",
                "picture": "(image IS NOT NULL OR image_url IS NOT NULL)",
                "annotations": "len(annotations) > 0",
            }[need]
            having = (
                "SELECT i FROM catalogue JOIN items ON items.rowid = line "
                f"WHERE line IS NOT NULL AND {test}"
            )
            self._keep(f"items with {need}", f"i IN ({having})")

    def _sample(self) -> None:
        wanted = self.options.sample_users
        left = self.counts[-1].users
        number = round(wanted * left) if wanted < 1 else int(wanted)
        # md5 gives the same users in every version of DuckDB; its own hash does not.
        order = f"md5({quote(self.options.seed)} || ':' || user_id), user_id"
        drawn = (
            "SELECT u FROM users WHERE u IN (SELECT u FROM work) "
            f"ORDER BY {order} LIMIT {max(1, number)}"
        )
        self._keep("sample of users", f"u IN ({drawn})")

    def _core(self) -> None:
        user_core, item_core = self.options.user_core, self.options.item_core
        if user_core <= 1 and item_core <= 1:
            return
        run, value = self.space.run, self.space.value
        # Three columns in a temporary table, which has no log: there are dozens of rounds.
        run("CREATE TEMP TABLE core AS SELECT row, u, i FROM work")
        rounds, before = 0, -1
        left = value("SELECT count(*) FROM core")
        while left != before:
            before, rounds = left, rounds + 1
            for key, least in (("u", user_core), ("i", item_core)):
                if least > 1:
                    enough = f"SELECT {key} FROM core GROUP BY {key} HAVING count(*) >= {least}"
                    kept = f"SELECT * FROM core WHERE {key} IN ({enough})"
                    run(f"CREATE OR REPLACE TEMP TABLE core AS {kept}", f"k-core, round {rounds}")
            left = value("SELECT count(*) FROM core")
        kept = "SELECT * FROM work WHERE row IN (SELECT row FROM core)"
        run(f"CREATE OR REPLACE TABLE work AS {kept}")
        run("DROP TABLE core")
        self._count(f"{user_core}-core of users, {item_core}-core of items ({rounds} rounds)")

    def _refuse_empty_parts(self) -> None:
        """Training needs a file for every part of a split."""
        lost = sorted(self._splits - self._parts())
        if lost:
            raise DataError(
                f"no interaction remains in the part {', '.join(lost)} of the split; loosen the "
                "filters, or give --split merge"
            )

    def _annotate(self) -> None:
        run = self.space.run
        self._kept_items()
        run(
            "CREATE TABLE labels AS SELECT i, unnest(annotations) AS label, "
            "generate_subscripts(annotations, 1) AS position FROM items "
            "JOIN kept ON items.rowid = line",
            "annotations",
        )
        stop = {clean_text(label).casefold() for label in _stop_labels(self.options)}
        run("CREATE TABLE all_labels AS SELECT DISTINCT label FROM labels WHERE label IS NOT NULL")
        pairs = ((label, label_token(label)) for (label,) in self.space.rows("FROM all_labels"))
        kept = (
            (label, token)
            for label, token in pairs
            if token and not (stop and clean_text(label).casefold() in stop)
        )
        self.space.make_table("spelling", {"label": "VARCHAR", "token": "VARCHAR"}, kept)
        run(
            "CREATE TABLE cells AS SELECT i, token, min(position) AS position "
            "FROM labels JOIN spelling USING (label) GROUP BY i, token"
        )
        floor = self.options.min_annotation_items
        frequent = f"(SELECT token FROM cells GROUP BY token HAVING count(*) >= {floor})"
        run(
            "CREATE TABLE tokens AS SELECT i, string_agg(token, ' ' ORDER BY position) AS "
            f"annotations FROM cells WHERE token IN {frequent} GROUP BY i"
        )
        self.elements = self.space.value(f"SELECT count(*) FROM {frequent}")

    def _kept_items(self) -> None:
        """Select the items that NAME.item describes: all, or those with an interaction."""
        among = "TRUE" if self.options.all_items else "i IN (SELECT i FROM work)"
        self.space.run(
            "CREATE TABLE kept AS SELECT i, item_id, line FROM catalogue "
            f"WHERE line IS NOT NULL AND {among}"
        )

    def _parts(self) -> set[str]:
        query = "SELECT DISTINCT split FROM work WHERE split IS NOT NULL"
        return {part for (part,) in self.space.run(query).fetchall()}

    def _keep(self, step: str, condition: str) -> None:
        self._rework(step, f"SELECT * FROM work WHERE {condition}")

    def _rework(self, step: str, query: str) -> None:
        self.space.run(f"CREATE OR REPLACE TABLE work AS {query}", step)
        self._count(step)

    def _count(self, step: str) -> None:
        query = "SELECT count(*), count(DISTINCT u), count(DISTINCT i) FROM work"
        self.counts.append(Count(step, *self.space.run(query).fetchone()))


def _stop_labels(options: argparse.Namespace) -> list[str]:
    """The labels of --stop and --stop-file."""
    labels = list(options.stop)
    if options.stop_file:
        try:
            labels += options.stop_file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"--stop-file {options.stop_file}: cannot be read ({error})"
            ) from None
    return labels
