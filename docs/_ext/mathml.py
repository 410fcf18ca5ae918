"""Equations as MathML, which browsers draw themselves: no script, no font and no network."""

from __future__ import annotations

import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

_TAG = re.compile(r"\\tag\{(.*?)\}")


def _inline(self: HTML5Translator, node: nodes.math) -> None:
    self.body.append(convert(node.astext()))
    raise nodes.SkipNode


def _block(self: HTML5Translator, node: nodes.math_block) -> None:
    equation = convert(_TAG.sub("", node.astext()), display="block")
    tags = "".join(f'<span class="tag">({tag})</span>' for tag in _TAG.findall(node.astext()))
    self.body.append(f'<div class="equation" tabindex="0">{equation}{tags}</div>\n')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the renderer ``mathml``."""
    app.add_html_math_renderer(  # type: ignore[no-untyped-call]
        "mathml", inline_renderers=(_inline, None), block_renderers=(_block, None)
    )
    return {"parallel_read_safe": True, "parallel_write_safe": True}
