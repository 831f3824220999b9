"""The training stages of the bundled policies: tokenizer, base, reward models, preference-tuned adapters.

Each stage reads what the stages before it wrote, so that build.py can stop and go on between any two of them.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
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
from trl import RewardConfig, RewardTrainer

from data.demo import corpus
from data.qwen import training as soft_labels
from data.qwen.layers import Group, prefix_of
from data.qwen.training import load, reference_log_probs, save_adapter, slope
from engine import Engine
from engine.sampling import Sampling

# Prompts with their samples, the samples' standardised rewards, and their log-probabilities under the reference.
Split = tuple[list[Group], list[Tensor], list[Tensor]]

OBJECTIVES = ("helpful", "harmless", "humorous", "concise")
SEED = 7
BLOCK = 256
MAX_RESPONSE = 160
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SAMPLES_PER_PROMPT = 8
# One KL strength for all policies, and one slope of log(pi_k / pi_ref) on the standardised reward at which each stops.
BETA = 0.25
SLOPE = 1.5
RANK = 16
RATE = 1e-3
EPOCHS = 6
BATCH_TOKENS = 3000  # padded tokens of a step, about four prompts
CHECK_EVERY = 10
LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def train_tokenizer(topics: list[corpus.Topic], out: Path) -> None:
    """A byte-level BPE tokenizer over everything authored, so that common words are one token."""
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
    """Token ids of a conversation, ready to answer, or answered."""
    if response is not None:
        messages = [*messages, {"role": "assistant", "content": response}]
    return tokenizer.apply_chat_template(messages, add_generation_prompt=response is None, return_dict=False)


def arguments(out: Path, **settings) -> dict:
    """What all trainers here have in common.

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
    """Trainer settings under which pairs of like length share a batch, which saves a third of the time.

    Adds to every pair the column that the trainer groups by.
    """
    for pair in itertools.chain(*sets):
        pair["length"] = max(len(pair[side][0]["content"].split()) for side in ("chosen", "rejected"))
    return {"train_sampling_strategy": "group_by_length", "remove_unused_columns": False}


def checkpoint(out: Path) -> str | None:
    """The newest checkpoint to go on from, if the run was stopped on its way."""
    found = sorted(out.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    return str(found[-1]) if found else None


def pack(documents: list[list[int]], pad: int) -> list[dict[str, list[int]]]:
    """Whole documents put together into blocks of BLOCK tokens, the rest of each filled with `pad`.

    Positions start again at every document, by which transformers keeps documents from seeing each other: without that
    a model leans on the document before, and answers a first question badly.
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
    """A small Llama trained from nothing on composed conversations in all styles."""
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
    """Perplexity of composed responses to held-out phrasings (response tokens only), and of the whole text."""
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


def train_reward(
    objective: str,
    train: list[tuple[str, corpus.Topic]],
    held_out: list[tuple[str, corpus.Topic]],
    base: Path,
    out: Path,
    work: Path,
    pairs: int,
) -> dict[str, float]:
    """A Bradley-Terry reward model: the base with a LoRA and a score head. Returns its held-out accuracy."""
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
            task_type="SEQ_CLS", r=RANK, lora_alpha=2 * RANK, target_modules=LORA_TARGETS, modules_to_save=["score"]
        ),
    )
    trainer.train()
    accuracy = trainer.evaluate()["eval_accuracy"]
    save_adapter(trainer.model, out, os.path.relpath(base, out))
    return {"held_out_accuracy": accuracy, "pairs": pairs}


@dataclass(frozen=True)
class Asked:
    """A prompt whose answers are sampled, what they are for, and its number, which seeds them."""

    number: int
    split: str
    prompt: str


def sample_reference(engine: Engine, asked: list[Asked], per_prompt: int, out: Path, chunk: int = 256) -> None:
    """Append `per_prompt` samples of the reference to each prompt to `out`, resuming where the file ends.

    They are sampled at temperature 1 from the whole distribution, since the policies are learned relative to it.
    """
    wanted = [(row, row.number * per_prompt + i) for row in asked for i in range(per_prompt)]
    done = sum(1 for _ in out.open()) if out.exists() else 0
    with out.open("a") as file:
        for start in tqdm(range(done, len(wanted), chunk), desc="sampling the reference", unit="chunk"):
            part = wanted[start : start + chunk]
            completions = engine.generate_batch(
                [row.prompt for row, _ in part],
                mixture=engine.mixture({"reference": 1}),
                sampling=Sampling(max_new_tokens=MAX_RESPONSE, temperature=1.0),
                seeds=[SEED * 1_000_000 + number for _, number in part],
            )
            for (row, _), completion in zip(part, completions, strict=True):
                kept = {"response": completion.text, "tokens": completion.tokens}
                file.write(json.dumps({"split": row.split, "prompt": row.prompt, **kept}) + "\n")


def read_rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.open()]


def score_samples(engine: Engine, samples: Path, out: Path, chunk: int = 64) -> dict[str, dict[str, float]]:
    """Append the rewards of all samples to `out`, resuming where the file ends.

    Returns:
        {objective: {mean, std}} over the training samples, and `displaced`: the mean reward, in standard deviations,
        that a held-out sample loses when it is scored as the answer to another prompt.
    """
    rows = read_rows(samples)
    held_out = [row for row in rows if row["split"] == "held-out"][::SAMPLES_PER_PROMPT]
    items = [(row["prompt"], row["response"]) for row in rows]
    items += [(other["prompt"], row["response"]) for row, other in itertools.pairwise(held_out)]
    order = sorted(range(len(items)), key=lambda i: len(items[i][1]))  # of like length together: little is padding
    done = sum(1 for _ in out.open()) if out.exists() else 0
    with out.open("a") as file:
        for start in tqdm(range(done, len(order), chunk), desc="scoring the samples", unit="chunk"):
            part = order[start : start + chunk]
            for number, rewards in zip(part, engine.rewards([(*items[i], None) for i in part]), strict=True):
                file.write(json.dumps({"number": number, "rewards": rewards}) + "\n")
            file.flush()
    rewards = {row["number"]: row["rewards"] for row in read_rows(out)}
    firsts = [number for number, row in enumerate(rows) if row["split"] == "held-out"][::SAMPLES_PER_PROMPT]
    statistics = {}
    for objective in OBJECTIVES:
        given = torch.tensor([rewards[i][objective] for i, row in enumerate(rows) if row["split"] == "training"])
        right = torch.tensor([rewards[i][objective] for i in firsts[:-1]])
        displaced = torch.tensor([rewards[i][objective] for i in range(len(rows), len(items))])
        statistics[objective] = {
            "mean": round(given.mean().item(), 4),
            "std": round(given.std().item(), 4),
            "displaced": round(((right - displaced).mean() / given.std()).item(), 4),
        }
    return statistics


def splits_of(samples: Path, scores: Path, objective: str, scale: dict[str, float], base: Path) -> dict[str, Split]:
    """Return each split's groups, standardised rewards and log-probabilities under the base."""
    model, tokenizer = load(str(base))
    rows, rewards = read_rows(samples), {row["number"]: row["rewards"][objective] for row in read_rows(scores)}
    splits = {}
    for split in ("training", "stopping", "held-out"):
        numbers = [number for number, row in enumerate(rows) if row["split"] == split]
        groups, standard = [], []
        for start in range(0, len(numbers), SAMPLES_PER_PROMPT):
            part = numbers[start : start + SAMPLES_PER_PROMPT]
            groups.append(Group(prefix_of(tokenizer, rows[part[0]]["prompt"]), [rows[i]["tokens"] for i in part]))
            standard.append(torch.tensor([(rewards[i] - scale["mean"]) / scale["std"] for i in part]))
        splits[split] = (groups, standard, reference_log_probs(model.model, model.lm_head, groups, split=0))
    return splits


def train_policy(
    objective: str, samples: Path, scores: Path, scale: dict[str, float], base: Path, out: Path, work: Path
) -> dict[str, Any]:
    """Tune a LoRA adapter with soft labels until it reaches SLOPE on the stopping prompts.

    Returns:
        Its way there, and slope, correlation and KL from the reference on the held-out prompts.
    """
    work.mkdir(parents=True, exist_ok=True)
    splits = splits_of(samples, scores, objective, scale, base)
    way = soft_labels.train_policy(
        str(base),
        os.path.relpath(base, out),
        None,
        splits["training"],
        splits["stopping"],
        out,
        target=SLOPE,
        beta=BETA,
        rate=RATE,
        epochs=EPOCHS,
        every=CHECK_EVERY,
        batch_tokens=BATCH_TOKENS,
        rank=RANK,
        split=0,
        state=work / "state.pt",
    )
    model, _ = load(str(base), [out])
    groups, standard, reference = splits["held-out"]
    found = reference_log_probs(model.model, model.lm_head, groups, split=0)
    ratios = [one - other for one, other in zip(found, reference, strict=True)]
    steep, correlation = slope(ratios, standard)
    # Estimated from the reference's own samples: KL(pi_k || pi_ref) is the mean of w log w for their weights w.
    log_weights = torch.stack(ratios) - torch.stack(ratios).logsumexp(-1, keepdim=True)
    kl = (log_weights.exp() * (log_weights + math.log(SAMPLES_PER_PROMPT))).sum(-1).mean().item()
    return {**way, "held_out": {"slope": steep, "correlation": correlation, "kl": kl}, "prompts": len(groups)}
