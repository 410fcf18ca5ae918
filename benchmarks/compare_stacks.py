"""Show that results on current packages equal those of plain RecBole on its old packages.

Usage::

    python benchmarks/compare_stacks.py --other /path/to/old/python [--models BPR LightGCN]

``--other`` is a Python 3.8 to 3.11 with plain RecBole and the packages it was written for::

    pip install recbole==1.2.1 "numpy<2" "pandas<3" "scipy<1.13" "setuptools<82" hyperopt==0.2.5

and the torch of the Python that runs this script. It may be another torch, such as ``"torch<2.6"``,
the last one that reads RecBole's checkpoints (none is written here). If that torch draws other
random bits for dropout, as 2.5 does, the metrics of models with dropout are left out.

The other Python runs RecBole's own ``run_recbole`` without this package (``--plain``); the Python
that runs this script uses ``recbole_cierec`` with the keys that restore RecBole's protocol. Each
model is trained for an epoch or two on the ml-100k of RecBole, on the CPU with one thread. The
script compares a digest of the prepared data (vocabularies, splits, features) and the metrics on
the validation and test parts. Exit code 1 if a digest differs, or a metric by more than its
tolerance.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import tempfile
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version

MARK = "RESULT "
PACKAGES = ("recbole", "numpy", "pandas", "scipy", "torch", "recbole_cierec")

# Metrics are compared to 6 decimals. ItemKNN: which of several equally similar neighbours are kept
# depends on the order in which numpy sorts ties, and a few users' rankings with it (seen: 1.8e-4).
DECIMALS = 6
TOLERANCE = {"ItemKNN": 5e-4}
DROPOUT = ("NGCF", "NeuMF", "MultiVAE", "DeepFM", "SASRec")
# RecBole 1.2.0 (on Python 3.12 and later) is not 1.2.1: NGCF has dropout in evaluation too.
CHANGED = ("NGCF",)
CORRECTED = ("Pop",)  # by compat/recbole_models.py

RANKING = {
    "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
    "eval_args": {
        "split": {"RS": [0.8, 0.1, 0.1]},
        "order": "RO",
        "group_by": "user",
        "mode": "full",
    },
    "metrics": ["Recall", "NDCG", "MRR"],
    "valid_metric": "NDCG@10",
}
# Clicks with features of users and items: strings, sequences of strings and numbers, empty cells.
FEATURES = {
    "load_col": {
        "inter": ["user_id", "item_id", "rating"],
        "user": ["user_id", "age", "gender", "occupation"],
        "item": ["item_id", "release_year", "class"],
    },
    "threshold": {"rating": 4},
    "eval_args": {
        "split": {"RS": [0.8, 0.1, 0.1]},
        "order": "RO",
        "group_by": None,
        "mode": "labeled",
    },
    "train_neg_sample_args": None,
    "metrics": ["AUC", "LogLoss"],
    "valid_metric": "AUC",
}
NEXT_ITEM = {
    **RANKING,
    "eval_args": {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"},
    "train_neg_sample_args": None,
}
# model -> keys that differ from RecBole's defaults
CASES = {
    "Pop": {**RANKING, "epochs": 1},
    "ItemKNN": {**RANKING, "epochs": 1},
    "BPR": {**RANKING, "epochs": 2},
    "LightGCN": {**RANKING, "epochs": 2},
    "NGCF": {**RANKING, "epochs": 1},
    "NeuMF": {**RANKING, "epochs": 1},
    "MultiVAE": {**RANKING, "epochs": 2, "train_neg_sample_args": None},
    "FM": {**FEATURES, "epochs": 2},
    "DeepFM": {**FEATURES, "epochs": 1},
    "SASRec": {**NEXT_ITEM, "epochs": 1, "MAX_ITEM_LIST_LENGTH": 10},
}
SHARED = {
    "use_gpu": False,
    "gpu_id": "",
    "show_progress": False,
    "state": "ERROR",
    "metric_decimal_place": DECIMALS,
    "topk": [10],
    "eval_batch_size": 4096,
    "train_batch_size": 2048,
    "normalize_all": True,  # RecBole's yaml for ml-100k
}
# Keys that our overall.yaml sets differently from RecBole.
RECBOLE_PROTOCOL = {
    "train_negatives": "all",
    "item_vocabulary": "all",
    "filter_inter_by_user_or_item": True,
    "lr_decay": 1.0,
    "optimizer_kernel": "plain",
}


def digest(parts: list) -> str:
    """Return a digest of prepared data: vocabularies, and every column of the three splits.

    Args:
        parts: The data sets of training, validation and test.
    """
    state = hashlib.sha256()
    train = parts[0]
    for field in sorted(train.field2id_token):
        state.update(
            f"{field}:".encode() + "\0".join(map(str, train.field2id_token[field])).encode()
        )
    tables = [part.inter_feat for part in parts] + [train.user_feat, train.item_feat]
    for number, table in enumerate(tables):
        # A table of ids only adds no information, and may or may not exist.
        if table is not None and len(table.columns) > 1:
            for field in sorted(table.columns):
                values = table[field].contiguous().numpy()
                state.update(f"{number} {field} {values.dtype} {values.shape}:".encode())
                state.update(values.tobytes())
    return state.hexdigest()[:16]


def run_plain(model: str) -> dict:
    """Run RecBole's own function; return digest and metrics."""
    from recbole.config import Config
    from recbole.data import create_dataset, data_preparation
    from recbole.quick_start import run_recbole
    from recbole.utils import init_seed

    settings = {**SHARED, **CASES[model]}
    config = Config(model=model, dataset="ml-100k", config_dict=settings)
    init_seed(config["seed"], config["reproducibility"])
    loaders = data_preparation(config, create_dataset(config))
    result = run_recbole(model, "ml-100k", config_dict=settings, saved=False)
    return {
        "data": digest([loader._dataset for loader in loaders]),
        "valid": result["best_valid_result"],
        "test": result["test_result"],
    }


def run_ours(model: str) -> dict:
    """Run the same through recbole_cierec; return digest and metrics."""
    from recbole_cierec.config.config import Config
    from recbole_cierec.quick_start import prepare

    settings = {**SHARED, **CASES[model], **RECBOLE_PROTOCOL}
    job = prepare(Config(model, "ml-100k", config_dict=settings))
    data = digest([loader._dataset for loader in job.loaders])
    result = job.train_and_evaluate(saved=False)
    return {"data": data, "valid": result["best_valid_result"], "test": result["test_result"]}


def installed(package: str) -> str | None:
    """Return the version of a package, None if it is not installed."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def work(models: list[str], plain: bool) -> None:
    """Run models in this process; write one line of JSON for each."""
    torch = import_module("torch")
    torch.set_num_threads(1)
    torch.manual_seed(1)
    bits = torch.empty(4096).bernoulli_(0.5).numpy().tobytes()
    sys.argv = sys.argv[:1]  # RecBole reads the command line
    stack = {"python": platform.python_version(), **{name: installed(name) for name in PACKAGES}}
    stack["dropout bits"] = hashlib.sha256(bits).hexdigest()[:16]
    sys.stdout.write(MARK + json.dumps(stack) + "\n")
    for model in models:
        try:
            found = (run_plain if plain else run_ours)(model)
            for part in ("valid", "test"):
                found[part] = {k: float(value) for k, value in found[part].items()}
        except Exception as error:
            found = {"failed": f"{type(error).__name__}: {error}"}
        sys.stdout.write(MARK + json.dumps({"model": model, **found}) + "\n")
        sys.stdout.flush()


def ask(python: str, models: list[str], plain: bool) -> tuple[dict, dict[str, dict]]:
    """Run models under another Python in an empty folder; return its packages and results."""
    command = [python, "-W", "ignore", os.path.abspath(__file__), "--work", "--models", *models]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            command + ["--plain"] * plain,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=False,
        )
    lines = [line[len(MARK) :] for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        sys.exit(f"{python} failed with exit code {done.returncode}")
    stack, *results = map(json.loads, lines)
    return stack, {result.pop("model"): result for result in results}


def incomparable(model: str, here: dict, other: dict) -> str | None:
    """Return why the metrics of a model cannot be equal on two stacks, None if they can."""
    if model in DROPOUT and here["dropout bits"] != other["dropout bits"]:
        return "torch draws other dropout bits"
    if model in CORRECTED:
        return "RecBole counts an item once a batch, and negatives too; here positives count"
    if model in CHANGED and here["recbole"] != other["recbole"]:
        return "RecBole changed this model between these versions"
    return None


def compare(model: str, ours: dict, theirs: dict, reason: str | None) -> tuple[list[str], bool]:
    """Return the lines of the table for one model, and whether all is equal.

    Args:
        model: Its name.
        ours: Digest and metrics here.
        theirs: Digest and metrics under the other Python.
        reason: Why the metrics are not to be compared, if they are not.
    """
    failed = [
        f"{who}: {r['failed']}" for who, r in (("here", ours), ("other", theirs)) if "failed" in r
    ]
    if failed:
        return [f"{model:<10} FAILED {text}" for text in failed], False
    same = ours["data"] == theirs["data"]
    lines = [row(model, "data", ours["data"], theirs["data"], "equal" if same else "DIFFERENT")]
    if reason:
        return [*lines, f"{model:<10} metrics not compared: {reason}"], same
    tolerance = TOLERANCE.get(model, 0.0)
    for part in ("valid", "test"):
        for metric, expected in theirs[part].items():
            value = ours[part].get(metric, float("nan"))
            gap = abs(value - expected)
            fine = gap <= tolerance + 10.0**-DECIMALS / 2
            same = same and fine
            verdict = "equal" if gap < 10.0**-DECIMALS / 2 else f"{gap:.1e}"
            verdict += "" if fine else " DIFFERENT"
            lines.append(row(model, f"{part} {metric}", f"{value:.6f}", f"{expected:.6f}", verdict))
    return lines, same


def row(model: str, what: str, here: str, other: str, verdict: str) -> str:
    """Return one line of the table."""
    return f"{model:<10} {what:<16} {here:>16} {other:>16}  {verdict}"


def main() -> int:
    """Read the command line, run both sides and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--other", help="a Python with plain RecBole and its old packages")
    parser.add_argument("--models", nargs="+", default=list(CASES), choices=list(CASES))
    parser.add_argument("--plain", action="store_true", help="run plain RecBole in this Python")
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.models, options.plain)
        return 0
    if not options.other:
        parser.error("--other is needed: the Python to compare with")
    stack, ours = ask(sys.executable, options.models, plain=options.plain)
    other_stack, theirs = ask(options.other, options.models, plain=True)
    print(row("", "", "here", "other", ""))
    for name, text in stack.items():
        print(row("", name, str(text or "-"), str(other_stack[name] or "-"), ""))
    print()
    equal = True
    for model in options.models:
        missing = {"failed": "no result"}
        results = ours.get(model, missing), theirs.get(model, missing)
        lines, same = compare(model, *results, incomparable(model, stack, other_stack))
        print("\n".join(lines))
        equal = equal and same
    print("\nall equal" if equal else "\nNOT EQUAL")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
