"""docs/compatibility.md."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from tests.compatibility.rows import BOUND, FAILED, REFUSED, SKIPPED, Result, Row

TITLES = {
    "families": (
        "Families of decoders",
        "Tiny random models with two LoRA adapters each. Three responses of different lengths are decoded in one batch "
        "with a cache, longer than the attention's window where there is one (8 tokens). Each token's log-probability "
        "under the base and both adapters is compared with peft's own forward pass, uncached and alone; so are the "
        "same tokens read teacher-forced. The error is the largest difference in nats.",
    ),
    "adapters": (
        "Adapters",
        "peft's settings on a tiny Llama unless the name says another base, compared in the same way with the model "
        "that was saved. Stacked adapters are compared with adapters that peft merged one after the other.",
    ),
    "rewards": (
        "Reward models",
        "Three conversations of different lengths are scored at once, and compared with the model's own output for "
        "each of them alone. The error is in the reward's own unit.",
    ),
    "tokenizers": (
        "Tokenizers",
        "The text that is streamed token by token against the text of the finished response: emoji, Chinese, Japanese "
        "and Korean, combining marks, right-to-left scripts, cut after every token and so inside of characters; random "
        "responses that end at their length or are stopped. The error is the number of responses that differ.",
    ),
}
NOTES = {
    "folded": "the adapters are folded into the base's linears, and all policies share one forward pass",
    "general": "one forward pass a policy; the note says why",
    "refused": "one clear line when the configuration is loaded; the note is that line",
    "failed": "neither right nor refused: a mistake of Mixdesk",
    "skipped": "not measured here; the note says why",
}


def write_page(rows: list[Row], results: Mapping[str, Result], versions: Mapping[str, str]) -> str:
    """Return the page in Markdown."""
    wrong = [row for row in rows if not results[row.key].is_right]
    named = ", ".join(f"{name} {version}" for name, version in versions.items())
    lines = [
        "# Compatibility",
        "",
        "What Mixdesk computes, compared with transformers and peft, in float32 on a CPU. The page is written by",
        "",
        "    python -m tests.compatibility",
        "",
        f"with {named}. A row is right if its error is at most {BOUND:g}, or if what it needs is refused.",
        "",
        f"{len(rows) - len(wrong)} of {len(rows)} rows are right."
        + (f" Not right: {'; '.join(f'{row.section}: {row.name}' for row in wrong)}." if wrong else ""),
        "",
        *(
            f"- **{path}**: {meaning}"
            for path, meaning in NOTES.items()
            if any(r.path == path for r in results.values())
        ),
        "",
    ]
    for section, (title, text) in TITLES.items():
        own = [row for row in rows if row.section == section]
        counted = Counter(results[row.key].path for row in own)
        summary = ", ".join(f"{count} {path}" for path, count in counted.most_common())
        lines += [f"## {title}", "", text, "", f"{len(own)} rows: {summary}.", ""]
        lines += ["| name | path | largest error | note |", "| --- | --- | --- | --- |"]
        for row in own:
            result = results[row.key]
            name = row.name if result.is_right else f"**{row.name}**"
            lines.append(f"| {name} | {result.path} | {shown(result)} | {escaped(result.note)} |")
        lines.append("")
    return "\n".join(lines)


def shown(result: Result) -> str:
    if result.error is None:
        return {REFUSED: "", SKIPPED: "", FAILED: "exception"}.get(result.path, "")
    if not math.isfinite(result.error):
        return "not a number"
    return f"{result.error:.1e}" if 0 < result.error < 0.01 else f"{result.error:.3g}"


def escaped(text: str) -> str:
    """Return text for a cell of a table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;").replace("*", "\\*")
