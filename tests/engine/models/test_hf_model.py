"""A mixture as a Hugging Face model, against the engine and against transformers' own decoding of the same logits."""

from __future__ import annotations

import copy
import errno
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import transformers
import yaml
from huggingface_hub import HfApi, ModelCard
from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

from engine import Engine, InputError, MixedPolicy
from tests.conftest import Tiny

WEIGHTS = {"plain": 0.5, "stabilized": 0.2, "narrow": 0.3}
PROMPTS = ["mix", "move the faders over the lazy dog and jump"]


@pytest.fixture(scope="module", params=["geometric", "power", "soup"])
def model(tiny: Tiny, request: pytest.FixtureRequest) -> MixedPolicy:
    return MixedPolicy.from_config(tiny.config, WEIGHTS, rule=request.param, gain=1.3).eval()


def ids(model: MixedPolicy, prompt: str) -> list[int]:
    return model.policy_set.prompt_ids(model.policy_set.policies[0], prompt)


def batch(model: MixedPolicy) -> dict[str, torch.Tensor]:
    """Both prompts, left-padded."""
    input_ids, mask = model.policy_set.pad([ids(model, prompt) for prompt in PROMPTS])
    return {"input_ids": input_ids, "attention_mask": mask}


def test_greedy_equals_the_engine(tiny_engine: Engine, model: MixedPolicy) -> None:
    made = model.generate(**batch(model), max_new_tokens=20, do_sample=False)
    longest = batch(model)["input_ids"].shape[1]
    for row, prompt in zip(made.tolist(), PROMPTS, strict=True):
        expected = tiny_engine.generate(
            prompt, WEIGHTS, rule=model.mixture.rule, gain=1.3, max_new_tokens=20, temperature=0.0
        )
        assert row[longest:][: len(expected.tokens)] == expected.tokens


def test_beams_equal_beams_without_a_cache(model: MixedPolicy) -> None:
    """The beams' rows are re-ordered in the cache; without one there is nothing to re-order."""
    settings = {"max_new_tokens": 12, "num_beams": 4, "do_sample": False, "num_return_sequences": 2}
    assert torch.equal(
        model.generate(**batch(model), **settings, use_cache=True),
        model.generate(**batch(model), **settings, use_cache=False),
    )


def test_samples_follow_the_mixture(model: MixedPolicy) -> None:
    """4,000 first tokens against the mixture's distribution."""
    given = torch.tensor([ids(model, PROMPTS[1])])
    torch.manual_seed(0)
    made = model.generate(
        given,
        attention_mask=torch.ones_like(given),
        max_new_tokens=1,
        do_sample=True,
        top_k=0,
        num_return_sequences=4000,
    )
    drawn = torch.bincount(made[:, -1], minlength=model.config.vocab_size) / 4000
    with torch.no_grad():
        expected = model(given).logits[0, -1].exp()
    assert expected.sum().item() == pytest.approx(1, abs=1e-4)
    assert (drawn - expected).abs().sum() / 2 < 0.12  # a sample of that size from the same distribution is under it


def test_streamers_and_processors(model: MixedPolicy) -> None:
    given = torch.tensor([ids(model, PROMPTS[0])])
    streamer = TextIteratorStreamer(model.tokenizer, skip_prompt=True, skip_special_tokens=True)
    settings = {"attention_mask": torch.ones_like(given), "max_new_tokens": 15, "do_sample": False}
    made = model.generate(given, streamer=streamer, **settings)
    tokens = made[0, given.shape[1] :]
    assert "".join(streamer) == model.tokenizer.decode(tokens, skip_special_tokens=True)
    others = model.generate(given, suppress_tokens=tokens.tolist(), **settings)[0, given.shape[1] :]
    assert not set(others.tolist()) & set(tokens.tolist())


def test_the_mixture_can_be_changed_between_calls(tiny_engine: Engine, tiny: Tiny) -> None:
    model = MixedPolicy.from_config(tiny.config, {"plain": 1}, trace=True)
    given = torch.tensor([ids(model, PROMPTS[1])])
    for weights in ({"plain": 1}, {"narrow": 1}, {"stabilized": 0.5, "plain": 0.5}):
        model.mixture = model.mix(weights)
        made = model.generate(given, attention_mask=torch.ones_like(given), max_new_tokens=10, do_sample=False)
        expected = tiny_engine.generate(PROMPTS[1], weights, max_new_tokens=10, temperature=0.0).tokens
        assert made[0, given.shape[1] :].tolist() == expected


def test_the_loss_is_the_cross_entropy_of_the_mixture(model: MixedPolicy) -> None:
    given = torch.tensor([ids(model, PROMPTS[1])])
    with torch.no_grad():
        made = model(given, labels=given)
    by_hand = -sum(made.logits[0, i, given[0, i + 1]] for i in range(given.shape[1] - 1)) / (given.shape[1] - 1)
    assert made.loss.item() == pytest.approx(by_hand.item(), abs=1e-5)


def test_what_cannot_be_one_model_is_refused(tiny: Tiny) -> None:
    policies = [
        {"name": "plain", "objective": "plain", "adapter": "plain"},
        {"name": "full", "objective": "b", "model": "base"},
    ]
    config = tiny.write("full.yaml", policies=policies, rewards=[])
    with pytest.raises(InputError, match="policy 'full' is general path"):
        MixedPolicy.from_config(config)
    model = MixedPolicy.from_config(config, {"plain": 1})
    model.mixture = model.mix({"full": 1})
    with pytest.raises(InputError, match="full is not among this model's policies"):
        model(torch.tensor([[5]]))


PROMPTED = [
    {"name": "plain", "objective": "plain", "adapter": "plain"},
    {"name": "told", "objective": "b", "system_prompt": "mix the policies"},
    {"name": "led", "objective": "c", "prefix": "the lazy dog:\n"},
]


@pytest.fixture(scope="module")
def prompted(tiny: Tiny) -> Path:
    return tiny.write("prompted.yaml", policies=PROMPTED, rewards=[])


def test_prompted_policies_equal_the_engine(prompted: Path) -> None:
    """Greedy, from a left-padded batch, with the cache and without it."""
    weights = {"plain": 0.3, "told": 0.5, "led": 0.2}
    model = MixedPolicy.from_config(prompted, weights).eval()
    assert {name: head.longer > 0 for name, head in model.heads.items()} == {"told": True, "led": True}
    settings = {"max_new_tokens": 14, "do_sample": False}
    made = model.generate(**batch(model), **settings)
    assert torch.equal(made, model.generate(**batch(model), **settings, use_cache=False))
    longest = batch(model)["input_ids"].shape[1]
    with Engine.from_config(prompted) as engine:
        for row, prompt in zip(made.tolist(), PROMPTS, strict=True):
            expected = engine.generate(prompt, weights, max_new_tokens=14, temperature=0.0).tokens
            assert row[longest:][: len(expected)] == expected
    beams = {"max_new_tokens": 8, "num_beams": 3, "do_sample": False}
    assert torch.equal(
        model.generate(**batch(model), **beams), model.generate(**batch(model), **beams, use_cache=False)
    )


def test_a_prompted_policy_alone_is_the_base_under_its_prompt(tiny: Tiny, prompted: Path) -> None:
    model = MixedPolicy.from_config(prompted, {"told": 1.0}).eval()
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    given = {"return_dict": False, "add_generation_prompt": True}
    said = [{"role": "user", "content": PROMPTS[1]}]
    told = [{"role": "system", "content": "mix the policies"}, *said]
    plain_ids, told_ids = (tokenizer.apply_chat_template(messages, **given) for messages in (said, told))
    base = AutoModelForCausalLM.from_pretrained(tiny.base).eval()
    with torch.no_grad():
        found = model(torch.tensor([plain_ids])).logits[0, -3:]
        expected = base(torch.tensor([told_ids])).logits[0, -3:].log_softmax(-1)
    assert (found - expected).abs().max() < 1e-4
    with pytest.raises(InputError, match="they begin otherwise"):
        MixedPolicy.from_config(prompted, {"led": 1.0})(torch.tensor([[7, 8, 9]]))


def logits(model: torch.nn.Module, given: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(given).logits.log_softmax(-1)


def test_a_folder_that_cannot_be_written_completely_stays_as_it_was(
    prompted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MixedPolicy.from_config(prompted, {"plain": 0.6, "told": 0.4}).eval()
    folder = tmp_path / "saved"
    model.save_pretrained(folder)

    def contents() -> dict[Path, bytes]:
        return {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    before = contents()
    monkeypatch.setattr(type(model.tokenizer), "save_pretrained", full)
    model.mixture = model.mix({"plain": 1.0})
    for place in (folder, tmp_path / "new"):
        with pytest.raises(InputError, match="No space left on device; give another folder"):
            model.save_pretrained(place)
    assert contents() == before and [path.name for path in tmp_path.iterdir()] == ["saved"]


def test_a_saved_folder_is_the_mixture(tiny: Tiny, prompted: Path, tmp_path: Path) -> None:
    model = MixedPolicy.from_config(prompted, {"plain": 0.6, "told": 0.4}, gain=1.4).eval()
    given = torch.tensor([ids(model, PROMPTS[1])])
    model.generation_config.max_new_tokens = 7
    model.save_pretrained(tmp_path / "saved")
    assert not list((tmp_path / "saved").rglob("model*.safetensors")), "the base is there by reference"
    again = MixedPolicy.from_pretrained(tmp_path / "saved")
    assert torch.equal(logits(again, given), logits(model, given))
    assert again.mixture.weights == {name: weight for name, weight in model.mixture.weights.items() if weight}
    assert again.mixture.kind == model.mixture.kind and again.generation_config.max_new_tokens == 7
    # transformers finds it too, and does not take it for the base.
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    assert isinstance(loaded, MixedPolicy)
    base = AutoModelForCausalLM.from_pretrained(tiny.base)
    assert torch.equal(logits(loaded, given), logits(model, given))
    assert not torch.allclose(logits(loaded, given), logits(base, given), atol=1e-2)
    # So does the engine, and the tokenizer is there.
    expected = Engine.from_config(prompted), Engine.from_config(tmp_path / "saved" / "mixdesk.yaml")
    with expected[0] as before, expected[1] as after:
        assert after.policy_set.names == ["plain", "told"]
        for name, values in after.token_log_probs("mix", "the fox").items():
            assert values == pytest.approx(before.token_log_probs("mix", "the fox")[name], abs=1e-5)
    assert AutoTokenizer.from_pretrained(tmp_path / "saved").get_vocab() == model.tokenizer.get_vocab()


def test_a_folder_of_something_else_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"config.json is not that of a mixture"):
        MixedPolicy.from_pretrained(tiny.base)
    with pytest.raises(InputError, match="not a folder here"):
        MixedPolicy.from_pretrained("nobody/has-this-mixture", local_files_only=True)


def test_what_is_pushed_needs_a_base_that_others_have(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = MixedPolicy.from_config(tiny.config, WEIGHTS)
    with pytest.raises(InputError, match=r"push_to_hub: the base is .* push it first"):
        model.push_to_hub("somebody/mixture")
    # With a base that has a hub id, what would be uploaded is the folder.
    pushed: dict[str, bytes] = {}

    def create_commit(*_: object, operations: list, **__: object) -> None:
        for operation in operations:
            pushed[operation.path_in_repo] = Path(operation.path_or_fileobj).read_bytes()

    def create_repo(*_: object, **__: object) -> SimpleNamespace:
        return SimpleNamespace(repo_id="somebody/mixture")

    for call in (create_commit, create_repo):  # older transformers call functions, newer ones methods
        monkeypatch.setattr(HfApi, call.__name__, call)
        monkeypatch.setattr(transformers.utils.hub, call.__name__, call, raising=False)
    monkeypatch.setattr(transformers.utils.hub, "create_and_tag_model_card", lambda *_, **__: ModelCard("card"))
    model.policy_set.base = model.policy_set.config.base = "somebody/base"
    model.push_to_hub("somebody/mixture")
    assert json.loads(pushed["config.json"])["mixture"]["weights"] == pytest.approx(WEIGHTS)
    assert yaml.safe_load(pushed["mixdesk.yaml"])["base"] == "somebody/base"
    for name, folder in tiny.adapters.items():
        own = (folder / "adapter_model.safetensors").read_bytes()
        assert pushed[f"adapter-{name}/adapter_model.safetensors"] == own


def test_copies_devices_dtypes_and_pipelines(tiny: Tiny) -> None:
    model = MixedPolicy.from_config(tiny.config, WEIGHTS).eval()
    given = torch.tensor([ids(model, PROMPTS[1])])
    before = logits(model, given)
    twin = copy.deepcopy(model)
    twin.mixture = twin.mix({"plain": 1})
    assert torch.equal(logits(model, given), before)
    alone = logits(MixedPolicy.from_config(tiny.config, {"plain": 1}).eval(), given)
    assert torch.allclose(logits(twin, given), alone, atol=1e-5)
    assert model.to("cpu") is model and model.float() is model
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half.network.dtype == torch.bfloat16
    assert 0 < (logits(half, given) - before).abs().max() < 1
    with pytest.raises(InputError, match="to: found cpu and float64"):
        model.double()
    answer = transformers.pipeline("text-generation", model=model, tokenizer=model.tokenizer)(
        [{"role": "user", "content": PROMPTS[1]}], max_new_tokens=6, do_sample=False,
        clean_up_tokenization_spaces=False,
    )  # fmt: skip
    with Engine.from_config(tiny.config) as engine:
        expected = engine.generate(PROMPTS[1], WEIGHTS, max_new_tokens=6, temperature=0.0).text
    assert answer[0]["generated_text"][-1]["content"] == expected


@pytest.mark.parametrize("kind", ["experts", "images"])
def test_bases_with_experts_and_bases_that_see(tiny: Tiny, tmp_path: Path, kind: str) -> None:
    """A mixture of experts, and a model that also takes images, against their own forward pass."""
    torch.manual_seed(0)
    text = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 8, "initializer_range": 0.2,
        "bos_token_id": None, "eos_token_id": 4, "pad_token_id": 0, "max_position_embeddings": 256,
    }  # fmt: skip
    if kind == "experts":
        moe = transformers.Qwen3MoeConfig(**text, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=24)
        base = transformers.Qwen3MoeForCausalLM(moe)
    else:
        vision = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 2,
                  "image_size": 28, "patch_size": 14}  # fmt: skip
        seeing = transformers.Gemma3Config(
            text_config={**text, "sliding_window": 64}, vision_config=vision, mm_tokens_per_image=4,
            image_token_index=7, boi_token_index=8, eoi_token_index=9,
        )  # fmt: skip
        base = transformers.Gemma3ForConditionalGeneration(seeing)
    base.eval().save_pretrained(tmp_path / "base")
    AutoTokenizer.from_pretrained(tiny.base).save_pretrained(tmp_path / "base")
    policies = [{"name": "told", "objective": "told", "system_prompt": "mix the policies"}]
    config = tiny.write(f"{kind}.yaml", base=str(tmp_path / "base"), dtype="float32", policies=policies, rewards=[])
    model = MixedPolicy.from_config(config, {"told": 0.5, "reference": 0.5}).eval()
    given = batch(model)
    made = model.generate(**given, max_new_tokens=6, do_sample=False)
    rows = [model.policy_set.prompt_ids(policy, PROMPTS[1]) for policy in model.policies]
    said = made[1, given["input_ids"].shape[1] :].tolist()
    said = said[: said.index(4) + 1] if 4 in said else said
    with torch.no_grad():
        alone = [
            base(input_ids=torch.tensor([row + said])).logits[0, len(row) - 1 : -1].log_softmax(-1) for row in rows
        ]
    assert (sum(alone) / 2).argmax(-1).tolist()[: len(said)] == said
