"""Guidelines of a study: Markdown as HTML that can do nothing but be read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token


def link_open(renderer: Any, tokens: Sequence[Token], index: int, options: Any, _: Any) -> str:
    """Render a link that opens beside the page, and tells the other site nothing of it."""
    tokens[index].attrs |= {"rel": "noopener noreferrer nofollow", "target": "_blank"}
    return str(renderer.renderToken(tokens, index, options, {}))


@lru_cache
def guidelines_parser() -> MarkdownIt:
    """Return the parser: CommonMark with tables, without HTML and images. It refuses links to scripts by itself."""
    parser = MarkdownIt("commonmark", {"html": False}).enable("table").disable("image")
    parser.add_render_rule("link_open", link_open)
    return parser


def guidelines_html(text: str) -> str:
    """Return guidelines in Markdown as HTML. HTML in them is shown as text."""
    return str(guidelines_parser().render(text))
