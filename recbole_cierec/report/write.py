"""A self-contained page on one run, or on two: no network, no scripts, all text escaped."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from recbole_cierec.compat.optional_packages import require
from recbole_cierec.config.paths import given_path
from recbole_cierec.files.atomic_write import check_folder, check_output, replacing
from recbole_cierec.report.blocks import Page
from recbole_cierec.report.source import Source
from recbole_cierec.serving.tables import check_format

Path_ = str | os.PathLike[str]
TEMPLATES = Path(__file__).parent / "templates"
NEEDED = {"matplotlib": "rc_context", "jinja2": "Environment", "sklearn": "__version__"}


def report(
    checkpoint: Path_,
    other: Path_ | None = None,
    out: Path_ = "report.html",
    *,
    figures: Path_ | None = None,
    config_dict: Mapping[str, Any] | None = None,
    cmd_line: Mapping[str, str] | None = None,
) -> Path:
    """Write a page on a trained model, or on two that were trained on the same data.

    Args:
        checkpoint: The model, or a folder, whose newest run is taken.
        other: A second one, to compare with the first.
        out: The page; ends in .html.
        figures: The folder of the same figures as SVG and PNG; None: named as the page, with
            ``-figures`` in place of ``.html``.
        config_dict: Keys over those of the run, as ``data_path``.
        cmd_line: Flags over these, as texts.

    Returns:
        The page's path.

    Raises:
        UserError: For any input that the user can correct: a package of the extra ``report`` is
            missing, a file is damaged, the runs do not compare.
    """
    for module, name in NEEDED.items():
        require(module, name, "report (all it needs: pip install 'recbole-cierec[report]')")
    page_file = Path(out)
    folder = page_file.with_name(f"{page_file.stem}-figures") if figures is None else Path(figures)
    check_format(page_file, (".html",))
    check_folder(folder)
    given = [checkpoint] if other is None else [checkpoint, other]
    runs = [given_path("checkpoint", path) for path in given]
    check_output(page_file, inputs=runs)
    sources = [Source.open(path, config_dict, cmd_line) for path in runs]
    # The drawing packages take a second to import.
    from recbole_cierec.report.pages import one_run, two_runs

    page = one_run(*sources) if other is None else two_runs((sources[0], sources[1]))
    for figure in page.figures():
        for ending, content in figure.files.items():
            _write(folder / f"{figure.name}{ending}", content)
    _write(page_file, rendered(page).encode())
    return page_file


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as stream:
        stream.write(content)


def rendered(page: Page) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    from recbole_cierec.report.drawing import COLOURS
    from recbole_cierec.terminal import printable

    def visible(value: Any) -> Any:
        """Control characters as text; markup of figures as it is."""
        return (
            value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)
        )

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, finalize=visible,
    )  # fmt: skip
    style = Markup((TEMPLATES / "style.css").read_text(encoding="utf-8"))  # noqa: S704  our file
    return environment.get_template("page.html").render(
        page=page, colours=COLOURS, style=style, markup=Markup, version=version("recbole-cierec")
    )
