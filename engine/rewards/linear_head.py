"""Linear reward heads on the hidden states of a frozen base model.

A head is a linear Bradley-Terry model on pooled hidden states, so any number of heads costs one forward pass of the
base. Training and serving compute the features with the same code:

    features(model, tokenizer, items, wanted, ...) -> {(layer, pool): Tensor [n, hidden], float32, on the CPU}
    Head(base, features, weight, bias, hidden_size, chat_template=True, on="base")
    save_head(folder, head);  read_head(folder) -> Head;  head.score(found) -> Tensor [n]

`items` are (prompt, response) pairs, where a prompt is a text or a list of messages. `wanted` are (layer, pool) pairs:

- layer n, 1 to num_hidden_layers, is the residual stream after n decoder layers, before any final norm. It equals
  `hidden_states[n]` of transformers, except at the last layer, where transformers returns the normalised stream.
- pool "mean" or "max" is taken over the response's tokens, without the token that ends the turn; "last" is the hidden
  state at the token that ends the turn (the tokenizer's EOS token, appended if the response does not end with it).

A conversation is read as the model generates it: the chat template with its generation prompt, the response's tokens,
the end of the turn. A folder with a head holds `head.json` and `head.safetensors`:

    {"format": 1, "base": "org/name", "chat_template": true, "hidden_size": 896, "on": "base",
     "features": [{"layer": 12, "pool": "mean"}, {"layer": 12, "pool": "last"}]}
    weight [len(features) * hidden_size] in the order of "features", bias [1], both float32
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from engine.errors import InputError, one_line
from engine.files import filling
from engine.messages import Message, Prompt, joined, spoken_messages
from engine.models.chat_template import chat_of

log = logging.getLogger("mixdesk")

FORMAT = 1
POOLS = ("mean", "last", "max")
POSITIONS = 2048  # token positions that one forward pass reads at most, unless a single row is longer

Feature = tuple[int, str]  # layer, pool
Item = tuple[Prompt, str]  # prompt, response


@dataclass(frozen=True)
class Head:
    """A linear head: score = weight · concat(features) + bias.

    Attributes:
        base: The hub id or name of the base whose hidden states it reads.
        features: (layer, pool) of each feature, in the order of the weights.
        weight: [len(features) * hidden_size], float32.
        bias: [1], float32.
        hidden_size: The base's.
        chat_template: Whether a conversation is read in the base's chat template.
        on: "base", or "reference" if it reads the base with the reference's adapter.
    """

    base: str
    features: tuple[Feature, ...]
    weight: Tensor
    bias: Tensor
    hidden_size: int
    chat_template: bool = True
    on: str = "base"

    def score(self, found: Mapping[Feature, Tensor]) -> Tensor:
        """Return the scores, [n], from what `features` returned."""
        # Not a matrix product: its rounding depends on the number of rows.
        products = torch.cat([found[feature] for feature in self.features], -1).double() * self.weight.double()
        return (products.sum(-1) + self.bias.double()).float()


def save_head(folder: str | Path, head: Head) -> None:
    """Write `head.json` and `head.safetensors` into a folder, which is made if it is missing."""
    settings = {
        "format": FORMAT,
        "base": head.base,
        "chat_template": head.chat_template,
        "features": [{"layer": layer, "pool": pool} for layer, pool in head.features],
        "hidden_size": head.hidden_size,
        "on": head.on,
    }
    tensors = {"weight": head.weight, "bias": head.bias}
    tensors = {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}
    with filling(Path(folder)) as partial:
        (partial / "head.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(tensors, partial / "head.safetensors")


def read_head(source: str | Path) -> Head:
    """Read a head from a folder or a hub id.

    Raises:
        InputError: If a file is missing or malformed, or the tensors' sizes disagree with `head.json`.
    """
    folder = head_folder(str(source))
    settings = _read_settings(source, folder)
    try:
        tensors = load_file(folder / "head.safetensors")
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"head '{source}': head.safetensors is unreadable ({error}); get it again") from None
    pairs = tuple((feature["layer"], feature["pool"]) for feature in settings["features"])
    expected = {"weight": len(pairs) * settings["hidden_size"], "bias": 1}
    for name, size in expected.items():
        found = list(tensors[name].shape) if name in tensors else "nothing"
        if found != [size]:
            raise InputError(
                f"head '{source}': head.safetensors: {name}: found {found}, head.json asks for [{size}]; give the two "
                "files of one head"
            )
    return Head(
        base=settings["base"],
        features=pairs,
        weight=tensors["weight"].float(),
        bias=tensors["bias"].float(),
        hidden_size=settings["hidden_size"],
        chat_template=settings["chat_template"],
        on=settings["on"],
    )


def head_folder(source: str) -> Path:
    """Return the folder of a head, downloaded if `source` is a hub id. Raises InputError."""
    folder = Path(source)
    if not folder.is_dir():
        try:
            folder = Path(snapshot_download(source, allow_patterns=["head.json", "head.safetensors"]))
        except (HfHubHTTPError, HFValidationError, OSError) as error:
            reason = one_line(error)
            raise InputError(f"head '{source}': neither a folder nor available on the hub ({reason})") from None
    for name in ("head.json", "head.safetensors"):
        if not (folder / name).is_file():
            raise InputError(f"head '{source}': {name} is missing; expected a folder with head.json, head.safetensors")
    return folder


def _read_settings(source: str | Path, folder: Path) -> dict[str, Any]:
    """Return the checked content of `head.json`, defaults filled in."""
    try:
        settings = json.loads((folder / "head.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"head '{source}': head.json is not JSON ({error}); get it again") from None
    if not isinstance(settings, dict):
        raise InputError(f"head '{source}': head.json: found {type(settings).__name__}, expected an object")
    settings = {"chat_template": True, "on": "base", **settings}

    def require(key: str, valid: Callable[[Any], bool], expected: str) -> None:
        if not valid(settings.get(key)):
            found = repr(settings.get(key))[:80]
            raise InputError(f"head '{source}': head.json: {key}: found {found}, expected {expected}")

    def is_feature(feature: Any) -> bool:
        return isinstance(feature, dict) and is_size(feature.get("layer")) and feature.get("pool") in POOLS

    require("format", lambda value: value == FORMAT, f"{FORMAT}")
    require("base", lambda value: isinstance(value, str) and bool(value), "the base's hub id or name")
    require("chat_template", lambda value: isinstance(value, bool), "true or false")
    require("hidden_size", is_size, "the base's hidden size")
    require("on", lambda value: value in ("base", "reference"), "base or reference")
    require(
        "features",
        lambda value: isinstance(value, list) and bool(value) and all(map(is_feature, value)),
        f'a list of {{"layer": 1 or more, "pool": {" or ".join(POOLS)}}}',
    )
    return settings


def is_size(value: Any) -> bool:
    """Return whether a JSON value is an integer of 1 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def decoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the model's decoder layers. Raises InputError for a model that does not keep them in one list."""
    config: Any = model.config
    count = config.get_text_config().num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise InputError(f"heads: {type(model).__name__} has no list of {count} decoder layers; use another base")


def render(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, response: str, chat_template: bool = True, context: int = 2**31
) -> tuple[list[int], int, int]:
    """Tokenize a finished conversation.

    If it is longer than `context` tokens, its oldest turns are dropped, and last the beginning of the remaining turn.

    Returns:
        The token ids, and the start and end index of the response. The token that ends the turn, if the tokenizer has
        one, comes after the end.
    """
    answer = tokenizer(response, add_special_tokens=False).input_ids
    end = tokenizer.eos_token_id
    if answer and answer[-1] == end:
        answer = answer[:-1]
    tail = [] if end is None else [end]
    messages = spoken_messages(prompt)
    while True:
        ids = _prompt_ids(tokenizer, messages, chat_template)
        if len(messages) == 1 or len(ids) + len(answer) + len(tail) <= context:
            break
        messages = messages[2:]
    whole = [*ids, *answer, *tail]
    excess = max(0, len(whole) - context)
    start = max(0, len(ids) - excess)
    return whole[excess:], start, len(whole) - excess - len(tail)


def _prompt_ids(tokenizer: PreTrainedTokenizerBase, messages: list[Message], chat_template: bool) -> list[int]:
    if chat_template and tokenizer.chat_template is not None:
        return chat_of(tokenizer).prompt_ids(messages)
    return chat_of(tokenizer).plain_ids(joined(messages))


@torch.inference_mode()
def features(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[Item],
    wanted: Sequence[Feature],
    *,
    chat_template: bool = True,
    context: int | None = None,
    exact: bool | None = None,
    positions: int = POSITIONS,
    prepare: Callable[[int], None] = lambda rows: None,
    progress: Callable[[int], None] = lambda done: None,
) -> dict[Feature, Tensor]:
    """Return pooled hidden states of (prompt, response) pairs, computed only as far as the highest wanted layer.

    Rows are sorted by length and padded on the right, where causal attention does not look.

    Args:
        model: A causal language model of transformers.
        tokenizer: Its tokenizer.
        items: (prompt, response) pairs.
        wanted: (layer, pool) pairs, see the module's docstring.
        chat_template: Whether to read conversations in the tokenizer's chat template.
        context: The longest conversation in tokens; the model's `max_position_embeddings` unless given.
        exact: Whether every row has a forward pass of its own, so that its features do not depend on the other rows in
            the last bit either. Unless given: on a CPU, where one row keeps the cores busy.
        positions: The most token positions in one forward pass.
        prepare: Called with the number of rows before each forward pass.
        progress: Called with the number of finished items after each forward pass.

    Returns:
        {(layer, pool): [len(items), hidden], float32, on the CPU}.

    Raises:
        InputError: If the model lacks a wanted layer.
    """
    layers = decoder_layers(model)
    for layer, pool in wanted:
        if not 1 <= layer <= len(layers) or pool not in POOLS:
            raise InputError(f"heads: no feature ({layer}, {pool}); layers are 1 to {len(layers)}, pools {POOLS}")
    config: Any = model.config
    context = context or getattr(config.get_text_config(), "max_position_embeddings", None) or 2**31
    device = next(model.parameters()).device
    exact = device.type == "cpu" if exact is None else exact
    rows = [render(tokenizer, prompt, response, chat_template, context) for prompt, response in items]
    found = {feature: torch.empty(0, config.get_text_config().hidden_size) for feature in wanted}
    if not rows:
        return found
    order = sorted(range(len(rows)), key=lambda i: len(rows[i][0]))
    done = 0
    for part in _parts([len(rows[i][0]) for i in order], positions, exact):
        chosen = [order[i] for i in part]
        longest = max(len(rows[i][0]) for i in chosen)
        # Any token serves as padding: nothing that is pooled looks at it.
        ids = torch.tensor([rows[i][0] + [0] * (longest - len(rows[i][0])) for i in chosen], device=device)
        prepare(len(chosen))
        pooled = _forward(model, layers, ids, [rows[i] for i in chosen], wanted)
        for feature, values in pooled.items():
            if not done:
                found[feature] = torch.empty(len(rows), values.shape[-1])
            found[feature][chosen] = values.cpu()
        done += len(chosen)
        progress(done)
    return found


def _parts(lengths: list[int], positions: int, exact: bool) -> list[list[int]]:
    """Split rows of ascending lengths into forward passes of at most `positions` token positions."""
    parts: list[list[int]] = [[]]
    for i, length in enumerate(lengths):
        part = parts[-1]
        if part and (exact or (len(part) + 1) * length > positions):
            parts.append([])
        parts[-1].append(i)
    return parts


class _Computed(Exception):  # noqa: N818 (no error: it ends a forward pass)
    """Raised by the hook of the highest layer that is read."""


def _forward(
    model: nn.Module,
    layers: nn.ModuleList,
    ids: Tensor,
    rows: list[tuple[list[int], int, int]],
    wanted: Sequence[Feature],
) -> dict[Feature, Tensor]:
    """Run one forward pass, and return {feature: [rows, hidden], float32}."""
    pooled: dict[Feature, Tensor] = {}
    highest = max(layer for layer, _ in wanted)

    def hook_of(layer: int) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            hidden = output if isinstance(output, Tensor) else output[0]  # [rows, positions, hidden]
            for feature in wanted:
                if feature[0] == layer:
                    pooled[feature] = _pool(hidden, rows, feature[1])
            if layer == highest:
                raise _Computed

        return hook

    hooks = [layers[layer - 1].register_forward_hook(hook_of(layer)) for layer in {layer for layer, _ in wanted}]
    try:
        model(input_ids=ids, use_cache=False)
    except _Computed:
        pass
    finally:
        for handle in hooks:
            handle.remove()
    return pooled


def _pool(hidden: Tensor, rows: list[tuple[list[int], int, int]], pool: str) -> Tensor:
    """Pool hidden states [rows, positions, hidden] over each row's response: [rows, hidden].

    For an empty response, the token that ends the turn is used.
    """
    pooled = []
    for values, (ids, start, end) in zip(hidden, rows, strict=True):
        if pool == "last":
            pooled.append(values[len(ids) - 1].float())
        else:
            start = min(start, len(ids) - 1)
            response = values[start : max(end, start + 1)].float()
            pooled.append(response.mean(0) if pool == "mean" else response.amax(0))
    return torch.stack(pooled)
