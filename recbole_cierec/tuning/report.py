"""What a search leaves: the best settings as yaml, its trials as a table and as jsonl."""

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
from recbole_cierec.files.markdown import markdown_table
from recbole_cierec.tuning.ranges import same
from recbole_cierec.tuning.search import Search
from recbole_cierec.tuning.study import Row

TOP = 5
_PLAIN = re.compile(r"[A-Za-z_][\w./-]*")


def yaml_text(value: Any) -> str:
    """A value as ``config.yaml`` reads it."""
    if isinstance(value, str) and _PLAIN.fullmatch(value) and parse_value(value) == value:
        return value
    return json.dumps(value)


def check_places(search: Search) -> None:
    """Check, before any trial, that the search's files can be written.

    Raises:
        UserError: One of them exists and was not written by this search, or cannot be written.
    """
    for path, head in _places(search).values():
        check_output(path, partial(_refuse_other, head=head))


def _places(search: Search) -> dict[str, tuple[Path, str]]:
    """The search's files, and how their text begins."""
    stem, title = Path(search.out, search.name), f"# {search.model} on {search.dataset}"
    heads = {"table": (".md", title), "rows": (".jsonl", '{"model": '), "yaml": (".yaml", title)}
    return {key: (Path(f"{stem}{suffix}"), head) for key, (suffix, head) in heads.items()}


def _refuse_other(path: Path, head: str) -> None:
    with path.open("rb") as file:
        begin = file.read(len(head.encode()))
    if begin not in (b"", head.encode()):
        raise DataError(
            f"{path}: was not written by this search and is not replaced; "
            "use another --name or --out"
        )


def write(place: tuple[Path, str], text: str) -> Path:
    """Replace a file in one step: another machine may write it too."""
    path, head = place
    with replacing(path, check=partial(_refuse_other, head=head)) as file:
        file.write(text.encode())
    return path


def best_yaml(search: Search, best: Row) -> str:
    """The best trial's settings and the keys given on the command line, each explained."""
    metric = search.base["valid_metric"]
    lines = [
        f"# {search.model} on {search.dataset}: trial {best['trial']} of {search.count} "
        f"by validation, {metric} {best['valid']:.6g} after {best['best_epoch']} epochs."
    ]
    for key, value in given(search).items():
        lines.append(f"{key}: {yaml_text(value)}  # ({_kind(value)}) Given.")
    for key, value in best["settings"].items():
        first = search.first[key]
        note = "the default" if same(value, first) else f"the default is {yaml_text(first)}"
        lines.append(f"{key}: {yaml_text(value)}  # ({_kind(value)}) Found; {note}.")
    return "\n".join(lines) + "\n"


def _kind(value: Any) -> str:
    return "null" if value is None else type(value).__name__


def given(search: Search) -> dict[str, Any]:
    """The keys given on the command line that affect the result."""
    return {
        # In the configuration eval_args is completed and resolved.
        key: _parsed(text) if key == "eval_args" else search.base[key]
        for key, text in search.flags.items()
        if key not in PLACE_KEYS
    }


def _parsed(value: Any) -> Any:
    return parse_value(value) if isinstance(value, str) else value


def best_command(search: Search, yaml: Path) -> str:
    """The command that trains with the best settings, keeps the checkpoint, and tests."""
    words = [
        "python",
        "-m",
        "recbole_cierec",
        f"--model={search.model}",
        f"--dataset={search.dataset}",
    ]
    words.append(f"--config_files={' '.join([*map(str, search.files), str(yaml)])}")
    words += [f"--{key}={text}" for key, text in search.flags.items() if key in PLACE_KEYS]
    return shlex.join(words)


def trial_line(search: Search, row: Row) -> str:
    """One trial in one line, for the terminal."""
    if row["state"] == "failed":
        what = f"failed: {row.get('reason', 'no reason known')}"
    else:
        what = f"{search.base['valid_metric']} {row['valid']:.6g}"
    settings = ", ".join(f"{k} {yaml_text(v)}" for k, v in (row["settings"] or {}).items())
    return f"trial {row['trial']} of {search.count}: {what}; {settings}"


def table(search: Search, rows: list[Row], top: int | None = None) -> str:
    """Markdown, best trial first, failed ones last.

    Args:
        search: The search.
        rows: Its trials.
        top: Show only so many.
    """
    sign = -1 if search.base["valid_metric_bigger"] else 1
    order = sorted(
        rows,
        key=lambda row: (
            row["state"] != "complete",
            sign * (row.get("valid") or 0.0),
            row["trial"],
        ),
    )
    head = ["trial", search.base["valid_metric"], *search.space, "epochs", "best", "s", "cpu s"]
    lines = [head]
    for row in order[:top]:
        settings = row["settings"] or {}
        cells = [f"{row['trial']}{'' if row['trial'] else ' (defaults)'}", _score(row)]
        cells += [yaml_text(settings[k]) if k in settings else "-" for k in search.space]
        cells += [str(row.get(k, "-")) for k in ("epochs", "best_epoch", "seconds", "cpu_seconds")]
        lines.append(cells)
    return markdown_table(lines)


def _score(row: Row) -> str:
    if row["state"] == "complete":
        return f"{row['valid']:.6f}"
    if row["state"] == "pruned":
        return f"{row['valid']:.6f}, stopped early"
    return "failed: " + str(row.get("reason", "")).replace("|", "/")


def save(search: Search, rows: list[Row], best: Row | None) -> dict[str, Path]:
    """Write all files.

    Returns:
        The files: ``table``, ``rows`` and, if a trial is complete, ``yaml``.
    """
    places = _places(search)
    title = (
        f"# {search.model} on {search.dataset}\n\n{len(rows)} of {search.count} trials, sampler "
        f"{search.sampler}, seed {search.base['seed']}; validation only. Ranges: "
        f"`{json.dumps({k: r.plain() for k, r in search.space.items()})}`"
    )
    paths = {"table": write(places["table"], f"{title}\n\n{table(search, rows)}\n")}
    names: Mapping[str, Any] = {"model": search.model, "dataset": search.dataset}
    lines = [json.dumps({**names, "given": given(search), **row}) for row in rows]
    paths["rows"] = write(places["rows"], "".join(f"{line}\n" for line in lines))
    if best is not None:
        paths["yaml"] = write(places["yaml"], best_yaml(search, best))
    return paths
