"""A study's guidelines as HTML for the annotators' page."""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import OptionsDict


def _link_open(
    renderer: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, _: MutableMapping[str, Any]
) -> str:
    tokens[index].attrSet("rel", "noopener nofollow")
    tokens[index].attrSet("target", "_blank")
    return renderer.renderToken(tokens, index, options, _)


@lru_cache
def _markdown() -> MarkdownIt:
    # Text that looks like HTML stays text, and no address runs a script: markdown-it refuses javascript: and its like.
    markdown = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    markdown.add_render_rule("link_open", _link_open)
    return markdown


def guidelines_html(text: str) -> str:
    """Return Markdown as HTML without images, scripts or any HTML of its own; links open in a new tab."""
    return str(_markdown().render(text))
