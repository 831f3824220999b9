"""The protocol of a remote engine: its version, and what is sent as JSON.

Numbers are sent as Python writes them, which is exact for 32-bit and 64-bit floats. Both ends need the same `PROTOCOL`.
"""

from __future__ import annotations

from typing import Any

import torch

from engine.inference.completion import Completion, Token
from engine.inference.finish_reason import FinishReason
from engine.inference.sequence import Record
from engine.inference.telemetry import Histogram, Telemetry
from engine.inference.token_events import StepRecord, unpacked_array
from engine.inference.top_logprobs import TopLogprobs
from engine.messages import Prompt, TokenPrompt
from engine.rewards.missing import Rewards
from engine.rewards.scale import RewardScale
from engine.rules.mixture import Mixture
from engine.sampling import Sampling

PROTOCOL = 1
VERSION_HEADER = "Mixdesk-Protocol"
ROOT = "/engine/v1"
PING = 15.0  # seconds without an event after which a comment is sent, so that proxies keep the connection


def prompt_to_json(prompt: Prompt) -> Any:
    """Return a prompt for JSON: a text, a list of messages, or {"tokens": ids}."""
    return {"tokens": list(prompt.tokens)} if isinstance(prompt, TokenPrompt) else prompt


def prompt_from_json(value: Any) -> Prompt:
    """Return the prompt of `prompt_to_json`; the engine checks it."""
    return TokenPrompt(tuple(value["tokens"])) if isinstance(value, dict) and "tokens" in value else value


def top_logprobs_to_json(top: TopLogprobs) -> dict[str, Any]:
    """Return the likeliest tokens of one position for JSON, without their mixture."""
    return {
        "policies": top.policies,
        "seen": top.seen.tolist(),
        "found": top.found.tolist(),
        "mixed": top.mixed.tolist(),
    }


def top_logprobs_from_json(value: dict[str, Any], mixture: Mixture) -> TopLogprobs:
    """Return the likeliest tokens of one position."""
    return TopLogprobs(
        policies=value["policies"],
        mixture=mixture,
        seen=torch.tensor(value["seen"], dtype=torch.long),
        found=torch.tensor(value["found"]),
        mixed=torch.tensor(value["mixed"]),
    )


def token_to_json(token: Token, previous: Mixture | None) -> dict[str, Any]:
    """Return a token for JSON.

    Args:
        token: the token.
        previous: the mixture of the token before it; the token's own is left out if it is the same.
    """
    value: dict[str, Any] = {
        "id": token.id,
        "text": token.text,
        "log_probs": token.log_probs,
        "log_prob": token.log_prob,
    }
    if token.mixture != previous:
        value["mixture"] = token.mixture.as_dict()
    if token.top_logprobs is not None:
        value["top_logprobs"] = top_logprobs_to_json(token.top_logprobs)
    return value


def token_from_json(value: dict[str, Any], previous: Mixture | None) -> Token:
    """Return the token of `token_to_json`."""
    mixture = Mixture(**value["mixture"]) if "mixture" in value else previous
    assert mixture is not None
    top = value.get("top_logprobs")
    return Token(
        id=value["id"],
        text=value["text"],
        log_probs=value["log_probs"],
        log_prob=value["log_prob"],
        mixture=mixture,
        top_logprobs=None if top is None else top_logprobs_from_json(top, mixture),
    )


def completion_to_json(completion: Completion) -> dict[str, Any]:
    """Return a finished response for JSON."""
    return {
        **completion.as_dict(),
        "prompt": prompt_to_json(completion.prompt),
        "trace": completion.trace,
        "log_probs": completion.log_probs,
    }


def completion_from_json(value: dict[str, Any]) -> Completion:
    """Return the response of `completion_to_json`."""
    return Completion(
        prompt=prompt_from_json(value["prompt"]),
        text=value["text"],
        tokens=value["tokens"],
        mixture=Mixture(**value["mixture"]),
        sampling=Sampling(**value["sampling"]),
        seed=value["seed"],
        finish_reason=FinishReason(value["finish_reason"]),
        trace=value["trace"],
        log_probs=value["log_probs"],
        rewards=value["rewards"],
        missing_rewards=value["missing_rewards"],
        steered={int(place): Mixture(**mixture) for place, mixture in value["steered"].items()},
        prefix_length=value["begins_with"],
        log_normaliser=value["log_normaliser"],
        date=value["date"],
    )


def record_to_json(record: Record) -> dict[str, Any]:
    """Return what a record has gathered, for JSON."""
    steps = record.steps.as_dict() if record.steps is not None and record.steps.drawn else None
    return {"log_probs": record.log_probs, "drawn": record.drawn, "steps": steps}


def fill_record(record: Record, value: dict[str, Any]) -> None:
    """Fill in a record from `record_to_json`."""
    record.log_probs.update(value["log_probs"])
    record.drawn = value["drawn"]
    if record.steps is not None and (steps := value["steps"]):
        record.steps.sources, record.steps.ends, record.steps.drawn = steps["sources"], steps["ends"], steps["drawn"]
        record.steps.events = list(unpacked_array(steps["events"]))
        record.steps.said = list(unpacked_array(steps["said"]))


def empty_record(mixtures: dict[str, Any], with_steps: bool) -> Record:
    """Return a record to be filled for these mixtures, {name: mixture as a dictionary}."""
    return Record(
        {name: Mixture(**mixture) for name, mixture in mixtures.items()}, steps=StepRecord() if with_steps else None
    )


def rewards_to_json(rewards: Rewards) -> dict[str, Any]:
    """Return the rewards of a response for JSON."""
    return {"rewards": dict(rewards), "missing": rewards.missing}


def rewards_from_json(value: dict[str, Any]) -> Rewards:
    """Return the rewards of `rewards_to_json`."""
    return Rewards(value["rewards"], value["missing"])


def scale_to_json(scale: RewardScale) -> dict[str, Any]:
    """Return a scale of rewards for JSON."""
    return {"mean": dict(scale.mean), "std": dict(scale.std), "constant": sorted(scale.constant)}


def scale_from_json(value: dict[str, Any]) -> RewardScale:
    """Return the scale of `scale_to_json`."""
    return RewardScale(value["mean"], value["std"], frozenset(value["constant"]))


COUNTS = ("tokens", "failed_steps", "out_of_memory", "restarts")
HISTOGRAMS = ("step_seconds", "first_token_seconds")


def telemetry_to_json(telemetry: Telemetry) -> dict[str, Any]:
    """Return what an engine has done so far, for JSON."""
    histograms = {name: getattr(telemetry, name) for name in HISTOGRAMS}
    return {
        "alive": telemetry.alive,
        "responses": dict(telemetry.responses),
        **{name: getattr(telemetry, name) for name in COUNTS},
        **{name: {"sum": kept.sum, "counts": kept.counts} for name, kept in histograms.items()},
    }


def telemetry_from_json(values: list[dict[str, Any]]) -> Telemetry:
    """Return the sum of what several engines have done; it is alive if one of them is."""
    telemetry = Telemetry()
    telemetry.alive = any(value["alive"] for value in values)
    for value in values:
        telemetry.responses.update(value["responses"])
        for name in COUNTS:
            setattr(telemetry, name, getattr(telemetry, name) + value[name])
        for name in HISTOGRAMS:
            kept: Histogram = getattr(telemetry, name)
            kept.add(value[name]["counts"], value[name]["sum"])
    return telemetry
