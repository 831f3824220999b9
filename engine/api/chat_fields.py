"""The fields of a request to /v1/chat/completions, and its messages as the engine reads them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from engine.api.api_error import bad_request
from engine.api.fields import CHAT_NEUTRAL, DrawingFields, shown
from engine.errors import InputError
from engine.messages import SYSTEM_ROLE, Message, check_messages

MOST_TOP = 20
SYSTEM = ("system", "developer")
# {key of a message: values that change nothing}: what clients send back of an answer, or add to each message.
NEUTRAL_KEYS: dict[str, tuple[Any, ...]] = {
    "annotations": ([],),
    "audio": (),
    "function_call": (),
    "name": (),
    "refusal": (),
    "tool_calls": ([],),
    "type": ("text", "message"),
}


def read_messages_field(value: Any) -> Any:
    """Return messages with the keys role and content, the content as a text. Raises ValueError."""
    if not isinstance(value, list) or not value:
        raise ValueError("expected a list of messages, one at least")
    return [read_message(message, f"[{i}]") for i, message in enumerate(value)]


def read_message(message: Any, where: str) -> Message:
    """Return one message. Raises ValueError."""
    if not isinstance(message, dict) or not isinstance(message.get("role"), str):
        raise ValueError(f'{where}: expected {{"role": ..., "content": text}}')
    role = message["role"]
    if role not in ("user", "assistant", *SYSTEM):
        raise ValueError(f"{where}.role: found {shown(role)}; these policies read system, user and assistant")
    for key, given in message.items():
        if key in ("role", "content"):
            continue
        if given is not None and given not in NEUTRAL_KEYS.get(key, ()):
            raise ValueError(
                f"{where}.{key[:40]}: found {shown(given)}, which these policies do not read; leave it out"
            )
    return {"role": SYSTEM_ROLE if role in SYSTEM else role, "content": read_content(message.get("content"), where)}


def read_content(content: Any, where: str) -> str:
    """Return a message's content as a text. Raises ValueError."""
    if isinstance(content, str):
        return content
    expected = f"{where}.content: expected a text, or a list of parts of the type text"
    if not isinstance(content, list):
        raise ValueError(expected)
    texts = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise ValueError(expected)
        texts.append(part["text"])
    return "".join(texts)


class ChatFields(DrawingFields):
    """A request to /v1/chat/completions."""

    messages: Annotated[list[Message], BeforeValidator(read_messages_field)]
    max_tokens: int | None = Field(default=None, ge=1)
    max_completion_tokens: int | None = Field(default=None, ge=1)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(default=None, ge=0, le=MOST_TOP)

    @classmethod
    def neutral(cls) -> Mapping[str, tuple[Any, ...]]:
        """Return {field that is not read: its values that may be given}."""
        return CHAT_NEUTRAL

    def check(self) -> None:
        """Raise ApiError if fields contradict each other, or the roles of the messages do not take turns."""
        super().check()
        if self.top_logprobs is not None and not self.logprobs:
            raise bad_request("top_logprobs: it needs logprobs: true; give both, or leave it out")
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise bad_request("max_tokens: it is not max_completion_tokens; give one of the two")
        self.prompt()

    @property
    def most_tokens(self) -> int | None:
        """The largest number of tokens of a choice; None for as many as there is room for."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    def prompt(self) -> str | list[Message]:
        """Return the messages as the engine reads them. Raises ApiError."""
        try:
            return check_messages(self.messages, system=True)
        except InputError as error:
            raise bad_request(str(error).replace("prompt", "messages", 1)) from None
