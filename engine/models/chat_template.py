"""Conversations as token ids: the chat template, its arguments and date, stop tokens, and control tokens in text."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any

from jinja2 import TemplateError
from transformers import AddedToken, PreTrainedTokenizerBase

from engine.errors import InputError
from engine.messages import BETWEEN, SYSTEM_ROLE, Message, Prompt, joined, messages_of
from engine.models.template_date import frozen

# What models write their thoughts between, before they answer.
THOUGHTS = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|begin_of_thought|>", "<|end_of_thought|>"),
)
MARKS = {word for pair in THOUGHTS for word in pair}
# Around a control token that was typed, while it passes through the template: noncharacters, which no text has.
OPEN, CLOSE = "\ufdd0", "\ufdd1"
PROBE = "probe7391"  # a word that no template writes


class Chat:
    """The format of a model's conversations and ends of turns.

    The text of control tokens (`<|im_end|>`) in messages is tokenized as text, never as control tokens.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        settings: Mapping[str, Any] = MappingProxyType({}),
        stops: Iterable[int] = (),
    ) -> None:
        """Take the format from a tokenizer's chat template.

        Args:
            tokenizer: If it has no chat template, messages are joined by empty lines.
            settings: Further arguments of the template, such as enable_thinking.
            stops: Token ids that end a turn according to the model's generation config.
        """
        self.tokenizer = tokenizer
        self.settings = dict(settings)
        self.template = tokenizer.chat_template
        self.stops = set(stops)

    @property
    def dated(self) -> bool:
        """Whether the template writes the current date."""
        return "strftime_now" in str(self.template or "")

    def now(self) -> str:
        """Return the current date to the second in ISO format, or "" if the template writes none."""
        return datetime.now().isoformat(timespec="seconds") if self.dated else ""

    # ---------------------------------------- prompts and responses

    def prompt_ids(
        self, prompt: Prompt, system_prompt: str | None = None, prefix: str | None = None, date: str = ""
    ) -> list[int]:
        """Return the token ids of a prompt up to where the response begins.

        Args:
            prompt: A text, or the messages of a conversation, of which the first may be a system message.
            system_prompt: The policy's system prompt, if it has one. It comes before the conversation's.
            prefix: A text before the first message.
            date: The date for the template in ISO format; now if empty.

        Raises:
            InputError: The template refuses the conversation.
        """
        messages = [{**message, "content": self.marked(message["content"])} for message in messages_of(prompt)]
        said = messages.pop(0)["content"] if messages[0]["role"] == SYSTEM_ROLE else ""
        system = BETWEEN.join(text for text in (system_prompt, said) if text)
        first, *rest = messages
        content = f"{prefix or ''}{first['content']}"
        spoken = [{"role": "user", "content": content}, *rest]
        # Some templates know no system role; their models expect it before the user's first words.
        told = [{"role": "user", "content": f"{system}{BETWEEN}{content}"}, *rest]
        if self.template is None:
            return self._with_added(joined(told if system else spoken))
        try:
            if said and not self._reads_system:
                return self._ids(self._render(told, date))
            if system:
                try:
                    return self._ids(self._render([{"role": SYSTEM_ROLE, "content": system}, *spoken], date))
                except TemplateError:
                    return self._ids(self._render(told, date))
            return self._ids(self._render(spoken, date))
        except Exception as error:  # a template is a program
            raise InputError(f"prompt: the model's chat template refuses it: {reason(error)}") from None

    @cached_property
    def _reads_system(self) -> bool:
        """Whether the template writes a system message; some leave it out without a word."""
        try:
            return PROBE in self._render([{"role": SYSTEM_ROLE, "content": PROBE}, {"role": "user", "content": "."}])
        except Exception:  # the template takes no such conversation
            return False

    def conversation_ids(self, messages: list[Message], date: str = "") -> list[int]:
        """Return the token ids of a finished conversation in the chat template."""
        marked = [{**message, "content": self.marked(message["content"])} for message in messages]
        return self._ids(self._render(marked, date, generate=False))

    def response_ids(self, response: str) -> list[int]:
        """Return the token ids of a response with the end of its turn."""
        return [*self._ids(self.marked(response)), *self.end]

    @cached_property
    def end(self) -> list[int]:
        """The token ids that the template writes after a response, up to and including the one that ends the turn.

        If the template writes none, the turn ends with the first token of the next one, provided that the model stops
        at it (GLM). Without a template, it is the tokenizer's EOS token.
        """
        eos = self.tokenizer.eos_token_id
        turns = [{"role": role, "content": PROBE} for role in ("user", "assistant", "user")]
        for count in (2, 3) if self.template is not None else ():
            try:
                rendered = self._render(turns[:count], generate=False)
            except Exception:  # the template takes no such conversation
                continue
            before, after = rendered.split(PROBE)[:2], rendered.split(PROBE)[2:]
            if len(before) < 2 or not after:
                continue
            ids = self._after(after[0], self._plain)
            known = set(self.controls.values()) if count == 2 else self.stops
            for place, token in enumerate(ids):
                if token in known:
                    return ids[: place + 1]
        return [] if eos is None else [eos]

    def answer(self, response: str) -> str:
        """Return a response without the reasoning before it; empty if the reasoning is incomplete."""
        for begin, end in THOUGHTS:
            if end not in self._known_marks:
                continue
            _, ended, said = response.rpartition(end)
            if ended:
                return said.lstrip()
            if response.lstrip().startswith(begin) or self._opens(begin):
                return ""
        return response

    def _opens(self, mark: str) -> bool:
        """Return whether the template begins every response with this mark."""
        return self._generation_prompt.rstrip().endswith(mark)

    @cached_property
    def _generation_prompt(self) -> str:
        try:
            return self._render([{"role": "user", "content": PROBE}]).rpartition(PROBE)[2]
        except Exception:  # no template, or one that takes no such prompt
            return ""

    @cached_property
    def _known_marks(self) -> set[str]:
        return {mark for mark in MARKS if mark in self.tokenizer.added_tokens_encoder or mark in str(self.template)}

    # ---------------------------------------- text as it is written

    def settled(self, text: str, tokens: list[int], before: str) -> str:
        """Return the part of a text that further tokens cannot change.

        Args:
            text: The decoded tokens.
            tokens: All tokens so far.
            before: The settled text one token earlier.
        """
        # A run of byte tokens is decoded as a whole, and is no text at all if one of its bytes is wrong.
        if self._byte_tokens:
            last = next((token for token in reversed(tokens) if token not in self._special), None)
            if last in self._byte_tokens:
                return before
        return max(text.rstrip("\ufffd"), before, key=len)

    @cached_property
    def _special(self) -> set[int]:
        return set(self.tokenizer.all_special_ids)

    @cached_property
    def _byte_tokens(self) -> set[int]:
        vocabulary = self.tokenizer.get_vocab()
        return {vocabulary[name] for name in (f"<0x{byte:02X}>" for byte in range(256)) if name in vocabulary}

    # ---------------------------------------- control tokens

    @cached_property
    def controls(self) -> dict[str, int]:
        """{text: id} of the control tokens: special tokens, those in the template, and stop tokens."""
        template = str(self.template or "")
        return {
            token.content: number
            for number, token in self.tokenizer.added_tokens_decoder.items()
            if token.content not in MARKS
            and (
                token.special
                or number in self.stops
                or (token.content in template and bool(re.search(r"\W", token.content)) and not token.content.isspace())
            )
        }

    @cached_property
    def _control(self) -> re.Pattern[str]:
        return any_of(self.controls)

    def marked(self, text: str) -> str:
        """Return a user's text with marks around control tokens, which the template leaves in place."""
        if not self.controls or not self._control.search(text):
            return text
        text = text.replace(OPEN, "").replace(CLOSE, "")
        return self._control.sub(lambda match: f"{OPEN}{match[0]}{CLOSE}", text)

    def _render(self, messages: list[Message], date: str = "", generate: bool = True) -> str:
        settings: dict[str, Any] = {"add_generation_prompt": generate, **self.settings}
        if self.dated:
            today = datetime.fromisoformat(date) if date else datetime.now()
            settings["chat_template"] = frozen(self.tokenizer.get_chat_template(), today)
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False, **settings))

    def _ids(self, text: str) -> list[int]:
        """Return the token ids of a text, with marked control tokens as text, and all others as control tokens."""
        if OPEN not in text:
            return self._plain(text)
        ids: list[int] = []
        plain = 0  # where what is tokenized in the usual way begins
        at = 0  # where the text since the last control token begins
        places = [match.span(1) for match in re.finditer(f"{OPEN}.*?{CLOSE}|({self._control.pattern})", text, re.S)]
        for start, stop in [*(place for place in places if place[0] >= 0), (len(text), len(text))]:
            if OPEN in (part := text[at:start]):
                if at > plain:
                    ids += self._plain(text[plain:at])
                    part = part.lstrip() if self._added(ids[-1]).rstrip else part
                if start < stop and self._added(self.controls[text[start:stop]]).lstrip:
                    part = part.rstrip()
                ids += self._as_text(part.replace(OPEN, "").replace(CLOSE, ""), continues=at > 0)
                plain = start
            at = stop
        if plain < len(text):
            ids += self._plain(text[plain:])
        return ids

    def _added(self, number: int) -> AddedToken:
        return self.tokenizer.added_tokens_decoder[number]

    def plain_ids(self, text: str) -> list[int]:
        """Return the token ids of a text outside of a conversation, with those that the tokenizer adds."""
        return self._with_added(self.marked(text))

    def _with_added(self, text: str) -> list[int]:
        """Return the token ids of a text with those that the tokenizer adds to every text, such as BOS."""
        if OPEN not in text:
            return list(self.tokenizer(text).input_ids)
        whole, bare = (self.tokenizer(PROBE, add_special_tokens=added).input_ids for added in (True, False))
        starts = [i for i in range(len(whole)) if whole[i : i + len(bare)] == bare]
        first = starts[0] if starts else 0
        return [*whole[:first], *self._ids(text), *(whole[first + len(bare) :] if starts else [])]

    def _as_text(self, text: str, continues: bool) -> list[int]:
        """Return the token ids of a text without control tokens. continues: it follows a control token."""
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:
            return list(self.tokenizer(text, add_special_tokens=False, split_special_tokens=True).input_ids)
        ids: list[int] = []
        for place, part in enumerate(self._other.split(text)):
            if place % 2:
                ids.append(self._others[part])
            elif part:
                joins = continues and self._joins
                ids += self._after(part, self._pieces, ("\n", PROBE)) if joins else self._pieces(part)
            continues = continues or bool(part)
        return ids

    @cached_property
    def _others(self) -> dict[str, int]:
        """{text: id} of added tokens that are text, such as Gemma's empty lines."""
        return {
            name: number for name, number in self.tokenizer.added_tokens_encoder.items() if name not in self.controls
        }

    @cached_property
    def _other(self) -> re.Pattern[str]:
        return any_of(self._others)

    def _pieces(self, text: str) -> list[int]:
        """Run the tokenizer's pipeline without its added tokens."""
        backend: Any = self.tokenizer.backend_tokenizer
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        splits = [text]
        if backend.pre_tokenizer is not None:
            splits = [split for split, _ in backend.pre_tokenizer.pre_tokenize_str(text)]
        return [token.id for split in splits for token in backend.model.tokenize(split)]

    @cached_property
    def _joins(self) -> bool:
        """True if text after a control token is tokenized without the space that some tokenizers put before a text."""
        control = next(iter(self.controls), "")
        after = self._plain(f"{control}{PROBE}")[1:]
        return bool(control) and after != self._pieces(PROBE)

    def _plain(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False).input_ids)

    def _after(self, text: str, tokenize: Callable[[str], list[int]], what: Iterable[str] = (PROBE, "\n")) -> list[int]:
        """Return the token ids of a text as they are after the first text in `what` that ends at a token border."""
        for before in what:
            whole, bare = tokenize(before + text), tokenize(before)
            if whole[: len(bare)] == bare:
                return whole[len(bare) :]
        return tokenize(text)


class Chats:
    """The chats of a configuration: the reference's, which policies share, and different ones of single policies."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, settings: Mapping[str, Any], stops: Iterable[int]) -> None:
        """Share the chat of the base's tokenizer. The arguments are those of `Chat`."""
        self.settings, self.stops = settings, set(stops)
        self.shared = Chat(tokenizer, settings, self.stops)
        self.own: dict[str, Chat] = {}  # of policies that read another template
        self.notes: list[str] = []
        self._given: dict[str, PreTrainedTokenizerBase] = {}

    def add(self, name: str, tokenizer: PreTrainedTokenizerBase) -> None:
        """Add the tokenizer that was saved with a policy's adapter or model; the last one of a policy counts."""
        self._given[name] = tokenizer

    def settle(self, reference: str) -> None:
        """Choose the chat of every policy.

        Policies without a template share the reference's, or the base's. If neither has one, and the templates of all
        adapters are equal, that template is shared.

        Args:
            reference: The reference's name.

        Raises:
            InputError: A policy ends its turns differently from the reference.
        """
        shared = self.shared.tokenizer
        given = {name: tokenizer for name, tokenizer in self._given.items() if tokenizer.chat_template}
        source = given.get(reference)
        if source is None and shared.chat_template is None and len({str(t.chat_template) for t in given.values()}) == 1:
            source = next(iter(given.values()))
        if source is not None and source.chat_template != shared.chat_template:
            self.notes.append("prompts are read in the chat template that is saved with the adapters, not the base's")
            shared.chat_template = source.chat_template
            self.shared = Chat(source, self.settings, self.stops)
            self.shared.tokenizer.chat_template = source.chat_template
        for name, tokenizer in self._given.items():
            if name == reference:
                continue
            chat = Chat(tokenizer, self.settings, self.stops)
            if tokenizer.chat_template is None and self.shared.template is not None:
                continue  # it was saved without one
            if chat.end != self.shared.end:
                own, base = (
                    self.shared.tokenizer.decode(ids).strip() or "nothing" for ids in (chat.end, self.shared.end)
                )
                raise InputError(
                    f"policy '{name}': it ends a turn with '{own}', the reference with '{base}'; policies are mixed "
                    "token by token and must end alike: give 'chat_template: base' to this policy to read and end "
                    "its turns as the base does, or a reference with the same template"
                )
            if chat.template != self.shared.template:
                self.own[name] = chat
                self.notes.append(f"policy '{name}' reads prompts in its own chat template")


def chat_of(tokenizer: PreTrainedTokenizerBase) -> Chat:
    """Return the chat of a tokenizer with its current chat template."""
    return _chat(tokenizer, tokenizer.chat_template)


@lru_cache(maxsize=4)
def _chat(tokenizer: PreTrainedTokenizerBase, template: str | None) -> Chat:
    return Chat(tokenizer)


def any_of(words: Iterable[str]) -> re.Pattern[str]:
    """Return a pattern with one group that matches any of these words, the longest first."""
    return re.compile(f"({'|'.join(re.escape(word) for word in sorted(words, key=len, reverse=True)) or '(?!)'})")


def reason(error: BaseException) -> str:
    """Return the first line of an error's message, or its type if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
