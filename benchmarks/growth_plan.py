"""Estimates of time and memory for data of any size, from the rows of benchmarks/growth.py.

    python benchmarks/growth_plan.py [--users=50e6 --items=10e6 --interactions=1e9]
        [--rows=benchmarks/runs/growth.jsonl]

A cost grows with each user, item, interaction or picture as growth.py measured it between the
outer two points of an axis; training and ranking have the lowest speed of all points. Lists of
``user500`` take at most 1 GiB a phase, and are drawn at each evaluation beyond that. Times are
hours of one core.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from growth import AXES, FEATURES, PICTURES, REST, STAGES, series

D, FLOAT, TRAINED = 64, 4, 0.8  # d, bytes, and the training part's share of the interactions
REGIONS = 7 * 7 * 512 * 2  # bytes of a picture's region map: ResNet18 at 224 px, float16
LOAD, SPLIT, LISTS = list(STAGES)[1:4]
TRAINED_MF, RANKED_MF = "MF, an epoch", "MF, user500"
KEPT = 2 * 2**30  # bytes of candidate lists, at most
GIB, HOUR = 2.0**30, 3600.0


def each(rows: list[dict], stage: str, axis: str, value: str) -> float:
    """Seconds or bytes per additional element of ``axis``; bytes without candidate lists."""
    if value == "mib":
        rows = [row | {"mib": row["mib"] - row.get("ranked_lists", 0) / 2**20} for row in rows]
    sizes, values = series(rows, stage, REST, axis, value)
    more = (values[-1] - values[0]) / (sizes[-1] - sizes[0])
    return max(more, 0.0) * (2**20 if value == "mib" else 1)


def slowest(rows: list[dict], model: str) -> float:
    """Pairs per second, the lowest of all data sizes."""
    return min(row["pairs_per_s"] for row in rows if row["stage"] == f"{model}, an epoch")


def of_pictures(rows: list[dict], size: int) -> dict[str, float]:
    """Of one picture: bytes in store and features, and seconds to compute both."""
    count = PICTURES[size][-1]
    found = {row["stage"]: row for row in rows if row["at"] == {"size": size, "pictures": count}}
    store, features = found["picture store"], found["features"]
    return {
        "store": store["bytes"] / count,
        "features": features["bytes"] / count,
        "decode": store["cpu_s"] / count,
        "encode": features["cpu_s"] / count,
    }


def plan(rows: list[dict], users: float, items: float, interactions: float) -> list[tuple]:
    """(quantity, amount, unit) of each line of the table."""
    sizes = dict(zip(AXES, (users, items, interactions), strict=True))
    table = []
    peaks = {
        SPLIT: "loading and split",
        TRAINED_MF: "peak of training MF",
        RANKED_MF: "peak of ranking user500 by MF, without lists",
    }
    for stage, title in peaks.items():
        for axis, n in sizes.items():
            per = each(rows, stage, axis, "mib")
            table.append((f"{title}, {axis} ({per:,.0f} bytes each)", n * per / GIB, "GiB"))
    table.append(("candidate lists of two phases, at most", KEPT / GIB, "GiB"))
    for stage in (LOAD, SPLIT):
        seconds = sum(each(rows, stage, axis, "cpu_s") * n for axis, n in sizes.items())
        table.append((stage, seconds / HOUR, "h"))
    lists = each(rows, LISTS, "users", "cpu_s")
    title = f"drawing the lists of a phase ({1e6 * lists:,.0f} us a user)"
    table.append((title, users * lists / HOUR, "h"))
    id_rows = {"MF": users + items, "VBPR": 2 * users + items}
    for model, count in id_rows.items():
        table.append(
            (f"id tables of {model} and Adagrad's sums", 2 * count * D * FLOAT / GIB, "GiB")
        )
    per = each(rows, "VBPR, an epoch", "items", "mib")
    table.append((f"content in memory, VBPR ({per:,.0f} bytes an item)", items * per / GIB, "GiB"))
    for model in ("MF", "VBPR", "CIERec"):
        speed = slowest(rows, model)
        title = f"an epoch of {model}, {speed:,.0f} pairs/s"
        table.append((title, TRAINED * interactions / speed / HOUR, "h"))
    for size in PICTURES:
        one = of_pictures(rows, size)
        speed = 1 / (one["decode"] + one["encode"])
        table.append((f"pictures of {size} px, uint8", items * one["store"] / GIB, "GiB"))
        table.append((f"decoded and encoded, {speed:,.1f} a second", items / speed / HOUR, "h"))
    table.append((f"features, {FEATURES} float32", items * one["features"] / GIB, "GiB"))
    table.append(("region maps, 7 x 7 x 512 float16", items * REGIONS / GIB, "GiB"))
    return table + ranking(rows, users, items)


def ranking(rows: list[dict], users: float, items: float) -> list[tuple]:
    """Of evaluation, for all users and for 100,000."""
    sampled = each(rows, "MF, user500", "users", "cpu_s")
    score = max(
        row["cpu_s"] / row["everyone"] / row["counts"]["items"]
        for row in rows
        if row["stage"] == "MF, full ranking"
    )
    found = []
    for count in (users, min(users, 1e5)):
        name = f"{count:,.0f} users"
        found.append(
            (f"user500 of MF, {name}, {1e6 * sampled:,.0f} us a user", count * sampled / HOUR, "h")
        )
        found.append(
            (
                f"full ranking of MF, {name}, {1e9 * score:,.1f} ns a score",
                count * items * score / HOUR,
                "h",
            )
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("users", 50e6), ("items", 10e6), ("interactions", 1e9)):
        parser.add_argument(f"--{name}", type=float, default=default)
    parser.add_argument("--rows", type=Path, default=Path("benchmarks/runs/growth.jsonl"))
    a = parser.parse_args()
    rows = [json.loads(line) for line in a.rows.open()]
    print(f"{a.users:,.0f} users, {a.items:,.0f} items, {a.interactions:,.0f} interactions\n")
    print("| | |\n|---|---|")
    for what, amount, unit in plan(rows, a.users, a.items, a.interactions):
        print(f"| {what} | {amount:,.1f} {unit} |")


if __name__ == "__main__":
    main()
