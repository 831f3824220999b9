"""The training stages of the bundled policies: tokenizer, base, reward models, preference-tuned adapters.

Each stage reads the files of the stages before it, so that build.py can be interrupted between any two of them.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import random
import shutil
from pathlib import Path

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
)
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer

from data.demo import corpus
from data.demo.reader import Reader
from engine.sampling import Sampling

OBJECTIVES = ("helpful", "harmless", "humorous", "concise")
SEED = 7
BLOCK = 256
MAX_RESPONSE = 160
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# How hard each policy is pushed: (learning rate, epochs). Harmless responses differ least from others and need most;
# pushed as hard, concise ones fall silent, and the words of humorous ones break.
PUSH = {"helpful": (2.5e-4, 2), "harmless": (3.5e-4, 2), "humorous": (2.5e-4, 1.5), "concise": (2e-4, 1.5)}
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def train_tokenizer(topics: list[corpus.Topic], out: Path) -> None:
    """Train a byte-level BPE tokenizer on all authored text, so that common words are one token."""
    shared = corpus.load_shared()
    texts = [" ".join(sentences) for kind, sentences in shared.items() if kind != "system"]
    texts += [text for prompts in shared["system"].values() for text in prompts]
    for topic in topics:
        texts += [*topic.questions, *(frame.format(task=topic.task) for frame in corpus.FRAMES)]
        sentences = [*topic.steps, *topic.cautions, *topic.jokes, *topic.brief, *topic.declines]
        texts += sentences + [" " + sentence for sentence in sentences]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=3072,
            special_tokens=["<|pad|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<|pad|>", eos_token="<|end|>", padding_side="left", model_max_length=512
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)


def chat_ids(tokenizer, messages: list[dict[str, str]], response: str | None = None) -> list[int]:
    """Return the token ids of a conversation, followed by the generation prompt or by the response."""
    if response is not None:
        messages = [*messages, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=response is None, return_dict=False)


def arguments(out: Path, **settings) -> dict:
    """Return the settings that all trainers share, updated with `settings`.

    bfloat16 autocast is about twice as fast as float32 on CPUs with AMX, and half as fast on those without.
    """
    return {
        "output_dir": str(out),
        "use_cpu": not torch.cuda.is_available(),
        "bf16": torch.cuda.is_available() or torch.cpu._is_amx_tile_supported(),
        "seed": SEED,
        "data_seed": SEED,
        "report_to": "none",
        "lr_scheduler_type": "cosine",
        "logging_steps": 50,
        "dataloader_num_workers": 0,
        **settings,
    }


def grouped(*sets: list[dict]) -> dict:
    """Return trainer settings that batch pairs of similar length, which saves a third of the time.

    Adds the column `length`, by which the trainer groups, to every pair.
    """
    for pair in itertools.chain(*sets):
        pair["length"] = max(len(pair[side][0]["content"].split()) for side in ("chosen", "rejected"))
    return {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}


def checkpoint(out: Path) -> str | None:
    """Return the newest checkpoint of an interrupted run, or None."""
    found = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return str(found[-1]) if found else None


def pack(documents: list[list[int]], pad: int) -> list[dict[str, list[int]]]:
    """Pack whole documents into blocks of `BLOCK` tokens, each padded with `pad`.

    Positions restart at every document, by which transformers masks documents from each other. Without this the model
    learns to rely on the previous document and answers a first question badly.
    """
    blocks: list[list[list[int]]] = []
    open_blocks: list[tuple[int, int]] = []  # (room, block), the oldest first
    for document in documents:
        for i, (room, number) in enumerate(open_blocks):
            if len(document) <= room:
                blocks[number].append(document)
                open_blocks[i] = (room - len(document), number)
                break
        else:
            blocks.append([document])
            open_blocks = [*open_blocks[-31:], (BLOCK - len(document), len(blocks) - 1)]
    rows = []
    for block in blocks:
        ids = [token for document in block for token in document]
        positions = [i for document in block for i in range(len(document))]
        left = BLOCK - len(ids)
        rows.append(
            {
                "input_ids": ids + [pad] * left,
                "position_ids": positions + list(range(left)),
                "labels": ids + [-100] * left,
            }
        )
    return rows


def train_base(train: list[tuple[str, corpus.Topic]], out: Path, work: Path, tokens: int) -> None:
    """Train a small Llama from scratch on composed conversations in all styles."""
    tokenizer = AutoTokenizer.from_pretrained(out)
    documents: list[list[int]] = []
    with tqdm(total=tokens, desc="composing the training text", unit="token") as bar:
        for messages, _, response in corpus.documents(train, count=tokens, seed=SEED, vary=True):
            documents.append(chat_ids(tokenizer, messages, response.text))
            bar.update(len(documents[-1]))
            if bar.n >= tokens:
                break
    rows = pack(documents, tokenizer.pad_token_id)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=704,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(SEED)
    trainer = Trainer(
        model=LlamaForCausalLM(config),
        args=TrainingArguments(
            **arguments(
                work,
                per_device_train_batch_size=16,
                num_train_epochs=1,
                learning_rate=3e-3,
                warmup_steps=100,
                weight_decay=0.05,
                adam_beta2=0.98,
                save_steps=400,
                save_total_limit=1,
                # All blocks have one shape. Compiled, a step takes two thirds of the time.
                torch_compile=shutil.which("g++") is not None,
                dataloader_drop_last=True,
            )
        ),
        train_dataset=Dataset.from_list(rows),
        data_collator=default_data_collator,
    )
    trainer.train(resume_from_checkpoint=checkpoint(work))
    trainer.model.to(torch.bfloat16).save_pretrained(out)


@torch.inference_mode()
def perplexity(held_out: list[tuple[str, corpus.Topic]], base: Path) -> dict[str, float]:
    """Return the perplexity on held-out phrasings, of the composed responses' tokens and of the whole text."""
    tokenizer = AutoTokenizer.from_pretrained(base)
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    totals = {"response": [0.0, 0], "text": [0.0, 0]}
    for messages, _, response in corpus.documents(held_out, count=len(held_out) * 2, seed=SEED + 1):
        prompt, whole = chat_ids(tokenizer, messages), chat_ids(tokenizer, messages, response.text)
        ids = torch.tensor([whole])
        log_probs = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        losses = -log_probs.gather(1, ids[0, 1:, None])[:, 0]
        for name, part in (("response", losses[len(prompt) - 1 :]), ("text", losses)):
            totals[name][0] += part.sum().item()
            totals[name][1] += len(part)
    return {name: math.exp(total / count) for name, (total, count) in totals.items()}


def save_adapter(model: PeftModel, out: Path) -> None:
    """Save the adapter alone in bfloat16, with a relative path to its base, so that the folder can be moved."""
    model.save_pretrained(out)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(out / "adapter_model.safetensors").items()}
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"])  # a set: its order would change with every run
    base = Path(config["base_model_name_or_path"])
    config["base_model_name_or_path"] = os.path.relpath(base, out)
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (out / "README.md").unlink(missing_ok=True)


def train_reward(
    objective: str,
    train: list[tuple[str, corpus.Topic]],
    held_out: list[tuple[str, corpus.Topic]],
    base: Path,
    out: Path,
    work: Path,
    pairs: int,
) -> dict[str, float]:
    """Train a Bradley-Terry reward model, the base with a LoRA and a score head; return its held-out accuracy."""
    torch.manual_seed(SEED)
    train_pairs = list(corpus.preference_pairs(train, objective, pairs, seed=SEED))
    held_out_pairs = list(corpus.preference_pairs(held_out, objective, 500, seed=SEED + 1))
    model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1, dtype=torch.float32)
    trainer = RewardTrainer(
        model=model,
        args=RewardConfig(
            **arguments(
                work,
                per_device_train_batch_size=16,
                num_train_epochs=1,
                learning_rate=1e-3,
                warmup_steps=10,
                max_length=384,
                pad_to_multiple_of=32,
                center_rewards_coefficient=0.01,
                save_strategy="no",
                gradient_checkpointing=False,
                **grouped(train_pairs, held_out_pairs),
            )
        ),
        train_dataset=Dataset.from_list(train_pairs),
        eval_dataset=Dataset.from_list(held_out_pairs),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(
            task_type="SEQ_CLS", r=16, lora_alpha=32, target_modules=LORA_TARGETS, modules_to_save=["score"]
        ),
    )
    trainer.train()
    accuracy = trainer.evaluate()["eval_accuracy"]
    save_adapter(trainer.model, out)
    return {"held_out_accuracy": accuracy, "pairs": pairs}


def sample_reference(engine, questions: list[str], per_prompt: int, out: Path, chunk: int = 256) -> None:
    """Sample `per_prompt` responses of the reference to each question, with every reward.

    Appends to `out`, and resumes after the rows that it has.
    """
    wanted = [(question, seed) for question in questions for seed in range(per_prompt)]
    done = sum(1 for _ in out.open()) if out.exists() else 0
    with out.open("a") as file:
        for start in tqdm(range(done, len(wanted), chunk), desc="sampling the reference", unit="chunk"):
            part = wanted[start : start + chunk]
            completions = engine.generate_batch(
                [question for question, _ in part],
                mixture=engine.mixture({"reference": 1}),
                sampling=Sampling(max_new_tokens=MAX_RESPONSE, temperature=1.0),
                seeds=[SEED * 1000 + seed for _, seed in part],
            )
            for (question, _), completion in zip(part, completions, strict=True):
                row = {"prompt": question, "response": completion.text, "rewards": completion.rewards}
                file.write(json.dumps(row) + "\n")


def reward_statistics(samples: Path) -> dict[str, dict[str, float]]:
    """Return {objective: {mean, std}} of the reference's rewards."""
    rows = [json.loads(line) for line in samples.open()]
    statistics = {}
    for objective in OBJECTIVES:
        rewards = torch.tensor([row["rewards"][objective] for row in rows])
        statistics[objective] = {"mean": round(rewards.mean().item(), 4), "std": round(rewards.std().item(), 4)}
    return statistics


def policy_pairs(samples: Path, objective: str, per_prompt: int) -> list[dict]:
    """Return pairs of each prompt's best sample by the objective's reward and each of its `per_prompt` worst.

    A response is chosen only if all its sentences are authored, because the policy learns to imitate it.
    """
    reader = Reader(corpus.load_topics())
    by_prompt: dict[str, list[dict]] = {}
    for line in samples.open():
        row = json.loads(line)
        by_prompt.setdefault(row["prompt"], []).append(row)
    pairs = []
    for prompt, rows in by_prompt.items():
        rows.sort(key=lambda row: row["rewards"][objective], reverse=True)
        whole = [row for row in rows if reader.is_whole(row["response"]) and reader.is_answer(row["response"])]
        for best, worst in itertools.product(whole[:1], rows[-per_prompt:]):
            if best["rewards"][objective] > worst["rewards"][objective] and worst["response"]:
                pairs.append(
                    {
                        "prompt": [{"role": "user", "content": prompt}],
                        "chosen": [{"role": "assistant", "content": best["response"]}],
                        "rejected": [{"role": "assistant", "content": worst["response"]}],
                    }
                )
    return random.Random(SEED).sample(pairs, len(pairs))


def train_policy(objective: str, samples: Path, base: Path, out: Path, work: Path) -> dict[str, float]:
    """Train a LoRA adapter by DPO, with the likelihood of the chosen response as a second loss term.

    The second term keeps the policy's language intact.
    """
    torch.manual_seed(SEED)
    pairs = policy_pairs(samples, objective, per_prompt=2)
    learning_rate, epochs = PUSH[objective]
    trainer = DPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32),
        args=DPOConfig(
            **arguments(
                work,
                per_device_train_batch_size=16,
                num_train_epochs=epochs,
                learning_rate=learning_rate,
                warmup_steps=10,
                max_length=384,
                pad_to_multiple_of=32,
                beta=0.1,
                loss_type=["sigmoid", "sft"],
                loss_weights=[1.0, 1.0],
                save_strategy="no",
                gradient_checkpointing=False,
                **grouped(pairs),
            )
        ),
        train_dataset=Dataset.from_list(pairs),
        processing_class=AutoTokenizer.from_pretrained(base),
        peft_config=LoraConfig(task_type="CAUSAL_LM", r=16, lora_alpha=32, target_modules=LORA_TARGETS),
    )
    result = trainer.train()
    save_adapter(trainer.model, out)
    return {"pairs": len(pairs), "loss": result.training_loss}
