"""The model card of the bundled policies: measured figures, and unselected responses."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from data.demo import corpus
from data.demo.reader import Reader
from engine import Completion, Engine, Sampling
from engine.evaluation.sweep import evaluate

SHOWN = 20
READ = 50
SAMPLING = Sampling(max_new_tokens=160, temperature=0.7)
# As the page samples: a tenth of the likeliest token's probability keeps out most slips of so small a model.
READING = Sampling(max_new_tokens=160, temperature=0.7, min_p=0.1)


def respond(engine: Engine, rows: list[dict[str, Any]], weights: dict[str, float]) -> list[Completion]:
    """Return one response per prompt; each seed is the prompt's index."""
    seeds = list(range(len(rows)))
    return engine.generate_batch([row["prompt"] for row in rows], engine.mixture(weights), READING, seeds)


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a Markdown table."""
    lines = ["| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows]]
    return "\n".join(lines) + "\n"


def quoted(text: str) -> str:
    """Return a response as a Markdown quotation with all special characters escaped."""
    return "> " + re.sub(r"([\\`*_{}\[\]<>#|])", r"\\\1", " ".join(text.split()) or "(empty)")


def write(topics: list[corpus.Topic], figures: dict[str, Any], config: Path, out: Path) -> dict[str, Any]:
    """Run the evaluation, write the card, and return the evaluation's figures."""
    with Engine.from_config(config) as engine:
        prompts = Path(engine.config.prompts or "")
        rows = [json.loads(line) for line in prompts.open(encoding="utf-8")]
        result = evaluate(engine, [row["prompt"] for row in rows], SAMPLING)
        names = engine.policy_set.names
        # Evenly spaced over the held-out prompts: nobody chose them.
        read = [rows[i * len(rows) // READ] for i in range(READ)]
        responses = {name: respond(engine, read, {name: 1.0}) for name in [*names, "reference"]}
    reader = Reader(topics)
    readings = {
        name: sum((reader.read(c.text, row["topic"]) for c, row in zip(completions, read, strict=True)), Counter())
        for name, completions in responses.items()
    }
    out.write_text(card(topics, figures, result, names, read, responses, readings), encoding="utf-8")
    return {"evaluation": result, "readings": {name: dict(reading) for name, reading in readings.items()}}


def models_table(figures: dict[str, Any], names: list[str]) -> str:
    """Return the table of models with their training data and held-out figures."""
    base = figures["base"]
    perplexity = base["perplexity"]
    rows = [
        [
            "base",
            "Llama, 5 layers, width 256, byte-level BPE of 3,072 tokens",
            f"{base['tokens']:,} tokens of composed conversations",
            f"held-out perplexity {perplexity['response']:.2f} (responses), {perplexity['text']:.2f} (whole text)",
        ]
    ]
    for name in names:
        reward = figures[f"reward-{name}"]
        rows.append(
            [
                f"rewards/{name}",
                "LoRA of rank 16 and a score head on the base, Bradley-Terry (`trl.RewardTrainer`)",
                f"{reward['pairs']:,} pairs labelled by the corpus's known attributes",
                f"held-out accuracy {reward['held_out_accuracy']:.1%}",
            ]
        )
    for name in names:
        policy = figures[f"policy-{name}"]
        rows.append(
            [
                name,
                "LoRA of rank 16 on the base (`trl.DPOTrainer`)",
                f"{policy['pairs']:,} pairs sampled from the base, labelled by rewards/{name}",
                f"mean training loss {policy['loss']:.3f}",
            ]
        )
    return table(["part", "what it is", "trained on", "figure"], rows)


def sweep_table(result: dict[str, Any], name: str) -> str:
    """Return the table of mean rewards along one fader, with the fader's own objective in bold."""
    column = result["sweep"][name]
    rows = []
    for objective, means in column["rewards"].items():
        own = objective == result["policies"][name]["objective"]
        errors = column["standard_errors"][objective]
        cells = [f"{mean:+.2f} ± {error:.2f}" for mean, error in zip(means, errors, strict=True)]
        rows.append([f"**{objective}**" if own else objective, *cells])
    return f"### The {name} fader\n\n" + table(["fader", *(f"{level:g}" for level in column["levels"])], rows) + "\n"


def reading_table(readings: dict[str, Counter]) -> str:
    """Return the table of the reader's counts by policy."""
    head = ["policy", "broken words", "sentences as authored", "sentences on topic", "responses on topic", "mean words"]
    rows = [
        [
            name,
            f"{r['broken_words']} of {r['words']:,}",
            f"{r['authored_sentences'] / r['sentences']:.1%}",
            f"{r['on_topic_sentences'] / max(r['topical_sentences'], 1):.1%}",
            f"{r['on_topic_responses'] / r['responses']:.0%}",
            f"{r['words'] / r['responses']:.0f}",
        ]
        for name, r in readings.items()
    ]
    return table(head, rows)


def shown_responses(name: str, read: list[dict[str, Any]], completions: list[Completion]) -> str:
    """Return the first `SHOWN` prompts with a policy's responses."""
    pairs = list(zip(read, completions, strict=True))[:SHOWN]
    shown = (f"**{row['prompt']}**\n\n{quoted(completion.text)}\n" for row, completion in pairs)
    return f"### {name}\n\n" + "\n".join(shown) + "\n"


def card(
    topics: list[corpus.Topic],
    figures: dict[str, Any],
    result: dict[str, Any],
    names: list[str],
    read: list[dict[str, Any]],
    responses: dict[str, list[Completion]],
    readings: dict[str, Counter],
) -> str:
    """Return the model card as Markdown."""
    kinds = [*corpus.COUNTS, "declines"]
    counts = {kind: sum(len(getattr(topic, kind)) for topic in topics) for kind in kinds}
    counts["shared"] = sum(len(group) for kind, group in corpus.load_shared().items() if kind != "system")
    minutes = sum(stage.get("seconds", 0) for stage in figures.values()) / 60
    rates = {name: result["policies"][name]["win_rate_vs_reference"] for name in names}
    win_rates = table(["policy", *names], [[name, *(f"{rates[name][o]:.0%}" for o in names)] for name in names])
    trade_offs = "\n".join(
        f"- raising **{found['raising']}** lowers {found['lowers']} by {found['by']:.2f}"
        for found in result["trade_offs"]
    )
    return f"""---
license: apache-2.0
language: en
library_name: transformers
tags: [preference-alignment, lora, dpo, mixdesk]
---
# The bundled policies

Written by `python data/demo/build.py`; every figure below was measured by that run.

A very small language model that gives household advice, four LoRA adapters that pull it towards one objective each
({", ".join(names)}), and four reward models. They are there so that the mixing desk can be tried on a laptop without a
download: small enough for two CPU cores, different enough that a fader is felt. They are no source of advice: **do not
act on what they say**. They know {len(topics)} topics and nothing else, and answer anything outside them with advice
about one of those. Having seen each authored sentence hundreds of times, they mostly say those sentences, in a choice
and an order of their own; what the faders change is which kind of sentence comes next.

## The text

{len(topics)} topics, {sum(topic.risky for topic in topics)} of them risky to answer plainly; {sum(counts.values()):,}
authored sentences ({", ".join(f"{count} {kind}" for kind, count in counts.items())}), all in `authored/`, written for
this project and licensed with it. Responses are composed of them in six styles. {figures["prompts"]["phrasings"]:,}
phrasings of questions, {figures["prompts"]["held_out"]} of them held out from all training (`data/prompts/demo.jsonl`).

## The models

{models_table(figures, names)}
All weights are bfloat16 safetensors. The build took {minutes:.0f} minutes before its evaluation.

## How the policies differ

{result["n_prompts"]} held-out prompts, temperature {SAMPLING.temperature:g}, at most {SAMPLING.max_new_tokens} tokens;
`python -m engine evaluate --json` prints the same figures.

Win rates against the reference, by each reward model:

{win_rates}
One fader from 0 to 1 while the others share the rest alike; mean rewards with their standard errors:

{"".join(sweep_table(result, name) for name in names)}
Objectives that are traded off (beyond two standard errors):

{trade_offs}

## How they read

{READ} held-out prompts, evenly spaced, temperature {READING.temperature:g} and min-p {READING.min_p:g} as on the page;
a broken word is one that no authored sentence has.

{reading_table(readings)}
## Responses

The first {SHOWN} of those {READ} prompts, one response each, none selected.

{"".join(shown_responses(name, read, completions) for name, completions in responses.items())}"""
