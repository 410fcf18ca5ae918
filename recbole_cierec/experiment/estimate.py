"""What an experiment has left to do, and the hours that its rows predict."""

from __future__ import annotations

from recbole_cierec.experiment.plan import Done, Plan, Run
from recbole_cierec.experiment.rows import Row
from recbole_cierec.experiment.spec import Experiment


def describe(experiment: Experiment, plan: Plan, rows: list[Row], done: Done, workers: int) -> str:
    """The plan in a few lines, with the hours that rows of equal runs predict."""
    dropped = plan.dropped(done)
    left = plan.left(done)
    searches = [search for search in plan.searches if not done.search(search)]
    hours, unknown = _hours(left, rows)
    open_searches = 0
    sizes = {
        "model": len(experiment.models),
        "data set": len(experiment.datasets),
        "protocol": len(experiment.protocols),
        "seed": len(experiment.seeds),
    }
    parts = ", ".join(counted(count, word) for word, count in sizes.items())
    lines = [
        f"{experiment.title}: {counted(len(plan.runs), 'run')} ({parts}), "
        f"{counted(len(plan.searches), 'search')}",
        f"left: {counted(len(left), 'run')}, {counted(len(searches), 'search')}",
    ]
    if dropped:
        lines.append(f"dropped: {counted(len(dropped), 'run')} of models far behind the best")
    if searches and experiment.budget is not None:
        budget = experiment.budget
        limit = f", {budget.seconds:g} processor seconds" if budget.seconds else ""
        lines.append(f"each search: at most {budget.trials} trials{limit}")
        if budget.seconds:
            hours += len(searches) * budget.seconds / 3600
        else:
            open_searches = len(searches)
    at_once = max(workers, 1)
    time = hours / at_once
    estimate = f"{time:.1f} hours" if time >= 1 else f"{60 * time:.0f} min"
    estimate += f" with {at_once} at once"
    if unknown or open_searches:
        what = [counted(unknown, "run")] * bool(unknown)
        what += [counted(open_searches, "search")] * bool(open_searches)
        known = f"; {estimate} for the others" if hours else ""
        estimate = f"unknown for {' and '.join(what)}, until the first of each model{known}"
    lines.append(f"time: {estimate if left or searches else 'nothing is left'}")
    return "\n".join(lines)


def counted(count: int, word: str) -> str:
    """``1 run``, ``2 runs``, ``2 searches``."""
    ending = "" if count == 1 else "es" if word.endswith("h") else "s"
    return f"{count} {word}{ending}"


def _hours(left: list[Run], rows: list[Row]) -> tuple[float, int]:
    """Hours of the runs whose model, or another variant of it, has a row; how many have none."""
    hours, unknown = 0.0, 0
    rows = [row for row in rows if row.get("error") is None]
    for run in left:
        same = [row for row in rows if row["class"] == run.model.name]
        same = [row for row in same if row["model"] == run.model.label] or same
        for part in ("dataset", "protocol"):
            same = [row for row in same if row[part] == getattr(run, part)] or same
        if same:
            hours += sum(row["seconds"]["wall"] for row in same) / len(same) / 3600
        else:
            unknown += 1
    return hours, unknown
