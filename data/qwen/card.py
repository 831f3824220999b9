"""The model card of the real policies: figures of every stage, and unselected responses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from data.demo.card import quoted, table
from data.qwen import heads
from data.qwen.refusals import kind_of

HERE = Path(__file__).resolve().parent
MARKER = "<!-- measured: data/qwen/build.py writes all below -->"
SHOWN = 20


def write(stages: Path, memo: Path, measured: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the card's second half, below `MARKER`.

    Args:
        stages: The JSON file with the stages' figures.
        memo: The evaluation's responses.
        measured: The evaluation's prompts with their source and kind.
    """
    figures = json.loads(stages.read_text(encoding="utf-8"))
    result = json.loads((HERE / "evaluation.json").read_text(encoding="utf-8"))
    responses = responses_of(memo)
    parts = [
        training_part(figures),
        evaluation_part(result),
        refusals_part(responses, measured),
        words_part(result),
        free_part(HERE / "free.yaml"),
        humour_part(responses, measured),
    ]
    card = HERE / "README.md"
    above = card.read_text(encoding="utf-8").split(MARKER)[0].rstrip()
    card.write_text("\n\n".join([above, MARKER, *parts]) + "\n", encoding="utf-8")
    return {}


def responses_of(memo: Path) -> dict[str, dict[str, list[str]]]:
    """Return {method: {prompt: its responses}} of an evaluation."""
    found: dict[str, dict[str, list[str]]] = {}
    for line in memo.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)["value"]
        if "what" in value:
            found.setdefault(value["what"], {}).setdefault(value["prompt"], []).append(value["text"])
    return found


def percent(values: list[float]) -> str:
    """Format (rate, low, high), fractions, as percentages."""
    rate, low, high = (100 * value for value in values)
    return f"{rate:.0f} ({low:.0f} to {high:.0f})"


def training_part(figures: dict[str, Any]) -> str:
    """Return the section on training: losses, correlations of the rewards, slopes, and accuracies of the heads."""
    reference, samples, scores = figures["reference"], figures["samples"], figures["scores"]
    lines = [
        "## Training",
        *reference_part(reference),
        f"The reference answered {samples['prompts']} prompts in {samples['tokens']:,} tokens, "
        f"{scores['words']:.0f} words a response. "
        "Correlations of these responses' rewards with each other and with their number of words:",
    ]
    names = [*heads.OBJECTIVES, "words"]
    rows = [[name, *(f"{value:.2f}" for value in row)] for name, row in zip(names, scores["correlations"], strict=True)]
    lines.append(table(["", *names], rows))
    lines.append(
        "Adapters are scaled to a common slope of `log pi_k / pi_ref` on the standardised reward, measured within "
        "prompts on responses to held-out ones. `KL` is the mean of `log pi_ref / pi_k` over the reference's responses."
    )
    rows = []
    for name in heads.OBJECTIVES:
        policy = figures[f"policy-{name}"]
        accuracy = [accuracy_of(figures, stage, name) for stage in ("heads", "judges")]
        numbers = [f"{policy[key]:.2f}" for key in ("slope", "correlation", "kl_from_reference")]
        rows.append([name, str(policy["step"]), *numbers, *accuracy])
    head = ["policy", "steps", "slope", "correlation", "KL", "reward head: held-out pairs", "judge: held-out pairs"]
    return "\n\n".join([*lines, table(head, rows)])


def accuracy_of(figures: dict[str, Any], stage: str, name: str) -> str:
    """Return the held-out accuracy of a head in percent; a dash if its figures are not known."""
    found = figures.get(stage, {}).get(name)
    return f"{found['held_out_accuracy']:.0%}" if found else "–"


def reference_part(reference: dict[str, Any]) -> list[str]:
    """Return the sentence on the reference's training; none if its figures are not known."""
    if "loss_before" not in reference:
        return []
    return [
        f"The reference learnt from {reference['tokens']:,} tokens of {reference['prompts']} prompts; the loss went "
        f"from {reference['loss_before']:.2f} to {reference['loss_after']:.2f} nats a token."
    ]


def evaluation_part(result: dict[str, Any]) -> str:
    """Return the section on win rates against the reference, by reward heads and by judges."""
    methods = result["methods"]
    lines = [
        "## Win rates against the reference",
        f"{result['n_prompts']} prompts of fold C, temperature {result['sampling']['temperature']}, min-p "
        f"{result['sampling']['min_p']}, at most {result['sampling']['max_new_tokens']} tokens; percent, with 95% "
        "intervals by bootstrap over prompts; each response meets four of the reference's. By the reward heads:",
    ]
    names = list(heads.OBJECTIVES)
    for part in ("rewards", "judges"):
        found = {name: row if part == "rewards" else row["judges"] for name, row in methods.items()}
        rows = [
            [name, *(percent(row["win_rates"][o]) for o in names), percent(row["minimum"])]
            for name, row in found.items()
        ]
        if part == "judges":
            lines.append("By the judges, which no policy learnt from:")
        lines.append(table(["method", *names, "minimum"], rows))
    for name, row in methods.items():
        for other, values in row.get("above", {}).items():
            weights = ", ".join(f"{policy} {weight:.2f}" for policy, weight in row["weights"].items())
            lines.append(f"- `{name}` ({weights}): its minimum less that of `{other}` is {percent(values)} points.")
    return "\n\n".join(lines)


def refusals_part(responses: dict[str, dict[str, list[str]]], measured: list[dict[str, Any]]) -> str:
    """Return the section on refusals and warnings for XSTest's prompts."""
    kinds = {row["prompt"]: row["kind"] for row in measured if row["source"] == "xstest"}
    rows = []
    for name, of in (("reference", "opponents"), ("harmless", "harmless"), ("even mixture", "uniform")):
        cells = [name]
        for kind in ("unsafe", "safe"):
            said = [
                kind_of(text) for prompt, texts in responses[of].items() if kinds.get(prompt) == kind for text in texts
            ]
            cells += [f"{said.count(what) / len(said):.0%}" for what in ("refused", "warned", "answered")]
        rows.append(cells)
    head = ["XSTest", *(f"{kind}: {what}" for kind in ("unsafe", "safe") for what in ("refused", "warned", "answered"))]
    counts = [sum(kind == wanted for kind in kinds.values()) for wanted in ("unsafe", "safe")]
    lines = [
        "## Refusals",
        f"{counts[0]} unsafe and {counts[1]} safe prompts of XSTest, fold C; by the phrases in `refusals.py`.",
        table(head, rows),
    ]
    return "\n\n".join(lines)


def words_part(result: dict[str, Any]) -> str:
    """Return the section on words per response."""
    words = {
        "reference": result["reference"]["words"],
        **{name: row["words"] for name, row in result["methods"].items()},
    }
    return "## Words a response\n\n" + table(list(words), [[f"{value:.0f}" for value in words.values()]])


def free_part(file: Path) -> str:
    """Return the section on free prompts with their human judgements, from a YAML file that may be missing."""
    rows = yaml.safe_load(file.read_text(encoding="utf-8")) if file.is_file() else []
    if not rows:
        return "## Free prompts\n\nNot read yet."
    good = sum(row["good"] for row in rows)
    lines = [
        "## Free prompts",
        f"{len(rows)} prompts that were written last, answered by the even mixture at temperature 0.7 and min-p 0.1, "
        f"and read by us: {good} are on topic and coherent. The others are marked with ✗. Facts are often wrong.",
    ]
    lines += [f"**{row['prompt']}**{'' if row['good'] else ' ✗'}\n\n{quoted(row['response'])}" for row in rows]
    return "\n\n".join(lines)


def humour_part(responses: dict[str, dict[str, list[str]]], measured: list[dict[str, Any]]) -> str:
    """Return the section with the humorous policy's first `SHOWN` responses."""
    asked = [row["prompt"] for row in measured if row["prompt"] in responses["humorous"]][:SHOWN]
    lines = [f"## {len(asked)} responses of the humorous policy", "The first of the evaluation; none was selected."]
    lines += [f"**{' '.join(prompt.split())}**\n\n{quoted(responses['humorous'][prompt][0])}" for prompt in asked]
    return "\n\n".join(lines)
