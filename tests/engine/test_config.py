"""Every mistake in a configuration is one line that names the file, the key, what was found and what was expected."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForCausalLM

from engine import Engine, InputError
from engine.config import DEMO, Config, load_config
from tests.conftest import Tiny, make_adapter, make_base, make_tokenizer

POLICY = {"name": "plain", "objective": "plain", "adapter": "plain"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"base": "nowhere/at/all"}, "base: found 'nowhere/at/all', expected a path that exists"),
        ({"dtype": "float8"}, "dtype: found 'float8', expected"),
        ({"device": "tpu"}, "device: found 'tpu', expected"),
        ({"policies": []}, "policies: found '[]', expected"),
        ({"policies": [POLICY, POLICY]}, "found twice: plain"),
        ({"policies": [{"name": "a", "objective": "a"}]}, "policies[0]"),
        ({"policies": [{**POLICY, "adaptor": "x"}]}, "policies[0].adaptor: found an unknown key"),
        ({"policies": [{**POLICY, "adapter": "./gone"}]}, "policies[0].adapter: found './gone'"),
        ({"policies": [{**POLICY, "model": "base"}]}, "either 'adapter' or 'model'"),
        ({"policies": [{**POLICY, "name": "reference"}]}, "policies[0].name: found 'reference'"),
        ({"rewards": [{"objective": "x", "kind": "oracle"}]}, "rewards[0].kind: found 'oracle', expected"),
        ({"rewards": [{"objective": "x", "kind": "classifier"}]}, "rewards[0].model: found nothing, expected this key"),
        ({"rewards": [{"objective": "x", "kind": "implicit"}]}, "expected a policy with objective 'x'"),
        (
            {"rewards": [{"objective": "plain", "kind": "implicit", "label": "x"}]},
            "rewards[0].label: found an unknown key",
        ),
        (
            {"rewards": [{"objective": "x", "kind": "classifier", "model": "a/b", "template": "{prompt}"}]},
            "{response} in",
        ),
        ({"prompts": "gone.jsonl"}, "prompts: found 'gone.jsonl', expected a file"),
    ],
)
def test_mistakes_are_named(tiny: Tiny, changes: dict, said: str) -> None:
    file = tiny.write("mistake.yaml", **changes)
    with pytest.raises(InputError) as caught:
        load_config(file)
    assert said in str(caught.value)
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("file", sorted(DEMO.parent.glob("*.yaml")), ids=lambda file: file.stem)
def test_ready_configurations(file: Path, tiny: Tiny) -> None:
    """They are read as they are; with the tiny model in its hub id's place the prompted ones answer."""
    config = load_config(file)
    assert config.name == file.stem
    if file == DEMO:
        return
    first_lines = file.read_text().splitlines()[:6]
    assert any(line.startswith("# Memory: ") for line in first_lines)
    if config.reference:
        assert all(Path(path).is_dir() for policy in config.policies for path in policy.adapters), "adapters that ship"
        return  # adapters of a real base do not fit the tiny one
    changed = {**yaml.safe_load(file.read_text()), "base": str(tiny.base), "prompts": None}
    changed["rewards"] = [reward for reward in changed["rewards"] if reward["kind"] != "classifier"]
    copy = tiny.folder / file.name
    copy.write_text(yaml.safe_dump(changed))
    with Engine.from_config(copy) as engine:
        completion = engine.generate("mix", max_new_tokens=3)
    assert len(completion.rewards) == len(changed["rewards"])
    assert set(completion.mixture.weights) == {policy.name for policy in config.policies}


@pytest.mark.parametrize(
    ("text", "said"),
    [("name: [1,", "malformed YAML"), ("- just\n- a list", "found list, expected a mapping"), ("", "found NoneType")],
)
def test_files_that_are_no_configuration(tmp_path, text: str, said: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=said):
        load_config(file)


def test_missing_and_binary_files(tmp_path) -> None:
    with pytest.raises(InputError, match="no such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x80")
    with pytest.raises(InputError, match=r"malformed YAML|not a text file"):
        load_config(tmp_path / "binary.yaml")


def test_hub_ids_are_kept(tiny: Tiny) -> None:
    config = load_config(tiny.write("hub.yaml", policies=[{**POLICY, "adapter": "someone/some-adapter"}]))
    assert config.policies[0].adapter == "someone/some-adapter"
    assert config.base == str(tiny.base)


def test_adapter_for_another_base(tiny: Tiny) -> None:
    make_base(tiny.folder / "wide", hidden=64)
    make_adapter(tiny.folder / "wide", tiny.folder / "misfit", 1, r=2, target_modules=["q_proj"])
    file = tiny.write("misfit.yaml", policies=[{**POLICY, "adapter": "misfit"}])
    with pytest.raises(InputError, match=r"is for another base: .*q_proj is 32 to 32, the adapter's 64 to 64"):
        Engine.from_config(file)


def test_another_tokenizer(tiny: Tiny) -> None:
    make_base(tiny.folder / "foreign", vocab_size=280)
    file = tiny.write("foreign.yaml", policies=[{"name": "f", "objective": "f", "model": "foreign"}], rewards=[])
    with pytest.raises(InputError, match=r"policy .f.: .* has another tokenizer than the base"):
        Engine.from_config(file)
    shutil.copytree(tiny.adapters["plain"], tiny.folder / "retokenized")
    make_tokenizer(tiny.folder / "retokenized", vocab_size=280)
    with pytest.raises(InputError, match="another tokenizer"):
        Engine.from_config(tiny.write("retokenized.yaml", policies=[{**POLICY, "adapter": "retokenized"}]))


def test_broken_adapter_folders(tiny: Tiny) -> None:
    broken = tiny.folder / "broken"
    shutil.copytree(tiny.adapters["plain"], broken)
    file = tiny.write("broken.yaml", policies=[{**POLICY, "adapter": "broken"}])
    (broken / "adapter_model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(InputError, match=r"adapter_model\.safetensors is unreadable"):
        Engine.from_config(file)
    (broken / "adapter_config.json").write_text("{")
    with pytest.raises(InputError, match=r"adapter_config\.json is not JSON"):
        Engine.from_config(file)
    (broken / "adapter_config.json").unlink()
    with pytest.raises(InputError, match=r"adapter_config\.json is missing"):
        Engine.from_config(file)


def test_a_base_that_is_no_model(tiny: Tiny) -> None:
    (tiny.folder / "empty").mkdir()
    with pytest.raises(InputError, match="cannot load a tokenizer"):
        Engine.from_config(tiny.write("empty.yaml", base="empty"))


def test_settings_that_change_what_an_adapter_means(tiny: Tiny) -> None:
    """alpha_pattern changes what the weights mean: it must not be folded as if it were not there."""
    patterned = tiny.folder / "patterned"
    shutil.copytree(tiny.adapters["plain"], patterned)
    config = json.loads((patterned / "adapter_config.json").read_text())
    config["alpha_pattern"] = {"q_proj": 64}
    (patterned / "adapter_config.json").write_text(json.dumps(config))
    with Engine.from_config(tiny.write("patterned.yaml", policies=[{**POLICY, "adapter": "patterned"}])) as engine:
        policy = engine.policy_set.policies[1]
        ids = [*engine.policy_set.prompt_ids(policy, "mix"), 5, 6, 7]
        found = engine.token_log_probs("mix", [5, 6, 7])[policy.name]
    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny.base), patterned).eval()
    with torch.no_grad():
        log_probs = model(input_ids=torch.tensor([ids])).logits[0].log_softmax(-1)
    expected = [log_probs[len(ids) - 4 + i, token].item() for i, token in enumerate((5, 6, 7))]
    assert found == pytest.approx(expected, abs=1e-4)


def test_the_written_configuration_round_trips(tiny: Tiny) -> None:
    config = load_config(tiny.config)
    assert [p.name for p in config.policies] == ["plain", "stabilized", "narrow"]
    assert yaml.safe_load(tiny.config.read_text())["base"] == "base"


def test_a_configuration_as_values_has_the_keys_of_every_reward() -> None:
    config = load_config(DEMO)
    values = config.model_dump()
    assert values["rewards"][0]["model"] == config.rewards[0].model_dump()["model"]
    assert Config.model_validate(values).rewards == config.rewards
