"""The Amazon converter on generated reviews in the 2023 format, against json and pandas.

    python benchmarks/converters.py --reviews=20000000 --metadata=2000000 --folder=DIR
    python benchmarks/converters.py --folder=DIR --only=pandas   # reading a tenth, the usual way

Generates DIR/reviews.jsonl and DIR/meta.jsonl (seeded; kept for the next time), converts them in a
process of its own with a 5-core, and reads a tenth of the reviews with json and pandas in another;
prints seconds and peak memory of each as one JSON line.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import perf_counter

import numpy as np

SEED, BLOCK = 2023, 100_000
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
    """Write the two files, unless they are there in this size."""
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


def convert(folder: Path, memory: str, threads: int) -> None:
    """Convert both files with a 5-core."""
    from recbole_cierec.dataset_converters.__main__ import run

    words = f"amazon --reviews {folder}/reviews.jsonl --metadata {folder}/meta.jsonl --overwrite "
    words += f"--output {folder}/out --name generated --user-core 5 --item-core 5 "
    report = run(f"{words} --memory {memory} --threads {threads}".split())
    print("\n".join(report), file=sys.stderr)


def read_with_pandas(folder: Path, reviews: int) -> None:
    """Read a tenth of the reviews and all but nothing else: the usual few lines."""
    import pandas as pd

    with (folder / "reviews.jsonl").open() as file:
        rows = [json.loads(line) for _, line in zip(range(reviews // 10), file, strict=False)]
    table = pd.DataFrame(rows)[["user_id", "parent_asin", "rating", "timestamp"]]
    table = table.drop_duplicates(["user_id", "parent_asin"], keep="last")
    table.to_csv(folder / "pandas.inter", sep="\t", index=False)


def _measured(arguments: argparse.Namespace, what: str) -> dict:
    """Run a part in a process of its own."""
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
    parser.add_argument("--only", choices=("convert", "pandas"))
    parser.add_argument("--one", choices=("convert", "pandas"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        start = perf_counter()
        if arguments.one == "convert":
            convert(arguments.folder, arguments.memory, arguments.threads)
        else:
            read_with_pandas(arguments.folder, arguments.reviews)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(json.dumps({"seconds": round(perf_counter() - start, 1), "peak_mib": peak}))
        return
    generate(arguments.folder, arguments.reviews, arguments.metadata)
    for what in (arguments.only,) if arguments.only else ("convert", "pandas"):
        sizes = {"reviews": arguments.reviews, "metadata": arguments.metadata}
        size = (arguments.folder / "reviews.jsonl").stat().st_size >> 20
        facts = {"part": what, **sizes, "reviews_mib": size, "memory": arguments.memory}
        print(json.dumps({**facts, **_measured(arguments, what)}), flush=True)


if __name__ == "__main__":
    main()
