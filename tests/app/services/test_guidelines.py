"""Guidelines: Markdown is rendered, and nothing that is written there can do anything."""

from __future__ import annotations

import re

import pytest

from app.services.guidelines import guidelines_html


def test_markdown_is_rendered() -> None:
    html = guidelines_html("# Rules\n\n1. **Read** both\n2. Choose\n\n| a | b |\n|---|---|\n| 1 | 2 |\n")
    for part in ("<h1>Rules</h1>", "<strong>Read</strong>", "<ol>", "<td>2</td>"):
        assert part in html


@pytest.mark.parametrize(
    "text",
    [
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        "text <b onclick='x()'>bold</b>",
        "![x](http://elsewhere.example/x.png)",
        "[x](javascript:alert(1))",
        "[x](data:text/html;base64,PHNjcmlwdD4=)",
        "<javascript:alert(1)>",
        '[x](http://a.example/"onmouseover="alert(1))',
        "`<script>` and &lt;script&gt;",
    ],
)
def test_nothing_in_it_can_do_anything(text: str) -> None:
    tags = re.findall(r"<(\w+)([^>]*)>", guidelines_html(text))
    assert {name for name, _ in tags} <= {"p", "a", "code"}
    for _, attributes in tags:
        assert not re.search(r"\son\w+=|\ssrc=|(javascript|data|vbscript):", attributes, re.IGNORECASE)


def test_a_link_tells_the_other_site_nothing() -> None:
    assert guidelines_html("[x](https://a.example)").strip() == (
        '<p><a href="https://a.example" rel="noopener noreferrer nofollow" target="_blank">x</a></p>'
    )
