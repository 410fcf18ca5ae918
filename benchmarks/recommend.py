"""Lists for all users of a large model: seconds and memory of ``recommend``.

    python benchmarks/recommend.py --into=DIR [--users=1000000 --items=100000] [--nproc=1,2]

Makes synthetic data (benchmarks/synthetic.py), trains MF for one epoch, and writes 20 items for
every user. A row has the seconds, the peak memory of the largest process (kilobytes, as the kernel
counts it), and the digest of the file, which must not depend on the number of processes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import synthetic

RUN = [sys.executable, "-m", "recbole_cierec"]


def train(into: Path, users: int, items: int, pairs: int) -> Path:
    """The checkpoint of MF after one epoch, made if it is missing."""
    folder = into / "saved"
    checkpoint = folder / "MF.pth"
    if not checkpoint.is_file():
        synthetic.make(into, users, items, pairs, size=8)
        keys = {"model": "MF", "dataset": "synthetic", "data_path": ".", "epochs": 1}
        # Few users have test interactions: the run's own test is not what is measured.
        split = "{order: TO, group_by: none, split: {RS: [0.998, 0.001, 0.001]}}"
        keys |= {"checkpoint_dir": folder, "eval_args": split}
        flags = [f"--{key}={value}" for key, value in keys.items()]
        subprocess.run([*RUN, "run", *flags], cwd=into, check=True)
        max(folder.glob("*.pth"), key=lambda path: path.stat().st_mtime).rename(checkpoint)
    return checkpoint


def measure(checkpoint: Path, nproc: int, topk: int, ending: str, users: str) -> dict[str, Any]:
    out = checkpoint.parent / f"lists-{nproc}.{ending}"
    command = [*RUN, "recommend", checkpoint, f"--topk={topk}", f"--out={out}", f"--users={users}"]
    command += [f"--nproc={nproc}"] if nproc > 1 else []
    start = time.perf_counter()
    process = subprocess.Popen(list(map(str, command)))
    _, status, used = os.wait4(process.pid, 0)
    wall = time.perf_counter() - start
    if status:
        sys.exit(f"recommend ended with status {status}")
    row = {
        "wall": round(wall, 1),
        "cpu": round(used.ru_utime + used.ru_stime, 1),
        "kilobytes": used.ru_maxrss,
        "file": out.stat().st_size,
        "sha256": hashlib.sha256(out.read_bytes()).hexdigest()[:16],
    }
    out.unlink()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, required=True)
    for name, default in (("users", 1_000_000), ("items", 100_000), ("pairs", 5_000_000)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--topk", type=int, default=20)
    parser.add_argument("--nproc", default="1")
    parser.add_argument("--format", default="parquet")
    parser.add_argument("--for_users", default="all", help="a file of ids")
    a = parser.parse_args()
    checkpoint = train(a.into, a.users, a.items, a.pairs).resolve()
    for nproc in map(int, a.nproc.split(",")):
        row = {"users": a.users, "items": a.items, "topk": a.topk, "nproc": nproc}
        row |= {"threads": os.environ.get("OMP_NUM_THREADS"), "format": a.format}
        row |= measure(checkpoint, nproc, a.topk, a.format, a.for_users)
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
