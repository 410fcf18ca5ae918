"""The figure of the README: each model's recall on all items and among items new to it.

    python benchmarks/figures.py --dataset=hm-week

Reads the rows in benchmarks/runs/DATASET-results.jsonl and DATASET-cold.jsonl and writes
docs/figures/DATASET.svg; needs matplotlib (``pip install 'recbole-cierec[report]'``). Each row has
one seed: differences smaller than the variation between seeds mean nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import matplotlib as mpl

mpl.use("svg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).resolve().parents[1]
PAPER = ("CIERec",)
# Offsets of the labels of points that are close together, in typographic points.
OFFSETS = {
    "BPR": (-18, 5),
    "ItemKNN": (2, -12),
    "MF": (-8, -12),
    "AMF": (4, -12),
    "AMR": (-7, -12),
}
LABELS = {"CIERec:backbone=VBPR": "CIERec (VBPR)", "CIERec": "CIERec (MF)"}


def scores(path: Path, metric: str) -> dict[str, float]:
    """The metric of each model, with BPR or its fixed loss, in percent."""
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    plain = [row for row in rows if "loss=softmax" not in row["model"]]
    return {row["model"]: 100 * row["test"][metric] for row in plain if metric in row["test"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="hm-week")
    dataset = parser.parse_args().dataset
    runs = ROOT / "benchmarks" / "runs"
    known = scores(runs / f"{dataset}-results.jsonl", "recall@10")
    new = scores(runs / f"{dataset}-cold.jsonl", "recall@10_among_cold")
    mpl.rcParams.update({"svg.hashsalt": "recbole_cierec", "font.size": 9})
    figure, axes = plt.subplots(figsize=(7.2, 4.2), layout="constrained")
    for name in sorted(known.keys() & new.keys()):
        ours = name.partition(":")[0] in PAPER
        axes.scatter(known[name], new[name], s=26, color="#c2410c" if ours else "#475569")
        label = LABELS.get(name, name.partition(":")[0].replace("_", " "))
        axes.annotate(
            label,
            (known[name], new[name]),
            xytext=OFFSETS.get(name, (4, 3)),
            textcoords="offset points",
            fontsize=7.5,
            color="#c2410c" if ours else "#1e293b",
        )
    axes.set_xlabel(f"Recall@10, all items, user500 (%), {dataset}")
    axes.set_ylabel("Recall@10 among new items, strict cold start (%)")
    axes.spines[["top", "right"]].set_visible(False)
    target = ROOT / "docs" / "figures" / f"{dataset}.svg"
    figure.savefig(target, metadata={"Date": None})
    print(target.relative_to(ROOT))


if __name__ == "__main__":
    main()
