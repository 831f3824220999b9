"""The part of the engine's API that reads texts and token ids rather than drawing them."""

from __future__ import annotations

from collections.abc import Sequence

from engine.config import REFERENCE
from engine.errors import InputError, TooLongError
from engine.inference.request_checks import check_date
from engine.inference.scheduler import Scheduler
from engine.messages import Prompt, TokenPrompt, check_encoding, checked_prompt, messages_of
from engine.models.mixture_log_probs import MixturePass, PositionLogProb
from engine.models.policy_set import PolicySet
from engine.models.token_prompts import check_ids
from engine.rules.mixture import Mixture
from engine.rules.soup import SOUP


class TextApi:
    """Tokenize texts, check prompts, and score tokens that are given. Every method is thread-safe."""

    policy_set: PolicySet
    _scheduler: Scheduler

    def tokenize(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """Return the token ids of a text as the tokenizer reads it, without a chat template.

        Args:
            text: the text; control tokens in it become control tokens, as `detokenize` writes them.
            add_special_tokens: add what the tokenizer adds to every text, such as BOS.

        Raises:
            InputError: the text cannot be encoded.
        """
        check_encoding(text, "text")
        return list(self.policy_set.tokenizer(text, add_special_tokens=add_special_tokens).input_ids)

    def detokenize(self, ids: Sequence[int]) -> str:
        """Return the text of token ids, with control tokens. Raises InputError if one is not in the vocabulary."""
        tokens = check_ids(self.policy_set, ids, "tokens")
        return self.policy_set.tokenizer.decode(tokens, skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def check_prompt(self, prompt: Prompt, room: int, whose: str = "new", date: str = "") -> dict[str, list[int]]:
        """Return {policy: token ids of the prompt in that policy's template}, once checked.

        Args:
            prompt: see `Engine.submit`. Prompted policies that cannot read token ids are absent.
            room: the number of tokens to leave free after the prompt.
            whose: an adjective for those tokens in the error message.
            date: see `Engine.submit`.

        Raises:
            InputError: the prompt is empty, its messages have wrong roles, its token ids are not in the vocabulary, or
                it does not fit the models with `room` more tokens.
        """
        prompt = checked_prompt(prompt)
        if isinstance(prompt, TokenPrompt):
            prompt_ids = self.policy_set.token_prompts.read(prompt)
        else:
            # Far too long to fit whatever the tokenizer makes of it: not worth reading.
            length = sum(len(message["content"]) for message in messages_of(prompt))
            if length > 64 * self.policy_set.context:
                raise TooLongError(
                    f"prompt: it is {length:,} characters long, and these models hold {self.policy_set.context:,} "
                    "tokens; shorten it"
                )
            prompt_ids = self.policy_set.read(self.policy_set.policies, prompt, date)
        longest = max(len(ids) for ids in prompt_ids.values())
        if longest + room > self.policy_set.context:
            longer = ", or leave out turns" if isinstance(prompt, list) else ""
            raise TooLongError(
                f"prompt: it is {longest:,} tokens long, and these models hold {self.policy_set.context:,}, of which "
                f"{room:,} are for {whose} tokens; shorten the prompt or the response{longer}"
            )
        # A soup reads what the reference reads.
        return {**prompt_ids, SOUP: prompt_ids[REFERENCE]}

    def token_log_probs(self, prompt: Prompt, response: str | list[int], date: str = "") -> dict[str, list[float]]:
        """Return {policy or "reference": log-probs of the response's tokens}, teacher-forced.

        Args:
            prompt: see `Engine.submit`; all policies must be able to read it.
            response: a text, which is tokenized as a whole response including its end of turn; or token ids, which are
                scored unchanged.
            date: see `Engine.submit`.

        Raises:
            InputError: the prompt is not valid, or the response is empty or too long for the models.
        """
        prompt, date = checked_prompt(prompt), check_date(date)
        if isinstance(response, str):
            check_encoding(response, "response")
        self.check_prompt(prompt, 1)
        tokens = self.policy_set.response_ids(response) if isinstance(response, str) else response
        if not tokens:
            raise InputError("response: it is empty; give some text or tokens")
        self.check_prompt(prompt, len(tokens), "the response's")
        return self._scheduler.run(lambda: self.policy_set.teacher_forced(prompt, tokens, date))

    def mixture_log_probs(self, tokens: Sequence[int], mixture: Mixture, top: int = 0) -> list[PositionLogProb]:
        """Return the mixture's log-prob of every token of a text, given those before it.

        The text is read as a `TokenPrompt` is. The log-probs are those of `MixedPolicy`, before temperature and
        truncation. A long text is read in pieces, between which other responses are drawn.

        Args:
            tokens: the token ids of the text.
            mixture: the mixture; see `Engine.mixture`.
            top: the number of likeliest tokens to return at each position.

        Returns:
            One per token. The first token's log-prob is None; see `PositionLogProb`.

        Raises:
            InputError: there are no tokens, one is not in the vocabulary, they do not fit the models, or a prompted
                policy of the mixture cannot read them.
        """
        checked = check_ids(self.policy_set, tokens, "tokens")
        if not checked:
            raise InputError("tokens: there are none; give one at least")
        if isinstance(top, bool) or not isinstance(top, int) or top < 0:
            raise InputError(f"top: found {top}; give the number of likeliest tokens, 0 for none")
        pieces = MixturePass(self.policy_set, checked, mixture, top).pieces()
        found: list[PositionLogProb] = []
        while (piece := self._scheduler.run(lambda: next(pieces, None))) is not None:
            found += piece
        return found
