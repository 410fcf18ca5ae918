"""Random inputs for some seconds, and inputs that such runs have found; see fuzzing.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from fuzz_parts import PARTS
from fuzzing import FuzzError, check_line, memory_limit, spare_time_and_threads

# Inputs of each part: a few seconds. Fewer where each prepares a run.
INPUTS = {"atomic": 60, "keys": 60, "files": 60, "pictures": 1500, "checkpoints": 40}


@pytest.fixture
def part(in_tmp, monkeypatch):
    """``part(name)`` -> that part in a folder of its own."""
    spare_time_and_threads(monkeypatch.setattr)

    def make(name):
        return PARTS[name](in_tmp)

    return make


@pytest.mark.parametrize("name", PARTS)
def test_every_input_ends_with_a_result_or_with_one_line(part, name):
    attempted = part(name)
    with memory_limit():
        lines = [attempted.attempt(0, number) for number in range(INPUTS[name])]
    refused = sum(line is not None for line in lines)
    assert 0 < refused < len(lines)  # else the inputs exercise one side only


def test_the_command_counts_inputs_and_repeats_one(tmp_path):
    script = Path(__file__).with_name("fuzzing.py")
    for words in (["--minutes=0.01"], ["--only=3"]):
        command = [sys.executable, script, "--part=pictures", "--seed=1", *words]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert ended.returncode == 0, ended.stderr
        assert ("a minute" if "minutes" in words[0] else ":") in ended.stdout


@pytest.mark.parametrize("line", ["", "a\nb", "a\x1b[31m", "x" * 3000])
def test_the_check_of_messages_finds_what_it_must(line):
    with pytest.raises(FuzzError):
        check_line(line)
