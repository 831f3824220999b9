"""A response as it is generated: its tokens, the policies' push on each, and where it was steered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from app.format import in_short
from engine import Completion, Mixture, Request, Token
from engine.config import REFERENCE
from engine.inference.top_logprobs import TopLogprobs

TOP_LOGPROBS = 12  # of each policy at each token: what the drawer chooses from


class Response:
    """A request and its tokens so far. Its own thread writes it; any thread may read it.

    Args:
        request: The engine's request.
        policies: The policies whose push is shown, in the faders' order.
        steerable: Whether it follows the faders.
        before: The response that it continues, if any.
        kept: Number of tokens that it keeps from `before`.
    """

    def __init__(
        self,
        request: Request,
        policies: Sequence[str],
        steerable: bool = False,
        before: Response | None = None,
        kept: int = 0,
    ) -> None:
        self.request = request
        self.policies = policies
        self.steerable = steerable
        self.kept = kept
        self.origin = "" if before is None else f"continues from token {kept + 1}"
        self.tokens: list[int] = before.tokens[:kept] if before else []
        self.texts: list[str] = before.texts[:kept] if before else []
        # Of each token: log π_k - log π_ref of every policy (the terms of the implied reward, METHODS.md section 2).
        self.pushes: list[list[float]] = before.pushes[:kept] if before else []
        self.mixtures: list[Mixture] = before.mixtures[:kept] if before else []
        self.top_logprobs: list[TopLogprobs | None] = before.top_logprobs[:kept] if before else []
        self.marks: list[list[Any]] = [mark for mark in before.marks if mark[0] < kept] if before else []
        self.completion: Completion | None = None
        self.error: Exception | None = None
        self.over = False
        self._target: Mixture | None = None
        self._note = ""

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self.texts)

    @property
    def count(self) -> int:
        """Number of tokens so far."""
        return len(self.tokens)

    def steer(self, mixture: Mixture) -> None:
        """Switch the remaining tokens to this mixture, if the response follows the faders and is not over."""
        if self.steerable and not self.over and mixture != self._target:
            self._target = mixture
            self.request.steer_to(mixture)

    def read(self, write: Callable[[Any], None], notify: Callable[[], None]) -> None:
        """Read the response to its end on a new thread.

        Args:
            write: Receives the page's lines in order: {"kept"} at the beginning, [text, pushes] or [text, pushes, kind,
                title] for a token, {"rest"} with the rest of the last token's text.
            notify: Called after every change.
        """
        write({"kept": self.kept})
        for place in range(self.kept):
            write(self._line(place))
        threading.Thread(target=self._read, args=[write, notify], name="mixdesk-response", daemon=True).start()

    def _read(self, write: Callable[[Any], None], notify: Callable[[], None]) -> None:
        try:
            for place, token in enumerate(self.request):
                if place >= self.kept:
                    self._add(place, token)
                    write(self._line(place))
                    notify()
            completion = self.request.completion()
            if self.texts and (rest := completion.text[len(self.text) :]):
                self.texts[-1] += rest  # bytes of a character that was never finished
                write({"rest": rest})
            self.completion = completion
        except Exception as error:
            self.error = error
        self.over = True
        notify()

    def _add(self, place: int, token: Token) -> None:
        reference = token.log_probs.get(REFERENCE, 0.0)
        pushes = [round(token.log_probs.get(name, reference) - reference, 2) for name in self.policies]
        if place == self.kept and self.origin:
            self.marks = [*self.marks, [place, "branch", f"Continues from here with {in_short(token.mixture)}"]]
        elif place and token.mixture != self.mixtures[-1]:
            self.marks = [*self.marks, [place, "steered", f"Steered to {in_short(token.mixture)}"]]
        self.tokens.append(token.id)
        self.pushes.append(pushes)
        self.mixtures.append(token.mixture)
        self.top_logprobs.append(token.top_logprobs)
        self.texts.append(token.text)

    def note(self) -> str:
        """Return a note to show while particles are sampled and there is no text yet; "" if it has not changed."""
        particles, drawn, before = self.request.sampling.particles, self.request.drawn, self._note
        if particles > 1 and not self.texts and drawn:
            self._note = f"Drawing {particles} particles: {drawn} tokens so far. The text comes at the end."
        return self._note if self._note != before else ""

    def _line(self, place: int) -> list[Any]:
        return [self.texts[place], self.pushes[place], *(mark[1:] for mark in self.marks if mark[0] == place)]
