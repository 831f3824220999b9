"""Adapters as peft and other tools save them, against peft's own forward pass, or refused in one line."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import peft
import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from transformers import LlamaForCausalLM

from engine import Engine, InputError, Sampling
from tests.conftest import ALL_LINEARS, make_base

PROMPTS = ["mix", "move the faders over the lazy dog and jump"]
TWO = ["q_proj", "v_proj"]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """{whether its embeddings are tied: a random tiny Llama}"""
    found = {}
    for tied in (False, True):
        folder = tmp_path_factory.mktemp("tied" if tied else "untied") / "base"
        make_base(folder, num_hidden_layers=3, tie_word_embeddings=tied)
        found[tied] = folder
    return found


def saved(base: Path, folder: Path, settings: peft.PeftConfig, scale: float = 0.2) -> Path:
    """Save an adapter that was trained a little: its weights are moved from where peft begins."""
    torch.manual_seed(1)
    model = peft.get_peft_model(LlamaForCausalLM.from_pretrained(base), settings)
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += torch.randn(parameter.shape, generator=generator) * scale
    model.save_pretrained(folder)
    return folder


def lora(**settings) -> peft.LoraConfig:
    return peft.LoraConfig(**{"r": 4, "lora_alpha": 6, "task_type": "CAUSAL_LM", "target_modules": TWO, **settings})


def configure(base: Path, adapter: str | Path | list[str]) -> Path:
    file = base.parent / "config.yaml"
    policy = {"name": "x", "objective": "x", "adapter": adapter if isinstance(adapter, list) else str(adapter)}
    file.write_text(yaml.safe_dump({"name": "kinds", "base": str(base), "dtype": "float32", "policies": [policy]}))
    return file


def assert_equals_peft(engine: Engine, base: Path, adapter: Path) -> None:
    """Decoded beside another row, and teacher-forced, the policy says what peft's own forward pass says."""
    model = peft.PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base), adapter).eval()
    mixture = engine.mixture({"x": 1})
    requests = [
        engine.submit(prompt, mixture, Sampling(max_new_tokens=12), seed) for seed, prompt in enumerate(PROMPTS)
    ]
    for prompt, request in zip(PROMPTS, requests, strict=True):
        tokens = request.completion(timeout=60).tokens
        ids = engine.policy_set.prompt_ids(engine.policy_set.by_name["x"], prompt)
        with torch.no_grad():
            log_probs = model(input_ids=torch.tensor([ids + tokens])).logits[0].log_softmax(-1)
        expected = [log_probs[len(ids) - 1 + i, token].item() for i, token in enumerate(tokens)]
        assert [step["x"] for step in request.completion().trace] == pytest.approx(expected, abs=2e-4)
        assert engine.token_log_probs(prompt, tokens)["x"] == pytest.approx(expected, abs=2e-4)


KIND = {"task_type": "CAUSAL_LM", "target_modules": TWO}
# What takes the folded path, and what peft has to compute; True: on a base with tied embeddings.
FOLDED: dict[str, tuple[bool, peft.PeftConfig]] = {
    "pissa": (False, lora(init_lora_weights="pissa")),
    "pissa with patterns": (False, lora(init_lora_weights="pissa", rank_pattern={"q_proj": 3}, use_rslora=True)),
    "olora": (False, lora(init_lora_weights="olora", alpha_pattern={"v_proj": 9})),
    "orthogonal": (False, lora(init_lora_weights="orthogonal")),
    "patterns": (False, lora(rank_pattern={"layers.1.self_attn.v_proj": 7}, alpha_pattern={"q_proj": 20})),
    "bias of B": (False, lora(lora_bias=True)),
    "biases of linears": (False, lora(bias="lora_only")),
    "head": (False, lora(target_modules=["q_proj", "lm_head"])),
    "tied head": (True, lora(target_modules=["q_proj", "lm_head"])),
    "saved head": (False, lora(modules_to_save=["lm_head"])),
    "saved tied head": (True, lora(modules_to_save=["lm_head"])),
    "one layer": (False, lora(layers_to_transform=[1])),
}
GENERAL: dict[str, tuple[bool, peft.PeftConfig]] = {
    "embeddings": (False, lora(target_modules=["embed_tokens"])),
    "tied embeddings": (True, lora(target_modules=["embed_tokens"])),
    "tied embeddings and head": (True, lora(target_modules=["embed_tokens", "lm_head"])),
    "both tied": (True, lora(target_modules=["embed_tokens", "q_proj"], ensure_weight_tying=True)),
    "pissa of a tied head": (True, lora(target_modules=["lm_head"], init_lora_weights="pissa")),
    "saved tied embeddings": (True, lora(modules_to_save=["embed_tokens"])),
    "replicated layers": (False, lora(layer_replication=[[0, 2], [1, 3]])),
    "tokens": (True, lora(trainable_token_indices=[5, 9, 20])),
    "dora": (False, lora(use_dora=True)),
    "ia3": (False, peft.IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])),
    "loha": (False, peft.LoHaConfig(r=3, **KIND)),
    "lokr": (False, peft.LoKrConfig(r=3, **KIND)),
    "oft": (False, peft.OFTConfig(oft_block_size=8, **KIND)),
    "vera": (False, peft.VeraConfig(r=8, **KIND)),
    "adalora": (False, peft.AdaLoraConfig(init_r=4, total_step=10, **KIND)),
    "norms": (False, peft.LNTuningConfig(task_type="CAUSAL_LM", target_modules=["input_layernorm"])),
}


@pytest.mark.parametrize("kind", [*FOLDED, *GENERAL])
def test_equals_peft(kind: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    tied, settings = (FOLDED | GENERAL)[kind]
    adapter = saved(bases[tied], tmp_path / "adapter", settings, 0.05 if "pissa" in kind or kind == "olora" else 0.2)
    with Engine.from_config(configure(bases[tied], adapter)) as engine:
        assert (engine.policy_set.by_name["x"].note == "") == (kind in FOLDED)
        assert_equals_peft(engine, bases[tied], adapter)


REFUSED: dict[str, tuple[peft.PeftConfig, str]] = {
    "prefix": (peft.PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "PREFIX_TUNING"),
    "prompt": (peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=3), "PROMPT_TUNING"),
    "randomised pissa": (
        lora(init_lora_weights="pissa_niter_4"),
        "pissa_niter_4.*path_initial_model_for_weight_conversion",
    ),
    "activated lora": (lora(alora_invocation_tokens=[5, 6]), "adapter"),
}


def assert_refused(config: Path, said: str) -> None:
    with pytest.raises(InputError, match=said) as caught:
        Engine.from_config(config)
    assert "\n" not in str(caught.value)
    assert not str(caught.value).endswith(":")


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_kinds(kind: str, bases: dict[bool, Path], tmp_path: Path) -> None:
    settings, said = REFUSED[kind]
    assert_refused(configure(bases[False], saved(bases[False], tmp_path / "adapter", settings)), said)


@pytest.fixture(scope="module")
def plain(bases: dict[bool, Path]) -> Path:
    return saved(bases[False], bases[False].parent / "plain", lora(r=8, lora_alpha=8, target_modules=ALL_LINEARS))


Weights = dict[str, torch.Tensor]


def rewritten(
    plain: Path,
    folder: Path,
    settings: Callable[[dict], object] = lambda _: None,
    weights: Callable[[Weights], Weights] = lambda weights: weights,
) -> Path:
    """Return a copy of the adapter as another tool would write it."""
    shutil.copytree(plain, folder)
    read = json.loads((folder / "adapter_config.json").read_text())
    settings(read)
    (folder / "adapter_config.json").write_text(json.dumps(read))
    file = folder / "adapter_model.safetensors"
    found = {key: tensor.contiguous() for key, tensor in weights(load_file(file)).items()}
    file.unlink()
    save_file(found, file)
    return folder


def every(change: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Weights], Weights]:
    return lambda weights: {key: change(tensor) for key, tensor in weights.items()}


def renamed(change: Callable[[str], str]) -> Callable[[Weights], Weights]:
    return lambda weights: {change(key): tensor for key, tensor in weights.items()}


READ: dict[str, dict] = {
    "no r and no lora_alpha": {"settings": lambda c: (c.pop("r"), c.pop("lora_alpha"))},
    "null patterns": {"settings": lambda c: c.update(rank_pattern=None, alpha_pattern=None, use_rslora=None)},
    "unknown settings": {"settings": lambda c: c.update(merge_weights=True, made_by={"tool": 1})},
    "an adapter's name": {"weights": renamed(lambda key: key.replace(".weight", ".default.weight"))},
    "no prefix": {"weights": renamed(lambda key: key.removeprefix("base_model.model."))},
    "of DDP": {"weights": renamed(lambda key: f"module.{key}")},
    "of torch.compile": {"weights": renamed(lambda key: key.replace("model.model.", "model._orig_mod.model."))},
}


@pytest.mark.parametrize("how", READ)
def test_as_other_tools_write_them(how: str, bases: dict[bool, Path], plain: Path, tmp_path: Path) -> None:
    """What means the same as peft's own writing of the adapter is read as that."""
    with Engine.from_config(configure(bases[False], rewritten(plain, tmp_path / "other", **READ[how]))) as engine:
        assert engine.policy_set.by_name["x"].note == ""
        assert_equals_peft(engine, bases[False], plain)


def test_pickled_weights(bases: dict[bool, Path], plain: Path, tmp_path: Path) -> None:
    """Tensors are read from a .bin file; anything else in it is never run."""
    folder = shutil.copytree(plain, tmp_path / "pickled")
    weights = load_file(folder / "adapter_model.safetensors")
    (folder / "adapter_model.safetensors").unlink()
    torch.save(weights, folder / "adapter_model.bin")
    with Engine.from_config(configure(bases[False], folder)) as engine:
        assert_equals_peft(engine, bases[False], plain)
    torch.save({**weights, "more": Path("file")}, folder / "adapter_model.bin")
    assert_refused(configure(bases[False], folder), r"adapter_model\.bin is unreadable.*save the adapter again")


FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
UNREADABLE: dict[str, tuple[dict, str]] = {
    "null alpha": ({"settings": lambda c: c.update(lora_alpha=None)}, "lora_alpha: found null, expected a number"),
    "alpha as text": ({"settings": lambda c: c.update(lora_alpha="16")}, 'lora_alpha: found "16"'),
    "rank 0": ({"settings": lambda c: c.update(r=0)}, "r: found 0"),
    "another rank": ({"settings": lambda c: c.update(r=16)}, "has rank 8, and adapter_config.json says 16"),
    "no kind": ({"settings": lambda c: c.pop("peft_type")}, 'has no "peft_type"'),
    "unknown kind": ({"settings": lambda c: c.update(peft_type="HYPERLORA")}, "'HYPERLORA', which this peft does not"),
    "patterns as a list": ({"settings": lambda c: c.update(rank_pattern=[1])}, "rank_pattern: found"),
    "other targets": ({"settings": lambda c: c.update(target_modules=["c_attn"])}, "target_modules"),
    "empty tensors": ({"weights": every(lambda tensor: tensor[:0])}, "is empty, as DeepSpeed ZeRO-3"),
    "NaN": ({"weights": every(lambda tensor: tensor * float("nan"))}, "NaN or infinite"),
    "infinite": ({"weights": every(lambda tensor: tensor / 0)}, "NaN or infinite"),
    "half a pair": ({"weights": lambda w: {k: v for k, v in w.items() if "lora_A" in k}}, "lora_A but no lora_B"),
    "nothing": ({"weights": lambda w: {"other.weight": torch.ones(2)}}, "holds no LoRA"),
    "other names": ({"weights": renamed(lambda key: key.replace("layers", "blocks"))}, "the base has no"),
    "other shapes": ({"weights": lambda w: {**w, FIRST: torch.ones(8, 40)}}, "for another base"),
    "too many layers": ({"weights": renamed(lambda key: key.replace("layers.2", "layers.7"))}, "layers.7"),
}


@pytest.mark.parametrize("how", UNREADABLE)
def test_what_cannot_be_read_is_refused(how: str, bases: dict[bool, Path], plain: Path, tmp_path: Path) -> None:
    changes, said = UNREADABLE[how]
    assert_refused(configure(bases[False], rewritten(plain, tmp_path / "broken", **changes)), said)


def test_folders_that_are_no_adapter_say_what_to_give(bases: dict[bool, Path], plain: Path, tmp_path: Path) -> None:
    shutil.copytree(plain, tmp_path / "run" / "checkpoint-500")
    assert_refused(configure(bases[False], tmp_path / "run"), r"adapters inside it.*checkpoint-500")
    with Engine.from_config(configure(bases[False], tmp_path / "run" / "checkpoint-500")) as engine:
        assert_equals_peft(engine, bases[False], plain)
    assert_refused(configure(bases[False], bases[False]), "a whole model: give it as 'model'")
    # A folder inside a repository of the hub is asked for, and not refused for its name.
    assert_refused(configure(bases[False], "org/name/checkpoint-500"), "org/name/checkpoint-500")


def test_said_at_load(bases: dict[bool, Path], plain: Path, tmp_path: Path) -> None:
    """Missing layers, another base, and a policy that changes nothing."""

    def without_layer(weights: Weights) -> Weights:
        return {key: tensor for key, tensor in weights.items() if "layers.1." not in key}

    def none(weights: Weights) -> Weights:
        return {key: tensor * ("lora_A" in key) for key, tensor in weights.items()}

    partial = rewritten(plain, tmp_path / "partial", weights=without_layer)
    with Engine.from_config(configure(bases[False], partial)) as engine:
        assert any("no weights for 7 of the 21 linears" in note for note in engine.notes)
        assert_equals_peft(engine, bases[False], partial)
    other = rewritten(plain, tmp_path / "named", settings=lambda c: c.update(base_model_name_or_path="org/other"))
    with Engine.from_config(configure(bases[False], other)) as engine:
        assert any("names 'org/other' as its base" in note for note in engine.notes)
    with Engine.from_config(configure(bases[False], rewritten(plain, tmp_path / "zero", weights=none))) as engine:
        assert any("policy 'x' says what the reference says" in note for note in engine.notes)
    with Engine.from_config(configure(bases[False], plain)) as engine:
        assert engine.notes == []


def test_a_system_prompt_that_the_template_drops(bases: dict[bool, Path], tmp_path: Path) -> None:
    base = shutil.copytree(bases[False], tmp_path / "base")
    (base / "chat_template.jinja").write_text(
        "{% for m in messages if m.role != 'system' %}<|{{ m['role'] }}|>{{ m['content'] }}<|end|>{% endfor %}"
        "{% if add_generation_prompt %}<|assistant|>{% endif %}"
    )
    file = tmp_path / "config.yaml"
    policy = {"name": "told", "objective": "told", "system_prompt": "be brief"}
    file.write_text(yaml.safe_dump({"name": "dropped", "base": "base", "policies": [policy]}))
    with Engine.from_config(file) as engine:
        assert engine.notes == [
            "policy 'told' says what the reference says: the chat template leaves its system prompt out"
        ]


def test_a_stack_on_a_base_that_pissa_changed_is_refused(bases: dict[bool, Path], plain: Path, tmp_path: Path) -> None:
    pissa = saved(bases[False], tmp_path / "pissa", lora(init_lora_weights="pissa"), 0.05)
    assert_refused(configure(bases[False], [str(plain), str(pissa)]), "cannot be stacked on others")
