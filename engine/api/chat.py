"""Answers to /v1/chat/completions."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from typing import Any

from engine.api.calls import Call, finish_name, usage_of
from engine.api.chat_fields import ChatFields
from engine.api.event_stream import Chunk
from engine.api.logprobs import ChatLogprobs
from engine.api.token_texts import TokenTexts
from engine.inference.completion import Completion, Token

RANDOM_SEEDS = 2**31


class ChatAnswer:
    """The answer to one request, whole or as a stream's chunks."""

    def __init__(self, fields: ChatFields, call: Call, texts: TokenTexts) -> None:
        self.fields, self.call = fields, call
        self.logprobs = ChatLogprobs(texts, fields.top_logprobs or 0) if fields.logprobs else None
        self.head: dict[str, Any] = {
            "id": f"chatcmpl-{secrets.token_hex(12)}",
            "created": int(time.time()),
            "model": fields.model,
            "system_fingerprint": None,
        }
        self._drawn = 0

    def start(self) -> None:
        """Queue the responses. Raises ApiError."""
        fields, prompt = self.fields, self.fields.prompt()
        fields.sampling(1)  # a mistake in it is told before one in the prompt
        _, most = self.call.read(prompt, fields.most_tokens)
        seeds = fields.seeds(fields.n or 1, secrets.randbelow(RANDOM_SEEDS))
        self.call.submit(prompt, fields.sampling(most), seeds, self.logprobs.count if self.logprobs else 0)

    def whole(self) -> dict[str, Any]:
        """Wait for the responses and return the answer. Raises ApiError."""
        found = self.call.collect(with_tokens=self.logprobs is not None)
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": completion.text, "refusal": None},
                "logprobs": self._listed(tokens),
                "finish_reason": finish_name(completion),
            }
            for index, (completion, tokens) in enumerate(found)
        ]
        drawn = sum(len(completion.tokens) for completion, _ in found)
        usage = usage_of(self.call.prompt_tokens, drawn)
        return {**self.head, "object": "chat.completion", "choices": choices, "usage": usage}

    def _listed(self, tokens: list[Token]) -> dict[str, Any] | None:
        if self.logprobs is None:
            return None
        return {"content": [self.logprobs.entry(token) for token in tokens], "refusal": None}

    def begin(self) -> Iterator[Chunk]:
        """Yield the chunks before the first token, which say whose words they are."""
        for index in range(len(self.call.requests)):
            yield self._chunk(index, {"role": "assistant", "content": "", "refusal": None})

    def token(self, index: int, token: Token) -> Iterator[Chunk]:
        """Yield the chunk of a token."""
        self._drawn += 1
        if token.text or self.logprobs:
            yield self._chunk(index, {"content": token.text}, self._listed([token]))

    def finish(self, index: int, completion: Completion) -> Iterator[Chunk]:
        """Yield the last chunk of a choice."""
        yield self._chunk(index, {}, None, finish_name(completion))

    def end(self) -> Iterator[Chunk]:
        """Yield the chunk with the numbers of tokens if it is wanted."""
        if self.fields.include_usage:
            usage = usage_of(self.call.prompt_tokens, self._drawn)
            yield {**self.head, "object": "chat.completion.chunk", "choices": [], "usage": usage}

    def _chunk(
        self, index: int, delta: dict[str, Any], logprobs: dict[str, Any] | None = None, reason: str | None = None
    ) -> Chunk:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": reason}
        chunk = {**self.head, "object": "chat.completion.chunk", "choices": [choice]}
        return {**chunk, "usage": None} if self.fields.include_usage else chunk
