"""The tables of docs/results.md and docs/results/, from the rows in benchmarks/runs/.

    python benchmarks/tables.py            # writes them again
    python benchmarks/tables.py --check    # exit code 1 if a page differs

A table follows a line ``<!-- KIND: NAME -->``: ``results`` and ``trials`` show the rows of
``runs/NAME.jsonl``, ``models`` the value of ``--models`` that creates them, ``losses`` compares
both losses from ``NAME-results`` and ``NAME-cold``, and ``summary`` has a row for each of their
models.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
from pathlib import Path

from recbole_cierec.config.properties import properties_dir
from recbole_cierec.config.schema import KEYS
from recbole_cierec.config.yaml import read_yaml
from recbole_cierec.files.markdown import markdown_table

RUNS = Path(__file__).resolve().parent / "runs"
DOCS = RUNS.parents[1] / "docs"
PAGES = [DOCS / "results.md", *sorted((DOCS / "results").glob("*.md"))]
SOFTMAX = ":loss=softmax"
_METRICS = (
    "recall@10",
    "recall@10_cold",
    "recall@10_warm",
    "ndcg@10",
    "ndcg_hit@10",
    "recall@10_item_unseen",
    "recall@10_among_cold",
    "recall@10_among_warm",
)
_COSTS = ("epochs", "s an epoch", "test s", "parameters", "peak MiB")
_PLACE = re.compile(r"(<!-- (\w+): ([\w-]+) -->\n)((?:\|.*\n)*)")


def by_bpr(model: str) -> str:
    """The name of the row with BPR; keys after the loss belong to softmax only."""
    return model.split(SOFTMAX)[0]


def rows_of(name: str, runs: Path = RUNS) -> list[dict]:
    """The rows of a file, the two losses of a model next to each other."""
    rows = [json.loads(line) for line in (runs / f"{name}.jsonl").read_text().splitlines()]
    first: dict[str, int] = {}
    for place, row in enumerate(rows):
        first.setdefault(by_bpr(row["model"]), place)
    return sorted(rows, key=lambda row: (first[by_bpr(row["model"])], SOFTMAX in row["model"]))


def variant(row: dict) -> str:
    """The tuned settings of a row that change its model's equations: another choice of a formula,
    or a term with weight 0 instead of another default."""
    model = row["model"].split(":")[0]
    file = properties_dir() / "model" / f"{model}.yaml"
    defaults = read_yaml(file) if file.is_file() else {}
    found = [
        f"{key}: {value}"
        for key, value in row.get("settings", {}).items()
        if key in defaults and value != defaults[key] and (_is_choice(key) or value == 0)
    ]
    return ", ".join(found)


def _is_choice(key: str) -> bool:
    return key in KEYS and bool(KEYS[key].choices)


def markdown(head: list[str], body: list[list[str]], texts: int | None = None) -> str:
    """A table; columns after the first ``texts`` ones are numbers, on the right."""
    return markdown_table([head, *body], texts) + "\n"


def cell(test: dict, name: str) -> str:
    """Percent, with the deviation over candidate sets if there is one."""
    value, spread = test.get(name, math.nan), test.get(f"{name}_std")
    text = "-" if math.isnan(value) else f"{100 * value:.2f}"
    return text if spread is None or text == "-" else f"{text} ± {100 * spread:.2f}"


def results(rows: list[dict]) -> str:
    """Test results and cost of each model."""
    names = [name for name in _METRICS if any(name in row["test"] for row in rows)]
    body = []
    for row in rows:
        cells = [row["model"], variant(row), str(row["seed"])]
        cells += [cell(row["test"], name) for name in names]
        each = row["fit_seconds"] / max(row["epochs"], 1)
        cells += [str(row["epochs"]), f"{each:.2f}", f"{row['evaluate_seconds']:.1f}"]
        body.append([*cells, f"{row['parameters']:,}", str(row["peak_mib"])])
    return markdown(["model", "variant", "seed", *names, *_COSTS], body, texts=2)


def trials(rows: list[dict]) -> str:
    """The validation result of each trial."""
    body = []
    for row in rows:
        settings = ", ".join(f"{k} {v}" for k, v in row["settings"].items()) or "defaults"
        valid = f"{100 * row['valid']:.2f}"
        body.append([row["model"], str(row["trial"]), settings, valid, str(row["best_epoch"])])
    return markdown(["model", "trial", "settings", "valid recall@10", "best epoch"], body)


def models(rows: list[dict]) -> str:
    """The names of the rows, as the commands take them."""
    names = dict.fromkeys(row["model"] for row in rows)
    return markdown(["`--models=` of the rows below"], [[f"`{','.join(names)}`"]])


def losses(name: str, runs: Path = RUNS) -> str:
    """BPR and softmax side by side, in the usual split and among held-out items."""
    columns = []
    for file, metric in (
        (f"{name}-results", "recall@10"),
        (f"{name}-results", "recall@10_item_unseen"),
        (f"{name}-cold", "recall@10_among_cold"),
    ):
        columns.append(({row["model"]: row for row in rows_of(file, runs)}, metric))
    names = list(columns[0][0])
    pairs = [(by_bpr(soft), soft) for soft in names if SOFTMAX in soft and by_bpr(soft) in names]
    head = ["model", "variant, bpr", "softmax"]
    for _, metric in columns:
        head += [f"{metric}, bpr", "softmax"]
    body = []
    for pair in pairs:
        cells = [pair[0], *(variant(columns[0][0][model]) for model in pair)]
        for rows, metric in columns:
            cells += [cell(rows[m]["test"] if m in rows else {}, metric) for m in pair]
        body.append(cells)
    return markdown(head, body, texts=3)


def label(model: str) -> str:
    """A model in summaries, without its loss: ``CIERec (VBPR)``.

    >>> label("CIERec:backbone=VBPR:loss=softmax"), label("VECF:epochs=30")
    ('CIERec (VBPR)', 'VECF')
    """
    name, *keys = model.split(":")
    if name != "CIERec":
        return name
    return f"{name} ({'VBPR' if 'backbone=VBPR' in keys else 'MF'})"


def best_first(name: str, runs: Path = RUNS) -> dict[str, list[float]]:
    """Recall@10 of each model in percent, nan where it has no row.

    Returns:
        By label: among all items with its own loss and with softmax, then among held-out items with
        its own loss and with softmax. The best model is first, by the larger of the first two.
    """
    found: dict[str, list[float]] = {}
    for file, metric, place in (("results", "recall@10", 0), ("cold", "recall@10_among_cold", 2)):
        for row in rows_of(f"{name}-{file}", runs):
            cells = found.setdefault(label(row["model"]), [math.nan] * 4)
            cells[place + (SOFTMAX in row["model"])] = 100 * row["test"][metric]
    return dict(sorted(found.items(), key=lambda one: -_larger(one[1][:2])))


def _larger(values: list[float]) -> float:
    return max((value for value in values if not math.isnan(value)), default=-math.inf)


def summary(name: str, runs: Path = RUNS) -> str:
    """A row for each model; the best of each column is bold."""
    rows = best_first(name, runs)
    best = [_larger(list(column)) for column in zip(*rows.values(), strict=True)]
    body = []
    for model, values in rows.items():
        texts = ["" if math.isnan(value) else f"{value:.1f}" for value in values]
        pairs = zip(texts, values, best, strict=True)
        body.append([model, *(f"**{t}**" if v == top else t for t, v, top in pairs)])
    return markdown(["model", "all items", "softmax", "held-out items", "softmax"], body, texts=1)


def page(text: str, runs: Path = RUNS) -> str:
    """The text of a page with all its tables written again."""

    def table(match: re.Match) -> str:
        place, kind, name, _ = match.groups()
        if kind in ("losses", "summary"):
            return place + {"losses": losses, "summary": summary}[kind](name, runs)
        make = {"results": results, "trials": trials, "models": models}[kind]
        return place + make(rows_of(name, runs))

    return _PLACE.sub(table, text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    changed = False
    for path in PAGES:
        text = path.read_text(encoding="utf-8")
        made = page(text)
        changed |= made != text
        if not arguments.check:
            path.write_text(made, encoding="utf-8")
    return int(arguments.check and changed)


if __name__ == "__main__":
    sys.exit(main())
