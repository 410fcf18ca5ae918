"""benchmarks/gpu.py runs on a CPU as well, and docs/gpu.md is written from its rows."""

from __future__ import annotations

import json
import sys

import pytest


@pytest.fixture
def gpu(benchmark_module):
    return benchmark_module("gpu")


def row(device: str, result: str, quick: bool = False) -> dict:
    versions = {"torch": "2", "recbole": "1"}
    return {
        "part": "models", "name": "MF", "what": "training", "result": result, "device": device,
        "quick": quick, **versions,
    }  # fmt: skip


def test_the_page_holds_the_table_of_the_rows(gpu, tmp_path):
    page = tmp_path / "gpu.md"
    page.write_text(gpu.PAGE.read_text("utf-8"), "utf-8")
    gpu.write_page(gpu.RUNS, page)
    assert page.read_text("utf-8") == gpu.PAGE.read_text("utf-8")


def test_without_a_row_of_a_gpu_the_page_says_so(gpu):
    small = [row("cpu", "1 pairs/s", quick=True)]
    assert gpu.section(small).startswith("No figures of a CUDA device exist yet")
    assert "| cpu | MF | training | 1 pairs/s | - |" in gpu.section(small)


def test_rows_of_a_gpu_replace_those_of_a_cpu_and_the_last_one_counts(gpu):
    rows = [row("cpu", "1 pairs/s"), row("H", "2 pairs/s"), row("H", "3 pairs/s")]
    rows.append(row("H", "4 pairs/s", quick=True))
    lines = gpu.section(rows).splitlines()
    assert lines[2:3] == ["| H | MF | training | 3 pairs/s | - |"]
    assert not any("cpu" in line or "No figures" in line for line in lines)


@pytest.mark.slow
def test_all_parts_run_on_a_cpu(gpu, tmp_path, monkeypatch):
    out = tmp_path / "rows.jsonl"
    words = ["gpu.py", f"--data_path={tmp_path}", "--device=cpu", "--quick", f"--out={out}"]
    monkeypatch.setattr(sys, "argv", words)
    assert gpu.main() == 0
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert {r["part"] for r in rows} == {"contract", "models", "finetune"}
    assert rows[0]["result"].split()[1:] == ["passed"]  # none failed
    assert {r["name"] for r in rows if r["part"] == "models"} == {"MF", "VBPR", "CIERec"}
