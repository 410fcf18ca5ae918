"""The run without arguments: CIERec on the demo data, compared with a plain model and chance.

The plain model, MF_Content, sums id, picture and annotation vectors. It trains on the same split
and is tested on the same candidates, so that the table shows what CIERec gains, and for whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recbole_cierec.console.result_table import aligned
from recbole_cierec.evaluation.names import ALL, LABELS, join_name
from recbole_cierec.evaluation.per_user import UserResults, by_user_file, read_per_user
from recbole_cierec.evaluation.significance import Comparison, compare, compare_to_level
from recbole_cierec.terminal import say

OPPONENT = "MF_Content"
METRIC = "recall@10"
SAID = (ALL, "cold", "item_unseen", "item_rare")  # groups with a sentence


def run_demo() -> None:
    """Train both models and print what the comparison shows."""
    # Imported here: this takes seconds, and --help must not wait for it.
    from recbole_cierec.distributed.launch import torchrun_keys
    from recbole_cierec.logs import warnings_on_terminal
    from recbole_cierec.quick_start import run

    result = run()
    if not result or torchrun_keys():
        return
    warnings_on_terminal()  # the second run is not shown
    say(f"\nFor comparison: {OPPONENT} on the same data, split and candidates ...")
    try:
        other = run(OPPONENT)
    except KeyboardInterrupt:  # without its checkpoint: --resume=auto goes on with CIERec
        raise KeyboardInterrupt from None
    if other:
        say(comparison_text(result, other))


def comparison_text(result: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """Compare two results of ``run`` on the same data by group, in a table and sentences.

    Args:
        result: The result of the first model; its checkpoint lies next to its values by user.
        other: That of the second.
    """
    names = result["model"], other["model"]
    ours, theirs = (_by_user(each) for each in (result, other))
    rows = [["", "users", *names, "chance", "difference", "95 % interval"]]
    sentences = []
    for group, label in LABELS.items():
        metric = join_name(METRIC, group)
        if not result["users"].get(group) or metric not in result["chance"]:
            continue
        level = result["chance"][metric]
        found = compare(ours, theirs, metric)
        cells = (f"{value:.5f}" for value in (found.mean, found.base, level))
        interval = f"{found.low:+.5f} to {found.high:+.5f}"
        difference = f"{found.mean - found.base:+.5f}"
        rows.append([label, str(found.n), *cells, difference, interval])
        if group in SAID:
            levels = [compare_to_level(each, metric, level) for each in (ours, theirs)]
            sentences.append(f"{label.capitalize()}: {_verdict(names, found, levels)}")
    title = f"\n{METRIC.capitalize()} of {names[0]} and {names[1]} on {result['dataset']}"
    return "\n".join([title, aligned(rows), "", *sentences])


def _by_user(result: Mapping[str, Any]) -> UserResults:
    return read_per_user(by_user_file(Path(result["checkpoint"])))


def _verdict(names: tuple[str, str], found: Comparison, levels: list[Comparison]) -> str:
    """One sentence: each model against chance, and both against each other."""
    places = [_place(level) for level in levels]
    if places[0] == places[1]:
        chance = f"both models are {places[0]} chance"
    else:
        chance = f"{names[0]} is {places[0]} chance and {names[1]} {places[1]} it"
    if found.low > 0:
        return f"{chance}; {names[0]} is better."
    if found.high < 0:
        return f"{chance}; {names[1]} is better."
    return f"{chance}; the difference between them may be due to the choice of users."


def _place(level: Comparison) -> str:
    """Where a model is with respect to a level: at it if the 95 % interval includes it."""
    if level.low > 0:
        return "above"
    return "below" if level.high < 0 else "at"
