"""Sphinx: ``python -m sphinx -W --keep-going -b html docs docs/_build/html``."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from recbole_cierec import __version__  # noqa: E402

project = "recbole_cierec"
author = "recbole_cierec contributors"
copyright = author
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "mathml"]
# A page of an experiment appears when its rows are committed.
ROWS = HERE.parent / "benchmarks" / "runs" / "experiments"
exclude_patterns = ["_build"] + [
    f"experiments/{page.name}"
    for page in (HERE / "experiments").glob("*.md")
    if not (ROWS / page.stem / "rows.jsonl").is_file()
]
nitpicky = True
nitpick_ignore_regex = [("py:.*", ".*")]  # types in signatures are not links

myst_enable_extensions = ["dollarmath", "colon_fence", "attrs_inline"]
myst_heading_anchors = 3
myst_links_external_new_tab = False

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
add_module_names = False
napoleon_numpy_docstring = False

highlight_language = "none"  # a block without a language is a command line

html_theme = "furo"
html_title = f"recbole_cierec {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_math_renderer = "mathml"
html_copy_source = False
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "top_of_page_buttons": []}
pygments_style = "tango"
pygments_dark_style = "github-dark"
