"""Time and memory against users, items, interactions and pictures; figures in docs/growth.md.

    python benchmarks/growth.py --data_path=DIR [--out=benchmarks/runs/growth.jsonl]
        [--only=load,train] [--figures=docs/figures]

Each axis has three sizes while the others stay; benchmarks/synthetic.py generates the data, seed 0,
512 features per item, d = 64. Each point is a separate process with one thread. It is measured
twice, and once more if the wall time of both was over 1.3 times the processor time (then other work
shared the core); a point that takes over a minute is measured once. All rows are kept in ``--out``,
so the command can be stopped and run again; if all exist it only prints the laws and draws the
figures (``pip install 'recbole-cierec[report]'``). A point's value is that of the row with the
lowest ratio. A law is the slope in log-log scale of a regression over all rows, with its 95 %
interval; a cost is the difference of the outer two points. Sizes are those of the loaded data: a
user or item without any interaction does not exist. Times are processor seconds, memory is the
process's peak above its memory after the imports. Epochs are extrapolated from 2,000 batches
(CIERec's from 6), and full rankings from 2,000 users.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
import torch
from scipy import stats
from training import BATCH, FEW, SETTINGS, WARM_UP, First, ours, versions

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.errors import ConfigError

AXES = {
    "users": (20_000, 100_000, 1_000_000),
    "items": (10_000, 50_000, 1_000_000),
    "interactions": (500_000, 2_000_000, 20_000_000),
}
REST = {"users": 100_000, "items": 50_000, "interactions": 2_000_000}
PICTURES = {64: (500, 1500, 4500), 224: (50, 150, 450)}
FEATURES = 512
BATCHES, RANKED = 2000, 2000  # batches and users of a full ranking, at most
TRIES, BUSY, LONG = 3, 1.3, 60.0  # times to measure, wall by processor time, seconds
ADDRESS_SPACE = 16 * 2**30  # bytes of a process
# Columns of the tables and lines of the figures: name -> (process that measures it, unit).
STAGES = {
    "load, first start": ("load cold", "interactions"),
    "load, again": ("load", "interactions"),
    "split, samplers": ("load", "interactions"),
    "candidates of the test": ("load", "users"),
    "MF, an epoch": ("train MF", "interactions"),
    "VBPR, an epoch": ("train VBPR", "interactions"),
    "CIERec, an epoch": ("train CIERec", "interactions"),
    "MF, user500": ("evaluate user500", "users"),
    "MF, full ranking": ("evaluate full", "users"),
}
PICTURE_STAGES = ("picture store", "features", "both, second start")


# --------------------------------------------------------------------- one point, one process


class Watch:
    """Processor time, wall time and peak memory, in total and of each stage."""

    def __init__(self) -> None:
        self.base, self.rows = self._peak(), []
        self.restart()

    @staticmethod
    def _peak() -> int:
        status = Path("/proc/self/status").read_text()  # ru_maxrss is inherited from the parent
        return int(status.split("VmHWM:")[1].split()[0])

    def restart(self) -> None:
        self.cpu, self.clock = process_time(), perf_counter()

    def note(self, stage: str, scale: float = 1.0, **more) -> None:
        """End a stage; ``scale``: the whole stage takes this many times the measured part."""
        cpu, wall = process_time() - self.cpu, perf_counter() - self.clock
        mib = (self._peak() - self.base) / 1024
        row = {"stage": stage, "cpu_s": round(cpu * scale, 4), "wall_s": round(wall * scale, 4)}
        row |= {"wall_by_cpu": round(wall / cpu, 2), "mib": round(mib, 1)}
        self.rows.append(row | more)
        self.restart()


def forget(folder: Path) -> None:
    """Drop the data's files from the system's page cache, as after a restart of the machine."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def load(data: Path, cold: bool) -> list[dict]:
    from recbole_cierec.config.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.data.sampling import make_loaders

    keys = {**SETTINGS, "data_path": str(data), "state": "error", "cache_dir": str(data / "cache")}
    keys["eval_args"] = {**SETTINGS["eval_args"], "mode": "user500"}
    config = Config("MF", "synthetic", None, keys, {})
    if cold:
        forget(data / "synthetic")
    watch = Watch()
    dataset = create_dataset(config)
    counts = counts_of(dataset)
    watch.note("load, first start" if cold else "load, again", counts=counts)
    if not cold:
        loaders = make_loaders(config, dataset)
        watch.note("split, samplers", counts=counts)
        list(loaders[2].plan.lists(np.arange(len(loaders[2].plan.users))[:1]))
        watch.note("candidates of the test", counts=counts)
    return watch.rows


def counts_of(dataset) -> dict[str, int]:
    """Users and items of the data as loaded."""
    users, items = dataset.user_num - 1, dataset.item_num - 1
    return {"users": users, "items": items}


def train(data: Path, model: str) -> list[dict]:
    watch = Watch()
    trainer, loader = ours(data, model, {})
    slow = model == "CIERec"
    trainer._train_epoch(First(loader, 2 if slow else WARM_UP), 0)
    count = FEW["CIERec"] if slow else min(BATCHES, len(loader))
    watch.restart()
    trainer._train_epoch(First(loader, count), 0)
    pairs = len(loader._dataset)
    done = min(count * BATCH, pairs)
    rate = done / (process_time() - watch.cpu)
    more = {"pairs": pairs, "pairs_per_s": round(rate), "counts": counts_of(loader._dataset)}
    watch.note(f"{model}, an epoch", pairs / done, **more)
    return watch.rows


def evaluate(data: Path, mode: str) -> list[dict]:
    import evaluation

    watch = Watch()
    job, _ = evaluation.job_of("MF", data, mode)
    loader = job.loaders[2]
    counts = counts_of(loader._dataset)
    everyone = ranked = len(loader.uid_list)
    if mode == "full" and everyone > RANKED:
        some = torch.randperm(everyone, generator=torch.Generator().manual_seed(0))[:RANKED]
        some, ranked = some.sort().values, RANKED
        loader.uid_list, loader.user_df = loader.uid_list[some], loader.user_df[some]
        loader.sample_size = RANKED
        loader._n_rows = RANKED
        loader._use_range()
    if mode == "full":  # what is computed once, whatever the number of users
        next(iter(loader))
    else:
        loader.plan.lists(np.arange(1))
    watch.restart()
    job.trainer.evaluate(loader, load_best_model=False)
    name = "full ranking" if mode == "full" else mode
    more = {"ranked": ranked, "everyone": everyone, "counts": counts}
    if mode != "full" and not loader.plan.negatives:  # the lists are kept
        kept = (lists.items.values.nbytes for _, _, lists in loader.plan.lists())
        more["ranked_lists"] = sum(kept)
    watch.note(f"MF, {name}", everyone / ranked, **more)
    return watch.rows


def pictures(data: Path, size: int, count: int, again: bool) -> list[dict]:
    """Store and features of random PNG pictures by ResNet18 with random weights."""
    import end_to_end

    from recbole_cierec.config.config import Config
    from recbole_cierec.data.dataset import create_dataset
    from recbole_cierec.vision.item_pictures import pictures_of

    keys = {
        **SETTINGS, "data_path": str(data), "cache_dir": str(data / "cache"), "state": "error",
        "visual_encoder": "resnet18", "encoder_weights": "random", "image_size": size,
        "encoder_batch_size": 64, "item_vocabulary": "all",
    }  # fmt: skip
    name = end_to_end.make(data, size, count)
    pictures = pictures_of(create_dataset(Config("VBPR", name, None, keys, {})).content)
    watch = Watch()
    store = pictures.store
    if not again:
        watch.note("picture store", bytes=_bytes(data / "cache", "pictures"))
    features = pictures.features
    assert len(store.pictures) == count == len(features) - 1, "a picture is missing"  # noqa: S101
    if again:
        watch.note("both, second start")
    else:
        watch.note("features", bytes=_bytes(data / "cache", "features"))
    return watch.rows


def _bytes(folder: Path, kind: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"{kind}-*/*"))


# ---------------------------------------------------------------------------- all the points


def jobs() -> list[tuple[str, dict]]:
    """What to measure: the process, and the sizes of its data."""
    sizes = [REST] + [
        {**REST, axis: n} for axis, values in AXES.items() for n in values if n != REST[axis]
    ]
    found = [(work, at) for at in sizes for work in dict.fromkeys(w for w, _ in STAGES.values())]
    for size, counts in PICTURES.items():
        for count in counts:
            at = {"size": size, "pictures": count}
            found += [("pictures", at), ("pictures again", at)]
    return found


def point(work: str, at: dict, data: Path) -> list[dict]:
    """Measure one of :func:`jobs` in this process."""
    folder = home(at, data)
    if "pictures" in at:
        return pictures(folder, at["size"], at["pictures"], work.endswith("again"))
    kind, _, what = work.partition(" ")
    if kind == "load":
        return load(folder, what == "cold")
    return (train if kind == "train" else evaluate)(folder, what)


def home(at: dict, data: Path) -> Path:
    return data / ("growth-" + "-".join(str(n) for n in at.values()))


def drawn(at: dict, data: Path) -> list[str]:
    """Arguments of synthetic.py."""
    sizes = {"users": at["users"], "items": at["items"], "pairs": at["interactions"]}
    flags = [f"--{name}={n}" for name, n in {**sizes, "size": FEATURES}.items()]
    return [f"--into={home(at, data)}", *flags]


def run(command: list[str]) -> str:
    """The output of a script in bounded memory; raises RuntimeError with its last line of error."""
    command = [sys.executable, "-W", "ignore", *command]
    limit = (ADDRESS_SPACE, ADDRESS_SPACE)
    ran = subprocess.run(
        command, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, limit),
    )  # fmt: skip
    if ran.returncode:
        raise RuntimeError(f"{command}: {ran.stderr.strip().splitlines()[-1]}")
    return ran.stdout


def enough(tries: list[list[dict]]) -> bool:
    """Whether a point needs no further try; each try has the rows of its stages."""
    ratios = [max(row["wall_by_cpu"] for row in rows) for rows in tries]
    if len(tries) == 1 and tries[0][0]["process_s"] > LONG:
        return True
    return len(tries) >= TRIES or (len(tries) == 2 and min(ratios) <= BUSY)


def measure(data: Path, out: Path, only: list[str]) -> list[dict]:
    """Rows of all points; missing ones are measured, each in a separate process."""
    rows = [json.loads(line) for line in out.open()] if out.is_file() else []
    for work, at in jobs():
        if not any(work.startswith(name) for name in only):
            continue
        same = [row for row in rows if row["work"] == work and row["at"] == at]
        tries = [[row for row in same if row["try"] == k] for k in {row["try"] for row in same}]
        while not enough(tries):
            new = one_try(work, at, data, len(tries))
            with out.open("a") as file:
                file.writelines(json.dumps(row) + "\n" for row in new)
            tries.append(new)
            rows += new
    return rows


def one_try(work: str, at: dict, data: Path, number: int) -> list[dict]:
    """Rows of one process."""
    if "users" in at:  # generated in another process, whose peak would hide the measured one
        run([str(Path(__file__).with_name("synthetic.py")), *drawn(at, data)])
    elif work == "pictures":  # a store from an earlier try would be read
        shutil.rmtree(home(at, data), ignore_errors=True)
    command = [__file__, f"--data_path={data}", "--child=" + json.dumps([work, at])]
    start = perf_counter()
    found = json.loads(run(command).splitlines()[-1])
    more = {"try": number, "process_s": round(perf_counter() - start, 1), "seed": 0, **versions()}
    for row in found:
        seconds = f"{row['cpu_s']:.2f} s, wall by cpu {row['wall_by_cpu']:.2f}"
        print(f"{row['stage']} {at}: {seconds}, {row['mib']:.0f} MiB", flush=True)
    return [{"work": work, "at": at, **row, **more} for row in found]


# ---------------------------------------------------------------------------- laws and figures


def rows_of(rows: list[dict], stage: str, fixed: dict, axis: str) -> dict[int, list[dict]]:
    """Rows of a stage along an axis, where the other sizes are ``fixed``, by the axis's size."""
    found: dict[int, list[dict]] = {}
    for row in rows:
        at = row["at"]
        others = all(at.get(name) == n for name, n in fixed.items() if name != axis)
        if row["stage"] == stage and others and axis in at:
            found.setdefault(at[axis], []).append(row)
    return dict(sorted(found.items()))


def size_of(row: dict, axis: str) -> int:
    return {**row["at"], **row.get("counts", {})}[axis]


def series(rows: list[dict], stage: str, fixed: dict, axis: str, value: str) -> tuple[list, list]:
    """Sizes and values of a stage along an axis, from each point's try on the calmest machine."""
    found = [
        min(tries, key=lambda row: row["wall_by_cpu"])
        for tries in rows_of(rows, stage, fixed, axis).values()
    ]
    return [size_of(row, axis) for row in found], [row[value] for row in found]


def law(rows: list[dict], stage: str, fixed: dict, axis: str, value: str) -> str:
    """The slope in log-log scale with its 95 % interval, and its name."""
    every = [row for tries in rows_of(rows, stage, fixed, axis).values() for row in tries]
    x = np.log([size_of(row, axis) for row in every])
    if len(set(x)) < 3:
        return "-"
    fit = stats.linregress(x, np.log(np.maximum([row[value] for row in every], 1e-3)))
    spread = fit.stderr * stats.t.ppf(0.975, len(x) - 2)
    bounds = ((0.15, "constant"), (0.85, "less than linear"), (1.15, "linear"))
    name = next((name for bound, name in bounds if fit.slope < bound), "more than linear")
    return f"{fit.slope:.2f} +- {spread:.2f} {name}"


def panels() -> dict[str, list]:
    """The panels of both kinds of figure: axis, fixed sizes, stages."""
    found = {axis: [axis, REST, list(STAGES)] for axis in AXES}
    for size in PICTURES:
        found[f"pictures of {size} px"] = ["pictures", {"size": size}, list(PICTURE_STAGES)]
    return found


def table(rows: list[dict]) -> None:
    for value, unit, scale in (("cpu_s", "s", 1e6), ("mib", "MiB", 2.0**20)):
        each = "us each more" if value == "cpu_s" else "bytes each more"
        for title, (axis, fixed, stages) in panels().items():
            print(f"\n| {unit} by {title} | | | | law | {each} |\n|---|---|---|---|---|---|")
            for stage in stages:
                sizes, values = series(rows, stage, fixed, axis, value)
                if sizes:
                    cells = " | ".join(f"{v:,.2f}" if v < 10 else f"{v:,.0f}" for v in values)
                    more = (values[-1] - values[0]) / max(1, sizes[-1] - sizes[0]) * scale
                    slope = law(rows, stage, fixed, axis, value)
                    print(f"| {stage} | {cells} | {slope} | {more:,.1f} |")


def draw(rows: list[dict], folder: Path) -> None:
    """Two figures of small multiples, time and memory, both axes logarithmic."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams.update({"svg.hashsalt": "growth", "font.size": 9, "svg.fonttype": "path"})
    folder.mkdir(parents=True, exist_ok=True)
    _figure(rows, "cpu_s", "processor time, s", folder / "growth-time.svg")
    _figure(rows, "mib", "peak memory, MiB", folder / "growth-memory.svg")


def short(n: int) -> str:
    """12,345,678 as 12M."""
    for unit, name in ((10**6, "M"), (10**3, "k")):
        if n >= unit:
            return f"{n / unit:.3g}{name}"
    return str(n)


def _figure(rows: list[dict], value: str, label: str, path: Path) -> None:
    import matplotlib.pyplot as plt

    shown = panels()
    figure, axes = plt.subplots(1, len(shown), figsize=(15, 4.6), layout="constrained")
    for plot in axes[1 : len(AXES)]:
        plot.sharey(axes[0])
    for plot, (title, (axis, fixed, stages)) in zip(axes, shown.items(), strict=True):
        for k, stage in enumerate(stages):
            line = series(rows, stage, fixed, axis, value)
            plot.plot(*line, marker="osD^v<>PX"[k], label=stage, markersize=4)
        plot.set(xscale="log", yscale="log", title=title, xlabel=axis)
        sizes = np.array(plot.lines[0].get_xdata())
        low = min(y for line in plot.lines for y in line.get_ydata() if y > 0)
        plot.plot(sizes, low * sizes / sizes[0], "k:", linewidth=1, label="slope 1")
        plot.set_xticks(sizes, [short(n) for n in sizes])
        plot.tick_params("x", which="minor", bottom=False, labelbottom=False)
        plot.grid(alpha=0.3)
    axes[0].set_ylabel(label)
    figure.legend(handles=axes[0].lines, loc="outside lower left", ncols=5)
    figure.legend(handles=axes[-1].lines, loc="outside lower right", ncols=2)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_path", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/runs/growth.jsonl"))
    parser.add_argument("--only", default="load,train,evaluate,pictures", help="what to measure")
    parser.add_argument("--figures", type=Path, help="folder for the figures; default: no figures")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    a = parser.parse_args()
    torch.set_num_threads(1)
    if a.child:
        print(json.dumps(point(*json.loads(a.child), a.data_path)))
        return
    if a.figures:  # before hours of measuring
        try:
            require("matplotlib", "use", "--figures")
        except ConfigError as error:
            parser.error(str(error))
    rows = measure(a.data_path, a.out, a.only.split(","))
    table(rows)
    if a.figures:
        draw(rows, a.figures)


if __name__ == "__main__":
    main()
