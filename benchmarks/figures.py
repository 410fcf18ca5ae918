"""The figures of docs/results.md: each model's recall among all items and among items new to it.

    python benchmarks/figures.py

Reads the rows in benchmarks/runs/DATASET-results.jsonl and DATASET-cold.jsonl and writes
docs/figures/DATASET.svg; needs matplotlib (``pip install 'recbole-cierec[report]'``). Each row has
one seed: differences smaller than the variation between seeds mean nothing.
"""

from __future__ import annotations

import math

import matplotlib as mpl
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from tables import DOCS, best_first

DATASETS = ("hm-week", "ml-100k-posters")
IDS_ALONE = ("Pop", "ItemKNN", "BPR", "MF", "LightGCN", "MultiVAE", "AMF")
COLORS = {"ids alone": "#94a3b8", "pictures or annotations": "#4477aa", "CIERec": "#c2410c"}
SOFTMAX = "black"


def kind(model: str) -> str:
    """What a model reads; CIERec stands for itself."""
    if model.startswith("CIERec"):
        return "CIERec"
    return "ids alone" if model in IDS_ALONE else "pictures or annotations"


def draw(dataset: str) -> Figure:
    """Two panels of bars, the models in one order."""
    rows = best_first(dataset)
    figure = Figure(figsize=(7.6, 0.235 * len(rows) + 1.3), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    titles = "Among all items", "Among items held out of training"
    for place, (axis, title) in enumerate(zip(panels, titles, strict=True)):
        for height, (model, values) in enumerate(rows.items()):
            own, softmax = values[2 * place : 2 * place + 2]
            axis.barh(height, own, color=COLORS[kind(model)], height=0.72)
            if not math.isnan(softmax):
                axis.plot(softmax, height, "D", color=SOFTMAX, markersize=4)
        axis.set_title(title, fontsize="medium")
        axis.set_xlabel(f"Recall@10 on {dataset}, %")
        axis.grid(axis="x", color="#e2e8f0")
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(rows)), rows)
    panels[0].set_ylim(len(rows) - 0.4, -0.6)  # the best on top
    handles: list[Artist] = [Patch(color=color, label=name) for name, color in COLORS.items()]
    handles.append(Line2D([], [], marker="D", color=SOFTMAX, ls="", ms=4, label="with softmax"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return figure


def main() -> None:
    mpl.rcParams.update({"svg.hashsalt": "recbole_cierec", "font.size": 9})
    for dataset in DATASETS:
        target = DOCS / "figures" / f"{dataset}.svg"
        draw(dataset).savefig(target, metadata={"Date": None})
        print(target.relative_to(DOCS.parent))


if __name__ == "__main__":
    main()
