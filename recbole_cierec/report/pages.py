"""Which sections a page has."""

from __future__ import annotations

from recbole_cierec.evaluation.names import ALL, LABELS
from recbole_cierec.report import comparison
from recbole_cierec.report.bars import bars_section, shown_means
from recbole_cierec.report.blocks import Note, Page, Section
from recbole_cierec.report.curves import curves_section, gates_section
from recbole_cierec.report.drawing import number
from recbole_cierec.report.embeddings import item_vectors, map_section, two_maps
from recbole_cierec.report.metrics import Mean
from recbole_cierec.report.neighbours import neighbours_section
from recbole_cierec.report.numbers import numbers_section
from recbole_cierec.report.people import draw_users, failures_section, rank, users_section
from recbole_cierec.report.source import Source
from recbole_cierec.report.tiles import Tiles

Fact = tuple[str, str, str]


def one_run(source: Source) -> Page:
    """Everything about one model.

    Raises:
        UserError: The checkpoint cannot be used.
    """
    trained = source.trained
    tiles, sample = Tiles(source), rank(source, draw_users(source))
    vectors = item_vectors(trained, source.seed)
    users, shown = users_section(source, tiles, sample)
    means = shown_means(source)
    sections = [
        bars_section(source, means),
        users,
        failures_section(source, tiles, sample, shown),
        neighbours_section(source, tiles, vectors),
        map_section(source, vectors),
        curves_section(source),
        gates_section(source) or _no_gates(source),
        numbers_section(source, tiles),
    ]
    if tiles.paths is None:
        users.parts.insert(0, Note(_no_pictures(source)))
    size = f"{len(trained.user_ids) - 1:,} users, {len(trained.item_ids) - 1:,} items"
    subtitle = f"{source.state['dataset']}: {size}; {source.path.name}"
    return Page(f"{source.name} on {source.state['dataset']}", subtitle, _facts(means), sections)


def _no_gates(source: Source) -> Section:
    why = f"{source.name} was trained without gradient gates, or the run has no history."
    return Section("gates", "Gates", "Gradient gates", "", [Note(why)])


def _no_pictures(source: Source) -> str:
    config = source.trained.config
    return (
        f"Items are shown without pictures: {config['data_path']} has no {config['dataset']}.item "
        "with pictures, and the checkpoint does not know them either; --data_path=DIR names the "
        "folder of the data sets."
    )


def _facts(means: dict[str, list[Mean]]) -> list[Fact]:
    facts = []
    for metric, groups in list(means.items())[:2]:
        for mean in groups[:3]:
            interval = f"{number(mean.low)} to {number(mean.high)}"
            if mean.chance is not None:
                interval += f", chance {number(mean.chance)}"
            facts.append((f"{metric}, {LABELS[mean.group]}", number(mean.mean), interval))
    return facts


def two_runs(pair: tuple[Source, Source]) -> Page:
    """A comparison.

    Raises:
        UserError: A checkpoint cannot be used, or they are of other data or another protocol.
    """
    differences = comparison.differences(pair)  # refused before any model is made
    first, second = pair
    tiles = Tiles(first)
    vectors = tuple(item_vectors(source.trained, source.seed) for source in pair)
    metrics = comparison.metrics_section(pair, differences)
    sections = [
        metrics,
        comparison.users_section(pair, tiles),
        two_maps(pair, (vectors[0], vectors[1])),
        comparison.settings_section(pair),
    ]
    facts = [
        (f"{row.metric}, B less A", number(row.mean, True), f"A {number(row.a)}, B {number(row.b)}")
        for row in differences
        if row.group == ALL
    ]
    title = f"{first.name} and {second.name} on {first.state['dataset']}"
    subtitle = f"A: {first.path.name}. B: {second.path.name}."
    return Page(title, subtitle, facts[:3], sections)
