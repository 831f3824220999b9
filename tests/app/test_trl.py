"""The export as TRL's trainers take it: two steps of each, on the token ids that the chat template gives."""

from __future__ import annotations

from typing import Any

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from app.storage.export import export_pairs
from app.storage.export_study import export_study
from tests.app.storage.studies import write_study
from tests.conftest import Tiny

trl = pytest.importorskip("trl")

TURNS = [
    {"role": "user", "content": "mix the policies"},
    {"role": "assistant", "content": "the lazy dog"},
    {"role": "user", "content": "and move"},
]
PROMPTS: list[Any] = ["mix", "move the faders", TURNS, "the quick brown fox"]


@pytest.fixture
def pairs(store, completion, tmp_path):
    """What is exported of ratings of single questions and of a conversation."""
    from datasets import load_dataset

    for i, prompt in enumerate(PROMPTS):
        left, right = completion(f"good {i}", prompt=prompt), completion(f"bad dog {i}", prompt=prompt)
        store.rate(f"r-{i}", left, right, "left", "anna")
    out = tmp_path / "pairs.jsonl"
    assert export_pairs(store.path, "trl", out)["rows"] == len(PROMPTS)
    return load_dataset("json", data_files=str(out), split="train", cache_dir=str(tmp_path / "cache"))


def settings(folder) -> dict[str, Any]:
    return {
        "output_dir": str(folder),
        "max_steps": 2,
        "per_device_train_batch_size": 2,
        "report_to": "none",
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "save_strategy": "no",
        "disable_tqdm": True,
    }


def in_template(tokenizer, place: int, answer: str) -> tuple[list[int], list[int]]:
    """(prompt, prompt and answer) by hand, in the template of the tiny base."""
    prompt = PROMPTS[place]
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    text = "".join(f"<|{message['role']}|>{message['content']}<|end|>" for message in messages)
    ids = [tokenizer(said, add_special_tokens=False).input_ids for said in
           (f"{text}<|assistant|>", f"{text}<|assistant|>{answer}<|end|>")]  # fmt: skip
    return ids[0], ids[1]


def test_dpo(tiny: Tiny, pairs, tmp_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    trainer = trl.DPOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny.base),
        args=trl.DPOConfig(**settings(tmp_path)),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    for place, row in enumerate(trainer.train_dataset):
        prompt, chosen = in_template(tokenizer, place, f"good {place}")
        _, rejected = in_template(tokenizer, place, f"bad dog {place}")
        print(row["prompt_ids"], row["chosen_ids"], row["rejected_ids"])
        assert row["prompt_ids"] == prompt
        assert row["prompt_ids"] + row["chosen_ids"] == chosen
        assert row["prompt_ids"] + row["rejected_ids"] == rejected
    assert trainer.train().global_step == 2


def test_kto(tiny: Tiny, pairs, tmp_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    trainer = trl.KTOTrainer(
        AutoModelForCausalLM.from_pretrained(tiny.base),
        args=trl.KTOConfig(**settings(tmp_path)),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    rows = {tuple(row["prompt_ids"] + row["completion_ids"]): row["label"] for row in trainer.train_dataset}
    for place in range(len(PROMPTS)):
        assert rows[tuple(in_template(tokenizer, place, f"good {place}")[1])] is True
        assert rows[tuple(in_template(tokenizer, place, f"bad dog {place}")[1])] is False
    assert trainer.train().global_step == 2


@pytest.fixture
def labelled(store, completion, tmp_path):
    """What is exported for KTO of the votes of a study, and of ratings of the desk."""
    from datasets import load_dataset

    study = write_study(store)
    store.rate("r", completion("good 9", prompt="mix"), completion("bad dog 9", prompt="mix"), "left", "anna")
    files = [tmp_path / "study.jsonl", tmp_path / "desk.jsonl"]
    export_study(store.path, study, "kto", files[0])
    assert export_pairs(store.path, "kto", files[1])["rows"] == 2
    return load_dataset("json", data_files=[*map(str, files)], split="train", cache_dir=str(tmp_path / "cache"))


@pytest.mark.parametrize("trainer_of", ["KTO", "BCO"])
def test_unpaired(tiny: Tiny, labelled, tmp_path, trainer_of: str) -> None:
    if trainer_of == "BCO":
        experimental = pytest.importorskip("trl.experimental.bco")
        trainer_class, config = experimental.BCOTrainer, experimental.BCOConfig
    else:
        trainer_class, config = trl.KTOTrainer, trl.KTOConfig
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    trainer = trainer_class(
        AutoModelForCausalLM.from_pretrained(tiny.base),
        args=config(**settings(tmp_path)),
        train_dataset=labelled,
        processing_class=tokenizer,
    )
    # Pair 0 is the first's, 1 the second's, 3 is bad on both sides; the desk's is the left one.
    assert [row["label"] for row in trainer.train_dataset] == [True, False, False, True, False, False, True, False]
    assert trainer.train().global_step == 2


def test_reward_models(tiny: Tiny, pairs, tmp_path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny.base)
    trainer = trl.RewardTrainer(
        AutoModelForSequenceClassification.from_pretrained(tiny.base, num_labels=1),
        args=trl.RewardConfig(**settings(tmp_path)),
        train_dataset=pairs,
        processing_class=tokenizer,
    )
    for place, row in enumerate(trainer.train_dataset):
        assert row["chosen_ids"] == in_template(tokenizer, place, f"good {place}")[1]
        assert row["rejected_ids"] == in_template(tokenizer, place, f"bad dog {place}")[1]
    assert trainer.train().global_step == 2
