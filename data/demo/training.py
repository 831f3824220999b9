"""The training stages of the bundled policies: tokenizer, base, reward models, preference-tuned adapters.

Each stage reads what the stages before it wrote, so that build.py can stop and go on between any two of them.
"""

from __future__ import annotations

import json
import math
import os
import random
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from tqdm import tqdm
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Trainer,
    TrainingArguments,
    default_data_collator,
    get_cosine_schedule_with_warmup,
)

from data.demo import corpus, soft_labels
from data.demo.reader import Reader
from engine import Engine
from engine.sampling import Sampling

OBJECTIVES = ("helpful", "harmless", "humorous", "concise")
SEED = 7
BLOCK = 256
MAX_RESPONSE = 160
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# A reward model learns that i is preferred to j with probability σ(SHARPNESS (a_i - a_j)), a being attributes in
# standard deviations.
SHARPNESS = 2.0
GROUP = 8  # responses compared with each other, to one prompt
REWARD_STEPS, REWARD_RATE = 360, 1e-3
# One KL strength for all policies. Each is trained until log π/π_ref has this slope on its standardised reward, within
# the prompts kept for that; with soft labels the slope of the optimum is 1 / BETA.
BETA = 0.35
SLOPE = 2.0
POLICY_RATE, POLICY_EPOCHS, CHECK_EVERY = 5e-4, 8, 15
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


def save_adapter(model: PeftModel, out: Path, head: int | None = None) -> None:
    """The adapter alone, 16 bit, with a relative path to its base, so that the folder can be moved and shipped.

    head: of a classifier's outputs the one to keep.
    """
    model.save_pretrained(out)
    weights = {name: tensor.to(torch.bfloat16) for name, tensor in load_file(out / "adapter_model.safetensors").items()}
    if head is not None:
        weights = {
            name: tensor[head : head + 1].clone() if "score" in name else tensor for name, tensor in weights.items()
        }
    save_file(weights, out / "adapter_model.safetensors", metadata={"format": "pt"})
    config = json.loads((out / "adapter_config.json").read_text())
    config["target_modules"] = sorted(config["target_modules"])  # a set: its order would change with every run
    base = Path(config["base_model_name_or_path"])
    config["base_model_name_or_path"] = os.path.relpath(base, out)
    (out / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    (out / "README.md").unlink(missing_ok=True)


def lora(model: PreTrainedModel, task: str) -> PeftModel:
    """Return the model with a LoRA of rank 16 on all its linear layers, and for a classifier with a new score head."""
    settings = LoraConfig(
        task_type=task,
        r=16,
        lora_alpha=32,
        target_modules=LORA_TARGETS,
        modules_to_save=["score"] if task == "SEQ_CLS" else None,
    )
    return get_peft_model(model, settings)


def optimiser(model: PeftModel, rate: float) -> torch.optim.AdamW:
    return torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=rate, weight_decay=0.0)


def judged(
    asked: list[tuple[str, corpus.Topic]], samples: dict[str, list[dict]], seed: int
) -> list[tuple[list[tuple[str, str]], list[list[float]]]]:
    """Return groups of (question, response)s with the attributes of each, by turns composed ones and samples."""
    rng, shared, foreign = random.Random(seed), corpus.load_shared(), corpus.load_foreign()
    topics, reader = corpus.load_topics(), Reader(corpus.load_topics())
    topic_of, groups = dict(asked), []
    for question, rows in samples.items():
        topic = topic_of[question]
        made = corpus.candidates(question, topic, topics, foreign, GROUP, shared, rng)
        own = [(question, reader.parse(row["response"], topic)) for row in rows]
        texts = [[(to, response.text) for to, response in made], [(question, row["response"]) for row in rows]]
        for group, responses in zip(texts, (made, own), strict=True):
            known = [corpus.attributes(response) for _, response in responses]
            groups.append((group, [[scores[objective] for objective in OBJECTIVES] for scores in known]))
    return groups


def train_rewards(asked: list[tuple[str, corpus.Topic]], samples: Path, base: Path, out: Path) -> dict[str, Any]:
    """Train the reward models: the base with one LoRA and a score head for each objective.

    They are saved apart, each with the LoRA and its own head. Returns figures on the held-out prompts, by objective.
    """
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(base)
    pad = tokenizer.pad_token_id
    model = lora(
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=len(OBJECTIVES), dtype=torch.float32),
        "SEQ_CLS",
    )
    groups = judged(asked, read_samples(samples, "training"), SEED)
    optimizer = optimiser(model, REWARD_RATE)
    schedule = get_cosine_schedule_with_warmup(optimizer, 10, REWARD_STEPS)
    batches = soft_labels.epochs(len(groups), 4, random.Random(SEED))

    def read(batch: list[tuple[list[tuple[str, str]], list[list[float]]]]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return scores and attributes, [groups, objectives, GROUP]."""
        rows = [
            chat_ids(tokenizer, [{"role": "user", "content": question}], response)
            for group, _ in batch
            for question, response in group
        ]
        found = soft_labels.scores(model, rows, pad).view(len(batch), GROUP, -1)
        return found.transpose(1, 2), torch.tensor([known for _, known in batch]).transpose(1, 2)

    with tqdm(range(REWARD_STEPS), desc="reward models", unit="step") as bar:
        for _ in bar:
            found, wanted = read([groups[i] for i in next(batches)])
            # The pairs say nothing of the level, which is kept near zero.
            loss = soft_labels.soft_preference_loss(found, SHARPNESS * wanted) + 0.001 * found.square().mean()
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            bar.set_postfix(loss=f"{loss.item():.3f}")
    for number, objective in enumerate(OBJECTIVES):
        save_adapter(model, out / objective, head=number)
    held_out = judged(asked, read_samples(samples, "held-out"), SEED + 1)
    figures: dict[str, Any] = {objective: {} for objective in OBJECTIVES}
    with torch.inference_mode():
        for kind, part in (("composed", held_out[::2]), ("sampled", held_out[1::2])):
            found, wanted = (torch.cat(values) for values in zip(*map(read, chunks(part, 8)), strict=True))
            for number, objective in enumerate(OBJECTIVES):
                one, known = found[:, number], wanted[:, number]
                figures[objective][kind] = {
                    "accuracy": accuracy(one, known),
                    "correlation": soft_labels.slope(one, known)[1],
                }
    return {"held_out": figures, "steps": REWARD_STEPS, "groups": len(groups)}


def chunks(values: list, size: int) -> list[list]:
    return [values[start : start + size] for start in range(0, len(values), size)]


def accuracy(found: torch.Tensor, wanted: torch.Tensor) -> float:
    """Return the share of pairs in the right order, of those whose attributes differ by half a standard deviation."""
    i, j = torch.triu_indices(found.shape[-1], found.shape[-1], offset=1)
    apart = (wanted[:, i] - wanted[:, j]).abs() >= 0.5
    right = ((found[:, i] - found[:, j]) > 0) == ((wanted[:, i] - wanted[:, j]) > 0)
    return right[apart].float().mean().item()


def sample_reference(
    engine: Engine, questions: list[tuple[str, str]], per_prompt: int, out: Path, chunk: int = 256
) -> None:
    """Write `per_prompt` samples of the reference to each (split, question), resuming where the file ends.

    Sampled at temperature 1 from the whole distribution: the policies are learned relative to it.
    """
    wanted = [(split, question, seed) for split, question in questions for seed in range(per_prompt)]
    done = sum(1 for _ in out.open()) if out.exists() else 0
    with out.open("a") as file:
        for start in tqdm(range(done, len(wanted), chunk), desc="sampling the reference", unit="chunk"):
            part = wanted[start : start + chunk]
            completions = engine.generate_batch(
                [question for _, question, _ in part],
                mixture=engine.mixture({"reference": 1}),
                sampling=Sampling(max_new_tokens=MAX_RESPONSE, temperature=1.0),
                seeds=[SEED * 1_000_000 + start + i for i in range(len(part))],
            )
            for (split, question, _), completion in zip(part, completions, strict=True):
                row = {"split": split, "prompt": question, "response": completion.text, "tokens": completion.tokens}
                file.write(json.dumps(row) + "\n")


def read_samples(samples: Path, split: str) -> dict[str, list[dict]]:
    """Return {prompt: its samples} of a split."""
    found: dict[str, list[dict]] = {}
    for line in samples.open():
        row = json.loads(line)
        if row["split"] == split:
            found.setdefault(row["prompt"], []).append(row)
    return found


def score_samples(engine: Engine, samples: Path, out: Path) -> dict[str, dict[str, float]]:
    """Write the samples with the rewards of all. Return {objective: {mean, std}} over the training samples."""
    rows = [json.loads(line) for line in samples.open()]
    for part in tqdm(chunks(rows, 256), desc="scoring the samples", unit="chunk"):
        rewards = engine.rewards([(row["prompt"], row["response"], row["tokens"]) for row in part])
        for row, given in zip(part, rewards, strict=True):
            row["rewards"] = given
    out.write_text("".join(json.dumps(row) + "\n" for row in rows))
    statistics = {}
    for objective in OBJECTIVES:
        given = torch.tensor([row["rewards"][objective] for row in rows if row["split"] == "training"])
        statistics[objective] = {"mean": round(given.mean().item(), 4), "std": round(given.std().item(), 4)}
    return statistics


@dataclass(frozen=True)
class Split:
    """Samples of the reference to some prompts: token ids [prompts * GROUP], rewards and log π_ref [prompts, GROUP]."""

    prompts: list[list[int]]
    responses: list[list[int]]
    rewards: dict[str, torch.Tensor]
    reference: torch.Tensor

    def log_ratios(self, model: PeftModel, pad: int, numbers: list[int] | None = None) -> torch.Tensor:
        """Return log π - log π_ref of the chosen prompts' samples, [prompts, GROUP]."""
        numbers = list(range(len(self.reference))) if numbers is None else numbers
        rows = [number * GROUP + i for number in numbers for i in range(GROUP)]
        found = soft_labels.log_probs(model, [self.prompts[i] for i in rows], [self.responses[i] for i in rows], pad)
        return found.view(len(numbers), GROUP) - self.reference[numbers]


def load_split(
    samples: Path, split: str, statistics: dict[str, dict[str, float]], model: PreTrainedModel, tokenizer: Any
) -> Split:
    """Return a split's samples with standardised rewards and their log-probability under the base."""
    rows = [row for group in read_samples(samples, split).values() for row in group]
    prompts = [chat_ids(tokenizer, [{"role": "user", "content": row["prompt"]}]) for row in rows]
    responses = [row["tokens"] for row in rows]
    rewards = {
        name: torch.tensor([(row["rewards"][name] - known["mean"]) / known["std"] for row in rows]).view(-1, GROUP)
        for name, known in statistics.items()
    }
    with torch.inference_mode():
        reference = torch.cat(
            [
                soft_labels.log_probs(model, *part, tokenizer.pad_token_id)
                for part in zip(chunks(prompts, 240), chunks(responses, 240), strict=True)
            ]
        )
    return Split(prompts, responses, rewards, reference.view(-1, GROUP).clone())


def train_policy(
    objective: str, samples: Path, statistics: dict[str, dict[str, float]], base: Path, out: Path
) -> dict[str, Any]:
    """Train a LoRA adapter towards π_ref exp(r / BETA) and stop it at SLOPE. Return its figures on held-out prompts."""
    torch.manual_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(base)
    pad = tokenizer.pad_token_id
    reference = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32).eval()
    splits = {
        split: load_split(samples, split, statistics, reference, tokenizer)
        for split in ("training", "stopping", "held-out")
    }
    model = lora(reference, "CAUSAL_LM")
    optimizer = optimiser(model, POLICY_RATE)
    training, stopping = splits["training"], splits["stopping"]
    batches = soft_labels.epochs(len(training.reference), 8, random.Random(SEED))
    most = POLICY_EPOCHS * len(training.reference) // 8
    course = []
    with tqdm(total=most, desc=f"policy for {objective}", unit="step") as bar:
        for step in range(1, most + 1):
            for group in optimizer.param_groups:
                group["lr"] = POLICY_RATE * min(1.0, step / 10)
            numbers = next(batches)
            log_ratios = training.log_ratios(model, pad, numbers)
            loss = soft_labels.soft_preference_loss(BETA * log_ratios, training.rewards[objective][numbers])
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.update()
            if step % CHECK_EVERY == 0:
                course.append([step, *slope_of(model, stopping, objective, pad)])
                bar.set_postfix(loss=f"{loss.item():.3f}", slope=f"{course[-1][1]:.2f}", r=f"{course[-1][2]:.2f}")
                if course[-1][1] >= SLOPE:
                    break
    save_adapter(model, out)
    found, correlation = slope_of(model, splits["held-out"], objective, pad)
    return {"slope": found, "correlation": correlation, "steps": course[-1][0], "course": course}


@torch.inference_mode()
def slope_of(model: PeftModel, split: Split, objective: str, pad: int) -> tuple[float, float]:
    return soft_labels.slope(split.log_ratios(model, pad), split.rewards[objective])
