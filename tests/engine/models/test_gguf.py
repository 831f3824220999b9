"""A GGUF file as a base: the same model, tokenizer and template as the weights that it was written from."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    Qwen2Config,
    Qwen2ForCausalLM,
)

import engine.models.gguf
from engine import Engine, InputError
from engine.config import load_config
from engine.model_cache import digest
from engine.models.config_fingerprint import contents
from engine.models.folded_adapters import names_base
from engine.models.gguf import folder_of, needs_conversion
from engine.models.hub import check_hub
from engine.models.loading import load_model, load_tokenizer
from tests.conftest import CHAT, make_tokenizer

NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
CPU = torch.device("cpu")


def gguf_name(name: str) -> str:
    if name.startswith("model.layers."):
        _, _, layer, rest = name.split(".", 3)
        module, _, kind = rest.rpartition(".")
        return f"blk.{layer}.{NAMES[module]}.{kind}"
    return {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }[name]


def write_gguf(folder: Path, file: Path, quantized: bool = False) -> None:
    """Write a Qwen2 as llama.cpp would. quantized: its matrices as Q8_0, and these numbers into the folder as well."""
    model = Qwen2ForCausalLM.from_pretrained(folder)
    config, tokenizer = model.config, json.loads((folder / "tokenizer.json").read_text())
    writer = gguf.GGUFWriter(file, "qwen2")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_file_type(7 if quantized else 0)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    tokens = sorted(tokenizer["model"]["vocab"], key=tokenizer["model"]["vocab"].get)
    special = {token["content"] for token in tokenizer["added_tokens"]}
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token in special else 1 for token in tokens])
    writer.add_token_merges([" ".join(pair) for pair in tokenizer["model"]["merges"]])
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_pad_token_id(config.pad_token_id)
    writer.add_chat_template(CHAT)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            values = parameter.numpy()
            if quantized and parameter.dim() == 2:
                blocks = gguf.quantize(values, gguf.GGMLQuantizationType.Q8_0)
                parameter.copy_(torch.from_numpy(gguf.dequantize(blocks, gguf.GGMLQuantizationType.Q8_0)))
                writer.add_tensor(gguf_name(name), blocks, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            else:
                writer.add_tensor(gguf_name(name), np.ascontiguousarray(values))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    if quantized:
        model.save_pretrained(folder)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory):
    """A folder with `plain` and `plain.gguf` (float32), `small` and `small.gguf` (Q8_0, tied embeddings), and a cache
    of its own."""
    folder = tmp_path_factory.mktemp("gguf")
    for seed, (name, tied) in enumerate((("plain", False), ("small", True))):
        tokenizer = make_tokenizer(folder / name)
        torch.manual_seed(seed)
        config = Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=256,
            initializer_range=0.2,
            tie_word_embeddings=tied,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=None,
        )
        model = Qwen2ForCausalLM(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter, 1.0, 0.2)
        model.save_pretrained(folder / name)
        write_gguf(folder / name, folder / f"{name}.gguf", quantized=tied)
    lora = get_peft_model(
        Qwen2ForCausalLM.from_pretrained(folder / "plain"),
        LoraConfig(task_type="CAUSAL_LM", r=4, target_modules=["q_proj", "down_proj"]),
    )
    for name, parameter in lora.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter.data, std=0.3)
    lora.save_pretrained(folder / "adapter")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.models.gguf, "cache_folder", lambda: folder / "cache")
        yield folder


IDS = torch.arange(3, 43).reshape(2, 20)


@pytest.mark.parametrize("name", ["plain", "small"])
def test_logits_and_tokens_are_those_of_the_weights(files: Path, name: str) -> None:
    """Also of quantised ones, whose blocks unpack to float32; with tied embeddings and with an output layer."""
    ours = load_model(str(files / f"{name}.gguf"), "float32", CPU)
    theirs = AutoModelForCausalLM.from_pretrained(files / name)
    assert type(ours) is Qwen2ForCausalLM and ours.dtype == torch.float32
    assert ours.config.tie_word_embeddings == (name == "small")
    with torch.no_grad():
        assert torch.equal(ours(input_ids=IDS).logits, theirs(input_ids=IDS).logits)
    tokenizer, original = load_tokenizer(str(files / f"{name}.gguf")), AutoTokenizer.from_pretrained(files / name)
    assert tokenizer.get_vocab() == original.get_vocab()
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("<|end|>", CHAT)
    for text in ("<|user|>mix the policies<|end|><|assistant|>", "the lazy dog  jumps, Grüße 你好!"):
        assert tokenizer(text).input_ids == original(text).input_ids
        assert tokenizer.decode(tokenizer(text).input_ids) == text


def test_it_is_a_plain_model(files: Path, tmp_path: Path) -> None:
    """It can be copied, saved and trained from."""
    model = load_model(str(files / "small.gguf"), "float32", CPU)
    assert getattr(model.config, "quantization_config", None) is None
    assert not getattr(model, "is_quantized", False)
    copied = copy.deepcopy(model)
    copied.save_pretrained(tmp_path / "saved")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    with torch.no_grad():
        assert torch.equal(again(input_ids=IDS).logits, model(input_ids=IDS).logits)


def test_dtypes(files: Path) -> None:
    """Rounded once, as the unpacked weights are when they are cast. auto: as stored, or bfloat16 if quantised."""
    for name, dtype in (("plain", torch.float32), ("small", torch.bfloat16)):
        folder = folder_of(str(files / f"{name}.gguf"), "auto")
        ours = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").state_dict()
        theirs = AutoModelForCausalLM.from_pretrained(files / name, dtype=dtype).state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) and ours[key].dtype == dtype for key in ours)


def test_it_is_converted_once_and_silently(
    files: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(files / "plain.gguf", files / "once.gguf")
    abandoned = files / "cache" / ".once-float32-1"
    abandoned.mkdir(parents=True)
    os.utime(abandoned, (0, 0))
    assert needs_conversion(str(files / "once.gguf"), torch.float32)
    first = folder_of(str(files / "once.gguf"), torch.float32)
    assert capfd.readouterr() == ("", "")
    assert not needs_conversion(str(files / "once.gguf"), torch.float32)
    monkeypatch.setattr(engine.models.gguf, "_convert_apart", lambda *_: pytest.fail("it was converted again"))
    assert folder_of(str(files / "once.gguf"), torch.float32) == first
    assert folder_of(str(files / "once.gguf")) in (first, first.replace("float32", "auto"))
    assert folder_of("org/some-model", torch.float32) == "org/some-model"
    assert not list((files / "cache").glob(".*")), "nothing half done is left"


def test_a_changed_file_is_another_base(files: Path) -> None:
    file = files / "changing.gguf"
    shutil.copy(files / "plain.gguf", file)
    before = contents(str(file)), folder_of(str(file), torch.float32), digest(file)
    data = bytearray(file.read_bytes())
    data[-1] ^= 1  # the last weight
    file.write_bytes(data)
    after = contents(str(file)), folder_of(str(file), torch.float32), digest(file)
    assert all(one != other for one, other in zip(before, after, strict=True))
    weights = [AutoModelForCausalLM.from_pretrained(folder).state_dict() for _, folder, _ in (before, after)]
    assert any(not torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def write(files: Path, name: str, **changes) -> Path:
    policies = [{"name": "helpful", "objective": "helpful", "adapter": "adapter"}]
    config = {"name": "tiny", "base": "plain", "dtype": "float32", "policies": policies, **changes}
    (files / name).write_text(json.dumps(config))
    return files / name


def name_base(adapter: Path, base: str) -> None:
    """Change what an adapter names as its base."""
    settings = adapter / "adapter_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"base_model_name_or_path": base}))


def test_an_engine_on_a_gguf_file(files: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Adapters, a model of its own and a LoRA reward model on it give what they give on the folder."""
    name_base(files / "adapter", "org/Plain")
    reward = get_peft_model(
        AutoModelForSequenceClassification.from_pretrained(files / "plain", num_labels=1),
        LoraConfig(task_type="SEQ_CLS", r=4, target_modules=["q_proj"], modules_to_save=["score"]),
    )
    for name, parameter in reward.named_parameters():
        if "lora_B" in name or "score" in name:
            torch.nn.init.normal_(parameter.data)
    for base in ("plain", "plain.gguf"):
        reward.save_pretrained(files / f"reward-{base}")
        name_base(files / f"reward-{base}", f"../{base}")
    found = []
    for base in ("plain", "plain.gguf"):
        policies = [
            {"name": "helpful", "objective": "helpful", "adapter": "adapter"},
            {"name": "other", "objective": "other", "model": base},
        ]
        rewards = [{"objective": "helpful", "kind": "classifier", "model": f"reward-{base}"}]
        file = write(files, f"{base}.yaml", base=base, policies=policies, rewards=rewards)
        with Engine.from_config(file) as made:
            completion = made.generate("mix the dog", max_new_tokens=12, temperature=0.8, seed=2)
            found.append((completion.tokens, completion.trace, completion.rewards))
    assert found[0] == found[1]
    warnings = [record.getMessage() for record in caplog.records if "names 'org/Plain' as its base" in record.message]
    assert len(warnings) == 1 and "plain.gguf" not in warnings[0], "the file is called after what the adapter names"


def test_names_of_a_base() -> None:
    assert names_base("Qwen/Qwen2.5-Coder-0.5B-Instruct", "/x/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
    assert names_base("org/repo/a-q4.gguf", "/somewhere/a-q4.gguf")
    assert not names_base("Qwen/Qwen2.5-0.5B", "/x/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf")
    assert not names_base("org/a", "other/a")


@pytest.mark.parametrize("size", [3, 5_000, -1_000])
def test_a_torn_file_is_said_so_in_one_line(files: Path, size: int) -> None:
    torn = files / f"torn{size}.gguf"
    torn.write_bytes((files / "plain.gguf").read_bytes()[:size])
    message = r"torn.*gguf' is not a GGUF file|cannot read the GGUF file '.*torn.*get it again"
    with pytest.raises(InputError, match=message) as raised:
        folder_of(str(torn), torch.float32)
    assert "\n" not in str(raised.value)
    assert not list((files / "cache").glob("*torn*"))


def test_mistakes(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "text.gguf").write_text("not a model at all")
    with pytest.raises(InputError, match=r"text.gguf' is not a GGUF file; give one, or a folder"):
        Engine.from_config(write(files, "text.yaml", base="text.gguf"))
    for missing in ("gone.gguf", "models/gone.gguf", "./a/b/gone.gguf"):
        with pytest.raises(InputError, match=r"base: found '.*gone.gguf', expected a path that exists"):
            load_config(write(files, "gone.yaml", base=missing))
    config = load_config(write(files, "hub.yaml", base="org/repository/file.gguf"))
    assert config.base == "org/repository/file.gguf"
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"org/repository/file.gguf'.*hub"):
        folder_of(config.base, torch.float32)
    asked = []
    monkeypatch.setattr("engine.models.hub.HfApi.model_info", lambda _, repository, **__: asked.append(repository))
    check_hub(config)
    assert asked == ["org/repository"]


def test_no_room_for_the_conversion(files: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (files / "blocked").write_text("a file where the cache should be")
    monkeypatch.setattr(engine.models.gguf, "cache_folder", lambda: files / "blocked")
    with pytest.raises(InputError, match=r"cannot keep the converted 'small.gguf' in .*blocked.*XDG_CACHE_HOME"):
        folder_of(str(files / "small.gguf"), torch.float32)
