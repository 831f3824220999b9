"""What the check at load finds: windows, chunks, local attention, positions that change with length, neighbours."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import torch
import yaml
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    GPTNeoConfig,
    Llama4TextConfig,
    LlamaConfig,
    MptConfig,
    OPTConfig,
    Phi3Config,
    PreTrainedModel,
    Qwen2MoeConfig,
)

from engine import Engine, InputError, Sampling
from engine.inference import self_test
from engine.inference.self_test import check_decoding
from engine.models.fingerprint import weights_fingerprint
from tests.conftest import Tiny, make_tokenizer

SHORT, LONG = "mix", "move the faders over the lazy dog and jump over it " * 3
SHAPE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
    "bos_token_id": None,
    "eos_token_id": 4,
    "pad_token_id": 0,
}


def folder_of(folder: Path, model: PreTrainedModel) -> Path:
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.data.normal_(std=0.2)  # they start at zero, and would show nothing
    model.save_pretrained(folder)
    make_tokenizer(folder)
    return folder


def configure(base: Path, **policy) -> Path:
    file = base.parent / "config.yaml"
    policies = [{"name": "x", "objective": "x", **(policy or {"prefix": "the fox: "})}]
    file.write_text(yaml.safe_dump({"name": "checked", "base": str(base), "dtype": "float32", "policies": policies}))
    return file


def uncached(model: torch.nn.Module, prompt: list[int], tokens: list[int]) -> list[float]:
    """Log-probs of tokens by the model's own forward pass of all before each: what depends on length is right."""
    found = []
    for i, token in enumerate(tokens):
        with torch.no_grad():
            logits = model(input_ids=torch.tensor([prompt + tokens[:i]]), use_cache=False).logits
        found.append(logits[0, -1].log_softmax(-1)[token].item())
    return found


def assert_right(engine: Engine, models: dict[str, torch.nn.Module], prompts: tuple[str, ...] = (SHORT, LONG)) -> None:
    """Each policy says of rows of different lengths, decoded together, what its model says of each alone."""
    mixture = engine.mixture({"x": 1})
    requests = [engine.submit(text, mixture, Sampling(max_new_tokens=10), seed=i) for i, text in enumerate(prompts)]
    for prompt, request in zip(prompts, requests, strict=True):
        completion = request.completion(timeout=120)
        for name, model in models.items():
            ids = engine.policy_set.prompt_ids(engine.policy_set.by_name[name], prompt)
            expected = uncached(model, ids, completion.tokens)
            assert [step[name] for step in completion.trace] == pytest.approx(expected, abs=2e-4)
            assert engine.token_log_probs(prompt, completion.tokens)[name] == pytest.approx(expected, abs=2e-4)


def gemma3() -> PreTrainedModel:
    text = {**SHAPE, "vocab_size": 300, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
    text["layer_types"] = ["sliding_attention", "full_attention"]
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    return Gemma3ForConditionalGeneration(config)


def of(config) -> PreTrainedModel:
    return AutoModelForCausalLM.from_config(config)


NEO = {"hidden_size": 32, "num_layers": 2, "num_heads": 4, "window_size": 8, "max_position_embeddings": 512}
MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16, "shared_expert_intermediate_size": 16}
MODELS = {
    "gemma3 wrapper": gemma3,
    "llama4 in chunks": lambda: of(
        Llama4TextConfig(
            **{**SHAPE, "vocab_size": 300, "head_dim": 8, "intermediate_size_mlp": 48, "attention_chunk_size": 16},
            num_local_experts=2,
            layer_types=["chunked_attention", "full_attention"],
            no_rope_layers=[1, 0],
        )
    ),
    "gpt_neo": lambda: of(
        GPTNeoConfig(
            vocab_size=300, initializer_range=0.2, attention_types=[[["global", "local"], 1]], eos_token_id=4, **NEO
        )
    ),
    "mpt with alibi": lambda: of(MptConfig(d_model=32, n_heads=4, n_layers=2, vocab_size=300, max_seq_len=512)),
    "qwen2 moe": lambda: of(Qwen2MoeConfig(vocab_size=300, **SHAPE, **MOE)),
}


@pytest.mark.parametrize("kind", MODELS)
def test_decoded_as_the_model_says(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    base = folder_of(tmp_path / "base", MODELS[kind]())
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with Engine.from_config(configure(base)) as engine:
        assert_right(engine, {"reference": model, "x": model})


def test_what_a_cache_cannot_keep_is_read_again(tmp_path: Path) -> None:
    """GPT-Neo's local layers count from the longest row's end: its numbers would depend on its neighbours."""
    torch.manual_seed(0)
    base = folder_of(tmp_path / "base", MODELS["gpt_neo"]())
    with Engine.from_config(configure(base)) as engine:
        assert engine.policy_set.reread == {0}
        assert "reads its whole text again at every token" in engine.notes[0]
        # It joins, leaves and is forked as others are.
        exact = engine.generate(LONG, {"x": 1}, max_new_tokens=4, particles=3, seed=2)
        assert exact.tokens and engine._scheduler.batch.rows == 0
        soup = engine.submit(SHORT, engine.mixture({"reference": 1}), Sampling(max_new_tokens=3))
        assert soup.completion(timeout=60).tokens


def test_positions_that_change_with_length_end_where_they_change(tmp_path: Path) -> None:
    """Up to there all is right; longer texts are refused."""
    factors = {"rope_type": "longrope", "short_factor": [1.0] * 4, "long_factor": [4.0, 3.0, 2.0, 1.5]}
    rope = {**factors, "original_max_position_embeddings": 64, "rope_theta": 10000.0}
    torch.manual_seed(0)
    config = Phi3Config(vocab_size=300, rope_parameters=rope, original_max_position_embeddings=64, **SHAPE)
    base = folder_of(tmp_path / "phi3", of(config))
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with Engine.from_config(configure(base)) as engine:
        assert engine.policy_set.context == 64
        assert_right(engine, {"reference": model, "x": model}, (SHORT, "the fox"))
        with pytest.raises(InputError, match="these models hold 64"):
            engine.generate(LONG)


def test_dynamic_positions(tmp_path: Path) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10000.0}
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=300, rope_parameters=rope, **{**SHAPE, "max_position_embeddings": 64})
    base = folder_of(tmp_path / "base", of(config))
    model = AutoModelForCausalLM.from_pretrained(base).eval()
    with Engine.from_config(configure(base)) as engine:
        assert_right(engine, {"reference": model, "x": model}, (SHORT, "the fox"))
        with pytest.raises(InputError, match="these models hold 64"):
            engine.generate(LONG)


def test_an_adapter_on_linears_that_read_flattened_rows(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = OPTConfig(
        vocab_size=300,
        hidden_size=32,
        ffn_dim=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=512,
        word_embed_proj_dim=32,
        init_std=0.2,
        eos_token_id=4,
    )
    base = folder_of(tmp_path / "base", of(config))
    settings = LoraConfig(task_type="CAUSAL_LM", r=3, target_modules=["fc1", "fc2", "q_proj"])
    lora = get_peft_model(AutoModelForCausalLM.from_pretrained(base), settings)
    for name, parameter in lora.named_parameters():
        if "lora_" in name:
            parameter.data.normal_(std=0.3)
    lora.save_pretrained(tmp_path / "adapter")
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), tmp_path / "adapter").eval()
    with Engine.from_config(configure(base, adapter=str(tmp_path / "adapter"))) as engine:
        assert "fc1 reads [6, 32] of 2 rows with 3 positions" in engine.policy_set.by_name["x"].note
        assert_right(engine, {"x": model})


def test_padded_vocabularies_are_mixed_over_the_tokenizers(tiny: Tiny, tmp_path: Path) -> None:
    """Two models of one tokenizer, one's embedding padded: its own numbers, mixed over the tokens that both have."""
    torch.manual_seed(3)
    other = folder_of(tmp_path / "padded", of(LlamaConfig(vocab_size=448, **SHAPE)))
    file = tiny.write("padded.yaml", policies=[{"name": "m", "objective": "m", "model": str(other)}], rewards=[])
    models = {"reference": tiny.base, "m": other}
    with Engine.from_config(file) as engine:
        size = len(engine.policy_set.tokenizer)
        completion = engine.generate(SHORT, {"m": 1, "reference": 1}, max_new_tokens=12, temperature=0.0)
        prompt = engine.policy_set.prompt_ids(engine.policy_set.policies[0], SHORT)
    rows = {}
    for name, source in models.items():
        with torch.no_grad():
            model = AutoModelForCausalLM.from_pretrained(source).eval()
            rows[name] = model(input_ids=torch.tensor([prompt + completion.tokens])).logits[0].log_softmax(-1)
    for i, token in enumerate(completion.tokens):
        place = len(prompt) - 1 + i
        mixed = sum(found[place, :size] for found in rows.values()) / 2
        assert int(mixed.argmax()) == token
        for name, found in rows.items():
            assert completion.trace[i][name] == pytest.approx(found[place, token].item(), abs=1e-4)


def test_random_weights_are_refused(tiny: Tiny, tmp_path: Path) -> None:
    """A model that was saved without its head would get a random one."""
    model = AutoModelForCausalLM.from_pretrained(tiny.base)
    model.model.save_pretrained(tmp_path / "headless")
    make_tokenizer(tmp_path / "headless")
    with pytest.raises(InputError, match=r"have no lm_head\.weight, which would be random"):
        Engine.from_config(configure(tmp_path / "headless"))


def test_a_quantised_base_without_its_library(tiny: Tiny, tmp_path: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny.base)
    base = folder_of(tmp_path / "base", model)
    settings = base / "config.json"
    quantised = '{"quantization_config": {"quant_method": "gptq", "bits": 4}, '
    settings.write_text(settings.read_text().replace("{", quantised, 1))
    with pytest.raises(InputError, match="cannot load a language model") as caught:
        Engine.from_config(configure(base))
    assert "\n" not in str(caught.value)


def test_the_check_is_short_and_is_kept_for_large_models(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with Engine.from_config(tiny.config) as engine:
        policy_set = engine.policy_set
        assert policy_set.fingerprints == [None]
        begun = time.monotonic()
        check_decoding(policy_set)
        print(f"the check of a tiny model took {time.monotonic() - begun:.2f} s")
        looked: list[int] = []
        real = self_test.look_at
        monkeypatch.setattr(self_test, "look_at", lambda *given: looked.append(given[1]) or real(*given))
        monkeypatch.setattr("engine.models.fingerprint.LARGE", 0)
        key = weights_fingerprint(policy_set.models[0])
        assert key and key == weights_fingerprint(policy_set.models[0])
        policy_set.fingerprints = [key]
        check_decoding(policy_set)
        check_decoding(policy_set)
        assert looked == [0]
        next(policy_set.models[0].parameters()).data[0] += 1
        assert weights_fingerprint(policy_set.models[0]) != key


def test_a_row_that_depends_on_its_neighbour_is_read_alone(tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model whose logits depend on how much of the batch is padding."""
    with Engine.from_config(tiny.config) as engine:
        policy_set = engine.policy_set
        model, real = policy_set.models[0], policy_set.models[0].forward

        def careless(input_ids: torch.Tensor, **settings):
            if "attention_mask" in settings and settings["attention_mask"].dim() == 2:
                scale = 1 + settings["attention_mask"].float().mean()
                found = real(input_ids=input_ids, **settings)
                found.logits = found.logits * scale
                return found
            return real(input_ids=input_ids, **settings)

        monkeypatch.setattr(model, "forward", careless)
        apart = self_test.differs(model, *self_test.beside_another(policy_set, 0))
        assert apart > 0.01
        policy_set.apart.add(0)
        assert self_test.differs(model, *self_test.beside_another(policy_set, 0)) == 0
        policy_set.apart.clear()
