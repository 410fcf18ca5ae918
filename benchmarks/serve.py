"""Start, memory, latency and throughput of the server; figures in docs/performance/ranking.md.

    python benchmarks/serve.py saved/VBPR.pth [--data_path=DIR] [--out=benchmarks/runs/serve.jsonl]

Starts ``python -m recbole_cierec serve`` as a process and sends lists of 20 items for random users,
one user a request, over connections that stay open. The clients are another process on the same
cores. A row has wall times and the server's processor times: where cores are shared with others,
the ratio of the two says how far wall times can be trusted.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from time import perf_counter

import httpx
import numpy as np
import psutil

MB = 2**20


def start(checkpoint: str, flags: list[str]) -> tuple[subprocess.Popen, str, float]:
    """The server, its address, and the seconds until its first answer."""
    command = [sys.executable, "-m", "recbole_cierec", "serve", checkpoint, "--port=0", *flags]
    began = perf_counter()
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    if server.stdout is None or " at " not in (line := server.stdout.readline()):
        raise SystemExit("the server has not started")
    address = line.split(" at ")[1].split()[0]
    httpx.get(f"{address}/api/health", timeout=60).raise_for_status()
    return server, address, perf_counter() - began


def memory(process: psutil.Process) -> dict[str, int]:
    """Resident megabytes: all, and those that are no pages of files such as libraries."""
    info = process.memory_info()
    return {"resident_mb": info.rss // MB, "anonymous_mb": (info.rss - info.shared) // MB}


async def load(address: str, users: list[str], clients: int, requests: int) -> list[float]:
    """Seconds of each request, of so many clients that send one after the other."""
    left = iter(range(requests))

    async def client() -> list[float]:
        times = []
        async with httpx.AsyncClient(base_url=address, timeout=120) as session:
            for _ in left:
                body = {"users": [random.choice(users)], "topk": 20}  # noqa: S311
                began = perf_counter()
                (await session.post("/api/recommend", json=body)).raise_for_status()
                times.append(perf_counter() - began)
        return times

    parts = await asyncio.gather(*(client() for _ in range(clients)))
    return [time for part in parts for time in part]


def measured(
    process: psutil.Process, job: Callable[[], Awaitable[list[float]]]
) -> dict[str, float]:
    """Milliseconds, requests a second, and the server's processor time, of a load."""

    def processor() -> float:
        times = process.cpu_times()
        return times.user + times.system

    cpu, began = processor(), perf_counter()
    times = asyncio.run(job())  # type: ignore[arg-type]
    wall, cpu = perf_counter() - began, processor() - cpu
    p50, p95, p99 = np.percentile(times, (50, 95, 99)) * 1000
    return {
        "requests": len(times),
        "p50_ms": round(p50, 2),
        "p95_ms": round(p95, 2),
        "p99_ms": round(p99, 2),
        "per_second": round(len(times) / wall, 1),
        "cpu_ms_per_request": round(1000 * cpu / len(times), 3),
        "wall_by_cpu": round(wall / cpu, 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint")
    parser.add_argument("--data_path")
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    flags = [f"--data_path={options.data_path}"] if options.data_path else []
    server, address, seconds = start(options.checkpoint, flags)
    process = psutil.Process(server.pid)
    times = process.cpu_times()
    about = httpx.get(f"{address}/api/models").json()["models"][0]
    row = {
        **{key: about[key] for key in ("model", "dataset", "users", "items")},
        "start_s": round(seconds, 2),
        "start_cpu_s": round(times.user + times.system, 2),
        **memory(process),
    }
    users = httpx.get(f"{address}/api/users?limit=100&prefix=").json()["users"]
    asyncio.run(load(address, users, 1, 20))
    for clients, count in ((1, options.requests // 4), (50, options.requests)):
        row[f"clients_{clients}"] = measured(
            process, lambda c=clients, n=count: load(address, users, c, n)
        )
    row["after"] = memory(process)
    began = perf_counter()
    server.send_signal(signal.SIGINT)
    server.wait(60)
    row["end_s"] = round(perf_counter() - began, 2)
    row["machine"] = f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}"
    print(json.dumps(row))
    if options.out:
        with options.out.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
