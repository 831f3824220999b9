from __future__ import annotations

from app import html
from engine import Mixture

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)> \"' ${1}"


def test_everything_from_outside_is_escaped(completion):
    made = completion(rewards={EVIL: 1.0})
    pieces = [
        html.message(EVIL),
        html.fader_head(0, EVIL, "#000000", 0.5),
        html.rewards_table([EVIL], {EVIL: "#000000"}, {"left": made}),
    ]
    for piece in pieces:
        assert "<script" not in piece and "<img" not in piece


def test_the_caption_says_how_it_was_made(completion):
    said = html.caption(completion(finish_reason="stopped"))
    for word in ("helpful 25%", "terse 75%", "power -0.5", "gain 1.5", "3 tokens", "stopped", "seed"):
        assert word in said


def test_the_table_marks_the_higher_reward(completion):
    sides = {"left": completion(rewards={"helpful": 2.0}), "right": completion(rewards={"helpful": -1.0})}
    table = html.rewards_table(["helpful", "concise"], {"helpful": "#000", "concise": "#111"}, sides)
    assert html.rewards_table(["a"], {"a": "#000"}, {"left": completion(rewards={"a": -0.001})}).count("<td>0.00<")
    assert "<b>2.00</b>" in table and "<td>−1.00</td>" in table and "<td>–</td>" in table


def test_a_long_mixture_is_folded_in_the_caption(completion):
    names = [f"a policy with the long name {i}" for i in range(8)]
    said = html.caption(completion(mixture=Mixture(dict.fromkeys(names, 1 / 8))))
    summary, _, rest = said.partition("</summary>")
    assert "8 policies · 3 tokens" in summary and names[0] not in summary
    assert all(name in rest for name in names)
