"""Broken models, adapters, rewards and prompts, each with the configuration that names it."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.conftest import Tiny, make_tokenizer

Make = Callable[[Path, Tiny], dict[str, Any]]


@dataclass(frozen=True)
class Case:
    """make: writes the broken files into a folder, and returns the keys of the configuration that name them. key, said:
    what the line must hold."""

    name: str
    key: str
    said: str
    make: Make


def edit_json(file: Path, remove: tuple[str, ...] = (), **changes: Any) -> None:
    settings = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in settings.items() if key not in remove}))


def edit_tensors(file: Path, change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> None:
    save_file({name: tensor.contiguous() for name, tensor in change(load_file(file)).items()}, file, {"format": "pt"})


def with_value(value: float) -> Callable[[dict[str, Tensor]], dict[str, Tensor]]:
    """Put one number into the last tensor."""

    def change(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        name = sorted(tensors)[-1]
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[0] = value
        return tensors

    return change


class Executed:
    """What a malicious pickle does."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.folder / "executed"),)


def base(change: Callable[[Path], object]) -> Make:
    """A copy of the base with a change."""

    def make(folder: Path, tiny: Tiny) -> dict[str, Any]:
        shutil.copytree(tiny.base, folder / "base")
        change(folder / "base")
        return {"base": "base"}

    return make


def adapter(change: Callable[[Path], object]) -> Make:
    """A copy of an adapter with a change; the second of two policies."""

    def make(folder: Path, tiny: Tiny) -> dict[str, Any]:
        shutil.copytree(tiny.adapters["plain"], folder / "adapter")
        change(folder / "adapter")
        names = {"sound": str(tiny.adapters["narrow"]), "broken": "adapter"}
        return {"policies": [{"name": name, "objective": name, "adapter": path} for name, path in names.items()]}

    return make


def config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "config.json", **changes)


def weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    return lambda folder: edit_tensors(folder / "model.safetensors", change)


def write(name: str, data: bytes | str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())

    return change


def cut(name: str, size: int) -> Callable[[Path], None]:
    """Keep the first bytes of a file, as a download that was broken off."""
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:size]) and None


def remove(*names: str) -> Callable[[Path], None]:
    return lambda folder: [(folder / name).unlink() for name in names] and None


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Executed(folder.parent)))


def own_code(folder: Path) -> None:
    edit_json(folder / "config.json", model_type="mine", auto_map={"AutoConfig": "mine.Config"})
    (folder / "mine.py").write_text(f"import os\nos.mkdir({str(folder.parent / 'executed')!r})\n")


def own_tokenizer(folder: Path) -> None:
    edit_json(
        folder / "tokenizer_config.json", tokenizer_class="Mine", auto_map={"AutoTokenizer": ["mine.Mine", "mine.Mine"]}
    )
    edit_json(folder / "config.json", model_type="mine")
    (folder / "mine.py").write_text(f"import os\nos.mkdir({str(folder.parent / 'executed')!r})\n")


def template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] }")


def empty(folder: Path, tiny: Tiny) -> dict[str, Any]:
    (folder / "base").mkdir()
    return {"base": "base"}


def gguf(folder: Path, tiny: Tiny) -> dict[str, Any]:
    (folder / "base.gguf").write_bytes(b"not one")
    return {"base": "base.gguf"}


BASES = [
    Case("empty folder", "base:", "cannot load a tokenizer from", empty),
    Case("no model configuration", "base:", "config.json", base(remove("config.json"))),
    Case("configuration that is no JSON", "base:", "config.json", base(write("config.json", "{"))),
    Case("list for a configuration", "base:", "cannot load a", base(write("config.json", "[]"))),
    Case("unknown family", "base:", "model_type", base(config(model_type="never-heard-of"))),
    Case("no family", "base:", "model_type", base(config(remove=("model_type",)))),
    Case("family without a decoder", "base:", "cannot load a language model", base(config(model_type="vit"))),
    Case("code of its own", "base:", "it needs Python code of its own (auto_map", base(own_code)),
    Case("tokenizer of its own code", "base:", "cannot load a tokenizer", base(own_tokenizer)),
    Case("no tokenizer", "base:", "cannot load a tokenizer", base(remove("tokenizer.json", "tokenizer_config.json"))),
    Case("tokenizer broken off", "base:", "cannot load a tokenizer", base(cut("tokenizer.json", 900))),
    Case("chat template broken off", "base:", "line 1 of its chat template: unexpected", base(template)),
    Case("no weights", "base:", "model.safetensors", base(remove("model.safetensors"))),
    Case("weights broken off", "base:", "get them again", base(cut("model.safetensors", 5000))),
    Case("weights of a wrong header", "base:", "get them again", base(write("model.safetensors", b"\xff" * 64))),
    Case("weights of no bytes", "base:", "get them again", base(write("model.safetensors", b""))),
    Case(
        "NaN weights", "base:", "NaN or infinite numbers in model.norm.weight", base(weights(with_value(float("nan"))))
    ),
    Case("infinite weights", "base:", "NaN or infinite numbers", base(weights(with_value(float("inf"))))),
    Case("weights of another size", "base:", "config.json", base(config(intermediate_size=64))),
    Case("weights of too few layers", "base:", "its files have no model.layers.2", base(config(num_hidden_layers=3))),
    Case("pickled code", "base:", "get them again", base(pickled)),
    Case(
        "bitsandbytes without its library",
        "base:",
        "without quantisation",
        base(config(quantization_config={"quant_method": "bitsandbytes", "load_in_4bit": True})),
    ),
    Case(
        "GPTQ without its library",
        "base:",
        "without quantisation",
        base(config(quantization_config={"quant_method": "gptq", "bits": 4, "group_size": 128})),
    ),
    Case(
        "AWQ without its library",
        "base:",
        "without quantisation",
        base(config(quantization_config={"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True})),
    ),
    Case("no GGUF", "base:", "is not a GGUF file", gguf),
]


def adapter_config(**changes: Any) -> Callable[[Path], None]:
    return lambda folder: edit_json(folder / "adapter_config.json", **changes)


def adapter_weights(change: Callable[[dict[str, Tensor]], dict[str, Tensor]]) -> Callable[[Path], None]:
    return lambda folder: edit_tensors(folder / "adapter_model.safetensors", change)


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("q_proj", "query"): tensor for name, tensor in tensors.items()}


def other_ranks(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor[:2] if "lora_A" in name else tensor for name, tensor in tensors.items()}


def other_base(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: torch.cat([tensor, tensor], 1) if "lora_A" in name else tensor for name, tensor in tensors.items()}


def without_b(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if "lora_B" not in name}


ADAPTERS = [
    Case("no configuration", "policies[1]", "adapter_config.json", adapter(remove("adapter_config.json"))),
    Case("no JSON", "policies[1]", "adapter_config.json", adapter(write("adapter_config.json", "{"))),
    Case("no adapter weights", "policies[1]", "adapter_model", adapter(remove("adapter_model.safetensors"))),
    Case(
        "nonsense", "policies[1]", "adapter_model.safetensors", adapter(write("adapter_model.safetensors", b"nonsense"))
    ),
    Case("broken off", "policies[1]", "adapter_model.safetensors", adapter(cut("adapter_model.safetensors", 3000))),
    Case("no tensors", "policies[1]", "adapter_model.safetensors", adapter(adapter_weights(lambda tensors: {}))),
    Case("without B", "policies[1]", "lora_B", adapter(adapter_weights(without_b))),
    Case("wrong ranks", "policies[1]", "rank", adapter(adapter_weights(other_ranks))),
    Case("another base", "policies[1]", "for another base", adapter(adapter_weights(other_base))),
    Case("another base's names", "policies[1]", "adapter", adapter(adapter_weights(renamed))),
    Case("unknown type", "policies[1]", "adapter", adapter(adapter_config(peft_type="QUANTUM"))),
    Case(
        "prompt tuning",
        "policies[1]",
        "adapter",
        adapter(adapter_config(peft_type="PROMPT_TUNING", num_virtual_tokens=4)),
    ),
]


def other_tokenizer(folder: Path, tiny: Tiny) -> dict[str, Any]:
    shutil.copytree(tiny.base, folder / "model")
    make_tokenizer(folder / "model", 280)
    return {"policies": [{"name": "other", "objective": "other", "model": "model"}]}


def missing_gpu(folder: Path, tiny: Tiny) -> dict[str, Any]:
    return {"device": f"cuda:{torch.cuda.device_count() + 1}"} if torch.cuda.is_available() else {"device": "cuda"}


POLICIES = [
    Case("another tokenizer", "policies[0]:", "has another tokenizer than the base", other_tokenizer),
    Case("no GPU", "device:", "give auto or cpu", missing_gpu),
]


def reward(change: Callable[[Path], object] = lambda folder: None, **settings: Any) -> Make:
    def make(folder: Path, tiny: Tiny) -> dict[str, Any]:
        (folder / "model").mkdir()
        change(folder / "model")
        return {"rewards": [{"objective": "plain", **settings}]}

    return make


def function(source: str, name: str) -> Make:
    """A function of a module beside the configuration; each has a name of its own, since modules are kept."""
    module = f"broken_rewards_{name}"
    return reward(
        lambda folder: (folder.parent / f"{module}.py").write_text(source), kind="function", function=f"{module}:{name}"
    )


def head(**changes: Any) -> Make:
    settings = {"format": 1, "base": "base", "hidden_size": 32, "features": [{"layer": 1, "pool": "mean"}], **changes}

    def write_head(folder: Path) -> None:
        (folder / "head.json").write_text(json.dumps(settings))
        save_file({"weight": torch.ones(32), "bias": torch.zeros(1)}, folder / "head.safetensors")

    return reward(write_head, kind="head", model="model")


REWARDS = [
    Case(
        "no such module",
        "rewards[0]:",
        "cannot import nowhere.at.all:f: No module named 'nowhere'; give",
        reward(kind="function", function="nowhere.at.all:f"),
    ),
    Case("no such function", "rewards[0]:", "has no attribute 'absent'", function("other = len\n", "absent")),
    Case("module that raises", "rewards[0]:", "division by zero; give", function("1 / 0\n", "raises")),
    Case("module with a syntax error", "rewards[0]:", "never closed", function("def syntax(\n", "syntax")),
    Case("module that exits", "rewards[0]:", "cannot import", function("raise SystemExit(0)\n", "exits")),
    Case("no function", "rewards[0]:", "is int; give a function", function("number = 3\n", "number")),
    Case("no reward model", "rewards[0]:", "cannot load", reward(kind="classifier", model="model")),
    Case("no head", "rewards[0]:", "head.json is missing", reward(kind="head", model="model")),
    Case("head of another base", "rewards[0]:", "32", head(hidden_size=64)),
    Case("head of another format", "rewards[0]:", "format: found 2, expected 1", head(format=2)),
    Case("head of a layer too many", "rewards[0]:", "reads layer 9", head(features=[{"layer": 9, "pool": "max"}])),
]


HUB = [
    Case("base on the hub", "base:", "'someone/base' is neither", lambda folder, tiny: {"base": "someone/base"}),
    Case("no hub id", "base:", "'a--b/c..d' is neither", lambda folder, tiny: {"base": "a--b/c..d"}),
    Case(
        "adapter on the hub",
        "policies[0].adapter:",
        "'someone/adapter' is neither",
        lambda folder, tiny: {"policies": [{"name": "p", "objective": "p", "adapter": "someone/adapter"}]},
    ),
    Case(
        "reward on the hub",
        "rewards[0].model:",
        "'someone/reward' is neither",
        reward(kind="classifier", model="someone/reward"),
    ),
    Case(
        "GGUF file on the hub",
        "base:",
        "'someone/base/file.gguf' is neither",
        lambda folder, tiny: {"base": "someone/base/file.gguf"},
    ),
]


def prompts(name: str, data: bytes) -> Make:
    def make(folder: Path, tiny: Tiny) -> dict[str, Any]:
        (folder / name).write_bytes(data)
        return {"prompts": name}

    return make


PROMPTS = [
    Case("no JSON", "", "line 2", prompts("prompts.jsonl", b'{"prompt": "a"}\nnope\n')),
    Case("no prompts", "", "no prompts", prompts("prompts.txt", b"\n\n")),
    Case("no text in UTF-8", "", "UTF-8", prompts("prompts.txt", "grün\n".encode("latin-1"))),
    Case("prompt that is no text", "", "line 1", prompts("prompts.jsonl", b'{"prompt": 3}\n')),
    Case("no column of prompts", "", "prompt", prompts("prompts.csv", b"a,b\n1,2\n")),
]
