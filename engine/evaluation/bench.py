"""Benchmark the cost of a mixture against one policy, all ways to decode interleaved (`python -m engine bench`)."""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from tqdm import tqdm
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine.bank.estimate import Bank
from engine.config import Config, PolicySettings
from engine.errors import InputError
from engine.inference.batch import MIXING, Batch
from engine.inference.batch import SAMPLING as DRAWING
from engine.inference.sampler import Sampler, draw, warp
from engine.inference.sequence import Sequence
from engine.inference.thread_tuning import TRIALS
from engine.models.block_attention import ATTENTION
from engine.models.cache_argument import CACHE
from engine.models.int8_linear import INT8
from engine.models.loading import multiplies_bfloat16, pick_device
from engine.models.policy_set import PolicySet
from engine.rules.geometric import geometric
from engine.rules.mixture import make_mixture
from engine.sampling import Sampling

# hidden, intermediate, layers, heads, key and value heads, vocabulary; as SmolLM2's, the largest as Qwen2.5's.
SHAPES = {
    "tiny": (256, 704, 5, 4, 4, 3072),
    "135m": (576, 1536, 30, 9, 3, 49152),
    "360m": (960, 2560, 32, 15, 5, 49152),
    "500m": (896, 4864, 24, 14, 2, 151936),
}
RANK = 16
TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# In a profile: packed, of 8 bits, plain, and the up-projections.
LINEARS = ("mkldnn::_linear_pointwise", "onednn::qlinear_pointwise", "aten::linear", "aten::addmm_")
WARM_UP = 3 * TRIALS + 1  # steps, after which the number of threads is found
PROFILED = 6  # steps, the first of which warms up
SAMPLING = Sampling(max_new_tokens=512, temperature=1.0)  # as on the page


def make_model(folder: Path, shape: str, dtype: torch.dtype) -> None:
    """Write a Llama of a shape with random weights, and a tokenizer of the same size, whose text is meaningless."""
    hidden, intermediate, layers, heads, kv_heads, vocab = SHAPES[shape]
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        max_position_embeddings=8192,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    LlamaForCausalLM(config).to(dtype).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({f"t{i}": i for i in range(vocab)}, unk_token="t0"))
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(folder)


def make_adapters(base: Path, folder: Path, count: int, dtype: torch.dtype) -> Any:
    """Write `count` random LoRAs to folders p0, p1, ... in a folder, and return peft's model with all of them."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(task_type="CAUSAL_LM", r=RANK, lora_alpha=2 * RANK, target_modules=TARGETS)
    model = get_peft_model(LlamaForCausalLM.from_pretrained(base, dtype=dtype), settings, adapter_name="p0")
    for i in range(1, count):
        model.add_adapter(f"p{i}", settings)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            parameter.data = torch.randn_like(parameter) * 0.02
    model.save_pretrained(str(folder))
    return model.to(dtype).eval()


class Bench:
    """The ways to decode, each a generator that yields after every step."""

    def __init__(self, folder: Path, shape: str, k: int, prompt_length: int, name: str, device: str) -> None:
        # transformers' own models have no int8; they are in what is fastest here.
        dtype = getattr(torch, name) if name != INT8 else torch.bfloat16 if multiplies_bfloat16() else torch.float32
        self.k, self.prompt_length = k, prompt_length
        self.vocab = SHAPES[shape][-1]
        self.device = pick_device(device)
        make_model(folder / "base", shape, dtype)
        self.peft = make_adapters(folder / "base", folder, k, dtype).to(self.device)
        self.single_model = LlamaForCausalLM.from_pretrained(folder / "base", dtype=dtype).eval().to(self.device)
        policies = [PolicySettings(name=f"p{i}", objective=f"o{i}", adapter=str(folder / f"p{i}")) for i in range(k)]
        self.policy_set = PolicySet(
            Config(name="bench", base=str(folder / "base"), dtype=name, device=device, policies=policies)  # type: ignore[arg-type]
        )
        self.mixture = make_mixture(None, self.policy_set.names)

    def prompt(self, seed: int = 0) -> list[int]:
        """Return a random prompt's token ids."""
        generator = torch.Generator().manual_seed(seed)
        return torch.randint(0, self.vocab, (self.prompt_length,), generator=generator).tolist()

    def _decode(self, forward: Callable[[Tensor], Tensor]) -> Iterator[None]:
        """Decode with a function from ids [1, positions] to next-token log-probs [1, V]."""
        sampler = Sampler(SAMPLING, 0)
        ids = torch.tensor([self.prompt()], device=self.device)
        while True:
            token = draw(warp(forward(ids), sampler.sampling, [[]]), [sampler])
            ids = torch.tensor([token], device=self.device)
            yield

    def single(self) -> Iterator[None]:
        """Decode one merged model with transformers."""
        cache = DynamicCache()

        def forward(ids: Tensor) -> Tensor:
            logits = self.single_model(input_ids=ids, use_cache=True, logits_to_keep=1, **{CACHE: cache}).logits
            return logits[:, -1].float().log_softmax(-1)

        return self._decode(forward)

    def naive(self) -> Iterator[None]:
        """Decode the mixture with K forward passes through peft, switching adapters between them."""
        caches = [DynamicCache() for _ in range(self.k)]

        def forward(ids: Tensor) -> Tensor:
            found = []
            for i, cache in enumerate(caches):
                self.peft.set_adapter(f"p{i}")
                logits = self.peft(input_ids=ids, use_cache=True, logits_to_keep=1, **{CACHE: cache}).logits
                found.append(logits[:, -1].float().log_softmax(-1))
            return geometric(torch.stack(found), torch.full((1, self.k), 1 / self.k))

        return self._decode(forward)

    def peft_mixed(self) -> Iterator[None]:
        """Decode the mixture with one forward pass through peft's mixed batch, one row for each adapter."""
        cache = DynamicCache()

        def forward(ids: Tensor) -> Tensor:
            logits = self.peft(
                input_ids=ids.expand(self.k, -1),
                attention_mask=torch.ones(self.k, cache.get_seq_length() + ids.shape[1], dtype=torch.long),
                adapter_names=[f"p{i}" for i in range(self.k)],
                **{CACHE: cache},
                use_cache=True,
                logits_to_keep=1,
            ).logits
            log_probs = logits[:, -1].float().log_softmax(-1).unsqueeze(1)
            return geometric(log_probs, torch.full((1, self.k), 1 / self.k))

        return self._decode(forward)

    def sequences(self, count: int, same_prompt: bool = False) -> list[Sequence]:
        """Return sequences for the running batch, each with all policies, with different prompts or the same."""
        policies = self.policy_set.policies[1:]
        made = []
        for i in range(count):
            ids = {policy.name: self.prompt(0 if same_prompt else i) for policy in policies}
            made.append(Sequence("", self.mixture, SAMPLING, Sampler(SAMPLING, i), policies, ids))
        return made

    def mixed(self, sequences: int = 1, same_prompt: bool = False) -> Iterator[None]:
        """Decode the mixture in the running batch: every (sequence, policy) pair is a row of one forward pass."""
        batch = Batch(self.policy_set, max_rows=10**6)
        batch.admit(self.sequences(sequences, same_prompt))
        while True:
            batch.step()
            yield

    def first_token(self, way: str) -> Callable[[], None]:
        """Return a function that reads a prompt and draws one token."""

        def run() -> None:
            next({"single": self.single, "naive": self.naive, "mixed": self.mixed}[way]())

        return run


@torch.inference_mode()
def interleaved(ways: dict[str, Callable[[], Any]], rounds: int, say: str, warm_up: int) -> dict[str, float]:
    """Return the median milliseconds of each function. They are run in turn, so that other load affects all alike."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in tqdm(range(warm_up + rounds), desc=say, unit="round"):
        for name, run in ways.items():
            start = time.perf_counter()
            run()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            if number >= warm_up:
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def step_shares(step: Callable[[], Any], steps: int = PROFILED - 1) -> dict[str, float]:
    """Return the shares of a step's time by kind of work, from a profile, which lengthens the rest most."""
    step()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        whole = (time.perf_counter() - start) * 1e6
    spent = {event.key: event.cpu_time_total for event in profiled.key_averages()}
    kinds = {"linears": LINEARS, "attention": (ATTENTION,), "mixing": (MIXING,), "sampling": (DRAWING,)}
    shares = {kind: sum(spent.get(name, 0.0) for name in names) / whole for kind, names in kinds.items()}
    return {name: round(share, 3) for name, share in {**shares, "rest": 1 - sum(shares.values())}.items()}


def bench(
    shape: str = "135m",
    k: int = 4,
    prompt_length: int = 64,
    steps: int = 30,
    dtype: str = "bfloat16",
    device: str = "auto",
    ways: tuple[str, ...] = ("naive", "peft_mixed", "panels4", "people"),
) -> dict[str, Any]:
    """Return the figures of the budget table: milliseconds per step, and ratios of medians of one interleaved run.

    Args:
        shape: a key of SHAPES.
        k: the number of policies.
        prompt_length: in tokens.
        steps: the number of steps of each way to decode, after the warm-up.
        dtype: "float32", "bfloat16", "float16", or "int8", which the models of transformers do not have: they are in
            bfloat16 where the CPU multiplies it, otherwise in float32.
        device: "auto", "cpu", "cuda" or "cuda:1".
        ways: the ways to measure besides one merged model and one mixture.

    Raises:
        InputError: an argument is out of range.
    """
    if shape not in SHAPES:
        raise InputError(f"shape: found '{shape}'; give one of {', '.join(SHAPES)}")
    if not 1 <= k <= 64:
        raise InputError(f"k: found {k}; give a number of policies from 1 to 64")
    if steps < 1 or not 1 <= prompt_length <= 4096:
        raise InputError("steps must be 1 or more, and prompt_length from 1 to 4096")
    if steps > (most := SAMPLING.max_new_tokens - WARM_UP - PROFILED):
        raise InputError(
            f"steps: found {steps}; give up to {most}, since a response has {SAMPLING.max_new_tokens} tokens"
        )
    with tempfile.TemporaryDirectory() as folder:
        made = Bench(Path(folder), shape, k, prompt_length, dtype, device)
    people = (1, 2, 4, 8) if "people" in ways else ()
    with torch.inference_mode():
        decoders = {
            "single": made.single(),
            "mixed": made.mixed(),
            **({"naive": made.naive()} if "naive" in ways else {}),
            **({"peft_mixed": made.peft_mixed()} if "peft_mixed" in ways else {}),
            **({"panels4": made.mixed(4, same_prompt=True)} if "panels4" in ways else {}),
            **{f"people{n}": made.mixed(n) for n in people},
        }
        ms = interleaved({name: decoder.__next__ for name, decoder in decoders.items()}, steps, "steps", WARM_UP)
        first = {name: made.first_token(name) for name in ("single", "mixed", *(["naive"] if "naive" in ways else []))}
        first_ms = interleaved(first, max(5, steps // 6), "first tokens", 2)
        shares = step_shares(decoders["panels4"].__next__) if "panels4" in ways else None
    result = {
        "model": shape,
        "k": k,
        "prompt_length": prompt_length,
        "steps": steps,
        "dtype": dtype,
        "device": str(made.device),
        "threads": torch.get_num_threads(),
        **{f"{name}_ms": ms.get(name) for name in ("single", "naive", "peft_mixed", "mixed", "panels4")},
        "ratio_mixed_single": ratio(ms["mixed"], ms["single"]),
        "speedup_vs_naive": ratio(ms.get("naive"), ms["mixed"]),
        "ratio_panels4_single": ratio(ms.get("panels4"), ms["single"]),
        "concurrency": {str(n): round(1000 * n / ms[f"people{n}"], 1) for n in people},
        "panels4_shares": shares,
        "first_token_ms": first_ms,
        "peak_rss_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }
    return {key: value for key, value in result.items() if value is not None}


def bench_bank(prompts: int = 100, responses: int = 64, policies: int = 4, moves: int = 500) -> dict[str, Any]:
    """Return the time to estimate expected rewards after a fader has moved, and for 1,000 weights, in milliseconds."""
    rng = np.random.default_rng(0)
    shape = prompts, responses
    bank = Bank(
        policies=[f"p{i}" for i in range(policies)],
        objectives=[f"o{i}" for i in range(policies)],
        prompts=[f"prompt {i}" for i in range(prompts)],
        log_ratios=rng.normal(size=(*shape, policies)),
        log_base=rng.normal(size=shape),
        rewards=rng.normal(size=(*shape, policies)),
        policy_tokens=0,
    )
    times = []
    for weights in rng.dirichlet(np.ones(policies), size=moves):
        start = time.perf_counter()
        bank.estimate(weights)
        times.append((time.perf_counter() - start) * 1000)
    start = time.perf_counter()
    bank.estimate(rng.dirichlet(np.ones(policies), size=1000))
    thousand = (time.perf_counter() - start) * 1000
    p50, p95 = (round(float(np.quantile(times, q)), 3) for q in (0.5, 0.95))
    size = {"prompts": prompts, "responses": responses, "policies": policies, "moves": moves}
    return {**size, "p50_ms": p50, "p95_ms": p95, "thousand_ms": round(thousand, 1)}


def ratio(ours: float | None, theirs: float | None) -> float | None:
    """Return the ratio of two times to three decimals; None if either is None."""
    return None if ours is None or theirs is None else round(ours / theirs, 3)
