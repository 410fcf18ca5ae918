"""The Amazon converter on generated reviews in the 2023 format, against pandas and Polars.

    python benchmarks/converters.py --reviews=20000000 --metadata=2000000 --folder=DIR
    python benchmarks/converters.py --reviews=20000000 --metadata=2000000 --folder=DIR --only=polars

Generates DIR/reviews.jsonl and DIR/meta.jsonl (seeded; kept for later runs; 11 GB, and the
conversion needs as much again). Each part runs in a separate process and prints one JSON line
with seconds, processor seconds and peak memory:

* ``convert``: both files to atomic files, with duplicates dropped and the 5-core,
* ``tenth``: the same without metadata, on DIR/tenth, which holds a tenth of both,
* ``pandas``: those reviews with json and pandas,
* ``polars``: those reviews with Polars' streaming engine.

Polars is not a dependency: its part runs only if ``--only`` names it.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import numpy as np

PARTS = {"convert": "duckdb", "tenth": "duckdb", "pandas": "pandas", "polars": "polars"}
SEED, BLOCK = 2023, 100_000
PAIR, NUMBERS = ["user_id", "parent_asin"], ["rating", "timestamp"]
WORDS = (
    "great",
    "record",
    "sound",
    "the",
    "vinyl",
    "edition",
    "sleeve",
    "arrived",
    "late",
    "again",
)
GENRES = [f"Genre {number} & More" for number in range(400)]
START, SPAN = 1_400_000_000_000, 300_000_000_000  # milliseconds


def _names(prefix: str, numbers: np.ndarray) -> list[str]:
    return [f"{prefix}{number:0{28 if prefix == 'A' else 9}X}" for number in numbers.tolist()]


def _review_block(rng: np.random.Generator, size: int, users: int, items: int) -> Iterator[str]:
    # Squares: a long tail of both, so that a k-core takes several rounds.
    user = _names("A", (rng.random(size) ** 2 * users).astype(np.int64))
    item = _names("B", (rng.random(size) ** 2 * items).astype(np.int64))
    rating, lengths = rng.integers(1, 6, size).tolist(), rng.integers(5, 60, size).tolist()
    times = (START + rng.integers(0, SPAN, size)).tolist()
    for k in range(size):
        text = " ".join(WORDS[(k + j) % len(WORDS)] for j in range(lengths[k]))
        yield json.dumps(
            {
                "rating": float(rating[k]),
                "title": text[:30],
                "text": text,
                "images": [],
                "asin": item[k],
                "parent_asin": item[k],
                "user_id": user[k],
                "timestamp": times[k],
                "helpful_vote": 0,
                "verified_purchase": True,
            }
        )


def _metadata_block(rng: np.random.Generator, first: int, size: int) -> Iterator[str]:
    genres = rng.integers(0, len(GENRES), (size, 3)).tolist()
    for k, name in enumerate(_names("B", np.arange(first, first + size))):
        picture = {"thumb": f"https://pictures.example/{name}_s.jpg", "variant": "MAIN"}
        picture |= {"large": f"https://pictures.example/{name}.jpg", "hi_res": None}
        yield json.dumps(
            {
                "main_category": "CDs & Vinyl",
                "title": f"Record {first + k} of the &quot;benchmark&quot;",
                "average_rating": 4.5,
                "rating_number": 10,
                "features": ["Black vinyl", "Gatefold sleeve"] * 3,
                "description": ["A record that was made for this measurement. " * 5],
                "price": None,
                "images": [picture],
                "videos": [],
                "store": f"Band {k % 1000}",
                "categories": ["CDs & Vinyl", *(GENRES[number] for number in genres[k])],
                "details": {"Date First Available": "January 1, 2015"},
                "parent_asin": name,
                "bought_together": None,
            }
        )


def generate(folder: Path, reviews: int, metadata: int) -> None:
    """Write the two files, unless they exist in this size."""
    folder.mkdir(parents=True, exist_ok=True)
    mark = folder / "generated.json"
    facts = {"seed": SEED, "reviews": reviews, "metadata": metadata}
    if mark.is_file() and json.loads(mark.read_text()) == facts:
        return
    rng = np.random.default_rng(SEED)
    with (folder / "reviews.jsonl").open("w") as file:
        for start in range(0, reviews, BLOCK):
            block = _review_block(rng, min(BLOCK, reviews - start), reviews // 4, metadata)
            file.write("\n".join(block) + "\n")
    with (folder / "meta.jsonl").open("w") as file:
        for start in range(0, metadata, BLOCK):
            block = _metadata_block(rng, start, min(BLOCK, metadata - start))
            file.write("\n".join(block) + "\n")
    mark.write_text(json.dumps(facts))


def convert(arguments: argparse.Namespace) -> None:
    """Both files, by the package's command."""
    folder = arguments.folder
    _command(arguments, folder / "reviews.jsonl", "--metadata", str(folder / "meta.jsonl"))


def convert_tenth(arguments: argparse.Namespace) -> None:
    """The reviews of the tenth, as the other libraries read them."""
    _command(arguments, arguments.folder / "tenth" / "reviews.jsonl")


def _command(arguments: argparse.Namespace, reviews: Path, *more: str) -> None:
    from recbole_cierec.dataset_converters.__main__ import run

    words = ["amazon", "--reviews", str(reviews), *more, "--user-core", "5", "--item-core", "5"]
    words += ["--output", str(arguments.folder / "out"), "--name", "generated", "--overwrite"]
    words += ["--memory", arguments.memory, "--threads", str(arguments.threads)]
    print("\n".join(run(words)), file=sys.stderr)


def read_with_pandas(arguments: argparse.Namespace) -> None:
    """The usual few lines: each record as a dictionary, then a data frame."""
    import pandas as pd

    with (arguments.folder / "tenth" / "reviews.jsonl").open() as file:
        rows = [json.loads(line) for line in file]
    table = pd.DataFrame(rows)[[*PAIR, *NUMBERS]]
    table = table.sort_values("timestamp", kind="stable").drop_duplicates(PAIR, keep="last")
    before = -1
    while len(table) != before:
        before = len(table)
        for key in PAIR:
            table = table[table.groupby(key)[key].transform("size") >= 5]
    table.sort_index().to_csv(arguments.folder / "pandas.inter", sep="\t", index=False)
    print(f"{len(table):,} interactions left", file=sys.stderr)


def read_with_polars(arguments: argparse.Namespace) -> None:
    """Lazily; each round of the 5-core is collected by the streaming engine."""
    import polars as pl

    scan = pl.scan_ndjson(arguments.folder / "tenth" / "reviews.jsonl").select(PAIR + NUMBERS)
    scan = scan.with_row_index("row").sort("timestamp", "row").unique(PAIR, keep="last")
    table, before = scan.collect(engine="streaming"), -1
    while len(table) != before:
        before = len(table)
        for key in PAIR:
            enough = table.lazy().group_by(key).len().filter(pl.col("len") >= 5).select(key)
            table = table.lazy().join(enough, on=key, how="semi").collect(engine="streaming")
    table.sort("row").drop("row").write_csv(arguments.folder / "polars.inter", separator="\t")
    print(f"{len(table):,} interactions left", file=sys.stderr)


def _run(arguments: argparse.Namespace) -> dict:
    """One part, in this process."""
    jobs = {"convert": convert, "tenth": convert_tenth}
    jobs |= {"pandas": read_with_pandas, "polars": read_with_polars}
    start = perf_counter()
    jobs[arguments.one](arguments)
    seconds = round(perf_counter() - start, 1)
    used, library = resource.getrusage(resource.RUSAGE_SELF), PARTS[arguments.one]
    # Not ru_maxrss, which includes the memory of the parent process.
    status = Path("/proc/self/status").read_text().splitlines()
    peak = next(line.split()[1] for line in status if line.startswith("VmHWM"))
    return {
        "seconds": seconds,
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "peak_mib": int(peak) // 1024,
        library: version(library),
        "python": platform.python_version(),
    }


def _measured(arguments: argparse.Namespace, what: str) -> dict:
    """Run a part in a separate process."""
    sizes = [f"--{key}={getattr(arguments, key)}" for key in ("reviews", "memory", "threads")]
    command = [sys.executable, __file__, f"--folder={arguments.folder}", *sizes, f"--one={what}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--reviews", type=int, default=200_000)
    parser.add_argument("--metadata", type=int, default=20_000)
    parser.add_argument("--memory", default="1200MB")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", choices=tuple(PARTS))
    parser.add_argument("--one", choices=tuple(PARTS), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(_run(arguments)))
        return
    generate(arguments.folder, arguments.reviews, arguments.metadata)
    generate(arguments.folder / "tenth", arguments.reviews // 10, arguments.metadata // 10)
    parts = (arguments.only,) if arguments.only else ("convert", "tenth", "pandas")
    for what in parts:
        sizes = {"reviews": arguments.reviews, "metadata": arguments.metadata}
        size = (arguments.folder / "reviews.jsonl").stat().st_size >> 20
        facts = {"part": what, **sizes, "reviews_mib": size, "memory": arguments.memory}
        print(json.dumps({**facts, **_measured(arguments, what)}), flush=True)


if __name__ == "__main__":
    main()
