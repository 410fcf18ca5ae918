"""What a study leaves: the best settings as yaml, its trials as table and as jsonl."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from recbole_cierec.config.schema import PLACE_KEYS
from recbole_cierec.config.yaml import parse_value
from recbole_cierec.errors import DataError
from recbole_cierec.files.atomic_write import check_output, replacing
from recbole_cierec.tuning.ranges import same
from recbole_cierec.tuning.trial import Plan

Row = dict[str, Any]
TOP = 5
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")


def yaml_text(value: Any) -> str:
    """A value as our yaml reader takes it."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and parse_value(value) == value:
        return value
    return json.dumps(value)


def check_places(plan: Plan) -> None:
    """Check, before any trial, that the study's files can be written.

    Raises:
        UserError: One of them exists and was not written by this study, or cannot be written.
    """
    for path, head in _places(plan).values():
        check_output(path, partial(_refuse_other, head=head))


def _places(plan: Plan) -> dict[str, tuple[Path, str]]:
    """The study's files, and how their text begins."""
    stem, title = plan.out / plan.name, f"# {plan.model} on {plan.dataset}"
    heads = {"table": (".md", title), "rows": (".jsonl", '{"model": '), "yaml": (".yaml", title)}
    return {key: (Path(f"{stem}{suffix}"), head) for key, (suffix, head) in heads.items()}


def _refuse_other(path: Path, head: str) -> None:
    with path.open("rb") as file:
        begin = file.read(len(head.encode()))
    if begin not in (b"", head.encode()):
        raise DataError(
            f"{path}: was not written by this study and is not replaced; "
            "use another --name or --out"
        )


def write(place: tuple[Path, str], text: str) -> Path:
    """Replace a file in one step: another process of the study may write it too."""
    path, head = place
    with replacing(path, check=partial(_refuse_other, head=head)) as file:
        file.write(text.encode())
    return path


def best_yaml(plan: Plan, best: Row) -> str:
    """The settings of the best trial and what was given on the command line, each explained."""
    metric = plan.base["valid_metric"]
    lines = [
        f"# {plan.model} on {plan.dataset}: trial {best['trial']} of {plan.count} by validation, "
        f"{metric} {best['valid']:.6g} after {best['best_epoch']} epochs."
    ]
    for key, value in given(plan).items():
        lines.append(f"{key}: {yaml_text(value)}  # ({_kind(value)}) Given.")
    for key, value in best["settings"].items():
        first = plan.first[key]
        note = "the default" if same(value, first) else f"the default is {yaml_text(first)}"
        lines.append(f"{key}: {yaml_text(value)}  # ({_kind(value)}) Found; {note}.")
    return "\n".join(lines) + "\n"


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def given(plan: Plan) -> dict[str, Any]:
    """What the command line says that decides the result."""
    return {
        # The configuration has eval_args completed and resolved, which is not what was given.
        key: parse_value(text) if key == "eval_args" else plan.base[key]
        for key, text in plan.flags.items()
        if key not in PLACE_KEYS
    }


def best_command(plan: Plan, yaml: Path) -> str:
    """The command that trains the best settings, keeps the checkpoint, and tests."""
    words = ["python", "-m", "recbole_cierec", f"--model={plan.model}", f"--dataset={plan.dataset}"]
    words.append(f"--config_files={' '.join([*map(str, plan.files), str(yaml)])}")
    words += [f"--{key}={text}" for key, text in plan.flags.items() if key in PLACE_KEYS]
    return shlex.join(words)


def trial_line(plan: Plan, row: Row) -> str:
    """One trial in one line, for the terminal."""
    if row["state"] == "failed":
        what = f"failed: {row.get('reason', 'no reason known')}"
    else:
        what = f"{plan.base['valid_metric']} {row['valid']:.6g}"
    settings = ", ".join(f"{k} {yaml_text(v)}" for k, v in (row["settings"] or {}).items())
    return f"trial {row['trial']} of {plan.count}: {what}; {settings}"


def table(plan: Plan, rows: list[Row], top: int | None = None) -> str:
    """Markdown, best trial first, failed ones last.

    Args:
        plan: The study.
        rows: Its trials.
        top: Only so many.
    """
    sign = -1 if plan.base["valid_metric_bigger"] else 1
    order = sorted(
        rows,
        key=lambda row: (
            row["state"] != "complete",
            sign * (row.get("valid") or 0.0),
            row["trial"],
        ),
    )
    head = ["trial", plan.base["valid_metric"], *plan.space, "epochs", "best", "s", "cpu s"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in order[:top]:
        settings = row["settings"] or {}
        cells = [f"{row['trial']}{'' if row['trial'] else ' (defaults)'}", _score(row)]
        cells += [yaml_text(settings[k]) if k in settings else "-" for k in plan.space]
        cells += [str(row.get(k, "-")) for k in ("epochs", "best_epoch", "seconds", "cpu_seconds")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _score(row: Row) -> str:
    if row["state"] == "complete":
        return f"{row['valid']:.6f}"
    return "failed: " + str(row.get("reason", "")).replace("|", "/")


def save(plan: Plan, rows: list[Row], best: Row | None) -> dict[str, Path]:
    """Write everything anew.

    Returns:
        ``yaml`` (only if a trial came to its end), ``table`` and ``rows``: the files.
    """
    places = _places(plan)
    title = (
        f"# {plan.model} on {plan.dataset}\n\n{len(rows)} of {plan.count} trials, sampler "
        f"{plan.sampler}, seed {plan.base['seed']}; validation only. Ranges: "
        f"`{json.dumps({k: r.plain() for k, r in plan.space.items()})}`"
    )
    paths = {"table": write(places["table"], f"{title}\n\n{table(plan, rows)}\n")}
    names: Mapping[str, Any] = {"model": plan.model, "dataset": plan.dataset}
    lines = [json.dumps({**names, "given": given(plan), **row}) for row in rows]
    paths["rows"] = write(places["rows"], "".join(f"{line}\n" for line in lines))
    if best is not None:
        paths["yaml"] = write(places["yaml"], best_yaml(plan, best))
    return paths
