"""Answers to /v1/completions: prompts as raw text or token ids, with the prompts' own log-probs if they are echoed."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from engine.api.api_error import unavailable
from engine.api.calls import Call, engine_errors, finish_name, usage_of
from engine.api.chat import RANDOM_SEEDS
from engine.api.completion_fields import CompletionFields, RawPrompt
from engine.api.event_stream import Chunk
from engine.api.logprobs import LegacyLogprobs
from engine.api.token_texts import TokenTexts
from engine.inference.completion import Completion, Token
from engine.messages import TokenPrompt

Scored = tuple[int, float | None, list[tuple[int, float]], bool]  # the arguments of `LegacyLogprobs.add`


@dataclass
class Echo:
    """A prompt as it is echoed: its text, and its tokens if their log-probs are wanted."""

    text: str = ""
    tokens: list[Scored] = field(default_factory=list)


class CompletionAnswer:
    """The answer to one request, whole or as a stream's chunks."""

    def __init__(self, fields: CompletionFields, call: Call, texts: TokenTexts) -> None:
        self.fields, self.call, self.texts = fields, call, texts
        self.head: dict[str, Any] = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": fields.model,
            "system_fingerprint": None,
        }
        self.n = fields.n or 1
        self.echoes: list[Echo] = []
        self.logprobs: list[LegacyLogprobs | None] = [
            None if fields.logprobs is None else LegacyLogprobs(texts, fields.logprobs)
            for _ in range(len(fields.prompt) * self.n)
        ]
        self._drawn = 0

    def start(self) -> None:
        """Queue the responses, and score the prompts. Raises ApiError."""
        fields, seed = self.fields, secrets.randbelow(RANDOM_SEEDS)
        sampling = fields.sampling(max(fields.max_tokens, 1))
        prompts = []
        for prompt in fields.prompt:
            with engine_errors():
                ids = self.call.engine.tokenize(prompt) if isinstance(prompt, str) else prompt
            found, _ = self.call.read(TokenPrompt(tuple(ids)), fields.max_tokens)
            prompts.append((prompt, found))
        if fields.max_tokens:
            for _, ids in prompts:
                seeds = fields.seeds(self.n, seed)
                self.call.submit(TokenPrompt(tuple(ids)), sampling, seeds, fields.logprobs or 0)
        for prompt, ids in prompts:
            if self.call.gone:
                raise unavailable("The client has gone away.")
            self.echoes.append(self._echo(prompt, ids) if fields.echo else Echo())

    def _echo(self, prompt: RawPrompt, ids: list[int]) -> Echo:
        engine, count = self.call.engine, self.fields.logprobs
        with engine_errors():
            text = prompt if isinstance(prompt, str) else engine.detokenize(prompt)
            if count is None:
                return Echo(text)
            bare = engine.tokenize(text, add_special_tokens=False) if isinstance(prompt, str) else list(prompt)
            scored = engine.mixture_log_probs(ids, self.call.mixture, count)
        # What the tokenizer adds before a text is no part of it.
        added = next((i for i in range(len(ids)) if ids[i : i + len(bare)] == bare), 0)
        return Echo(
            text,
            [
                (token, one.log_prob, one.top, added <= i < added + len(bare))
                for i, (token, one) in enumerate(zip(ids, scored, strict=True))
            ],
        )

    def whole(self) -> dict[str, Any]:
        """Wait for the responses and return the answer. Raises ApiError."""
        wanted = self.fields.logprobs is not None
        found = self.call.collect(with_tokens=wanted)
        choices = []
        for index in range(len(self.logprobs)):
            self._add_echo(index)
            text, reason = self.echoes[index // self.n].text, "length"
            if found:
                completion, tokens = found[index]
                text, reason = text + completion.text, finish_name(completion)
                for token in tokens:
                    self._add(index, token)
            choices.append(self._choice(index, text, reason))
        drawn = sum(len(completion.tokens) for completion, _ in found)
        return {**self.head, "choices": choices, "usage": usage_of(self.call.prompt_tokens, drawn)}

    def _add_echo(self, index: int) -> None:
        logprobs, echo = self.logprobs[index], self.echoes[index // self.n]
        if logprobs is None:
            return
        for scored in echo.tokens:
            logprobs.add(*scored)

    def _add(self, index: int, token: Token) -> None:
        logprobs = self.logprobs[index]
        if logprobs is not None:
            logprobs.add_drawn(token)

    def _choice(self, index: int, text: str, reason: str | None) -> dict[str, Any]:
        logprobs = self.logprobs[index]
        taken = None if logprobs is None else logprobs.taken()
        return {"index": index, "text": text, "logprobs": taken, "finish_reason": reason}

    def begin(self) -> Iterator[Chunk]:
        """Yield the chunks of the prompts if they are echoed."""
        for index in range(len(self.logprobs)):
            if self.fields.echo:
                self._add_echo(index)
                reason = None if self.call.requests else "length"
                yield self._chunk(self._choice(index, self.echoes[index // self.n].text, reason))

    def token(self, index: int, token: Token) -> Iterator[Chunk]:
        """Yield the chunk of a token."""
        self._drawn += 1
        if token.text or self.logprobs[index]:
            self._add(index, token)
            yield self._chunk(self._choice(index, token.text, None))

    def finish(self, index: int, completion: Completion) -> Iterator[Chunk]:
        """Yield the last chunk of a choice."""
        choice = {"index": index, "text": "", "logprobs": None, "finish_reason": finish_name(completion)}
        yield self._chunk(choice)

    def end(self) -> Iterator[Chunk]:
        """Yield the chunk with the numbers of tokens if it is wanted."""
        if self.fields.include_usage:
            yield {**self.head, "choices": [], "usage": usage_of(self.call.prompt_tokens, self._drawn)}

    def _chunk(self, choice: dict[str, Any]) -> Chunk:
        chunk = {**self.head, "choices": [choice]}
        return {**chunk, "usage": None} if self.fields.include_usage else chunk
