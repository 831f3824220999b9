"""A response as it is written: its tokens, what pushed each of them, where it was steered."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

from app.format import in_short
from engine import Completion, Mixture, Request, Token
from engine.config import REFERENCE
from engine.inference.top_logprobs import Candidates

CANDIDATES = 12  # of each policy at each token: what the drawer chooses from


class Response:
    """A request with what came of it so far. Its own thread fills it in, any may read it.

    policies: those whose push is shown, in the faders' order. steerable: it follows the faders. before, kept: the
    response that this one goes on from, and how many of its tokens it keeps.
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
        self.origin = "" if before is None else f"goes on from token {kept + 1}"
        self.tokens: list[int] = before.tokens[:kept] if before else []
        self.texts: list[str] = before.texts[:kept] if before else []
        # Of each token: log π_k - log π_ref of every policy (the terms of the implied reward, METHODS.md section 2).
        self.pushes: list[list[float]] = before.pushes[:kept] if before else []
        self.mixtures: list[Mixture] = before.mixtures[:kept] if before else []
        self.candidates: list[Candidates | None] = before.candidates[:kept] if before else []
        self.marks: list[list[Any]] = [mark for mark in before.marks if mark[0] < kept] if before else []
        self.completion: Completion | None = None
        self.error: Exception | None = None
        self.over = False
        self._target: Mixture | None = None
        self._note = ""

    @property
    def text(self) -> str:
        return "".join(self.texts)

    @property
    def count(self) -> int:
        """Tokens that are there."""
        return len(self.tokens)

    def steer(self, mixture: Mixture) -> None:
        """Let what is still to come follow the faders, if it is one that does."""
        if self.steerable and not self.over and mixture != self._target:
            self._target = mixture
            self.request.steer_to(mixture)

    def read(self, write: Callable[[Any], None], tell: Callable[[], None]) -> None:
        """Read to the end, on a thread of its own.

        write: takes what the page learns, in this order: {"kept"} of a response that begins, [text, pushes, mark or
        nothing] of a token, {"rest"} of its last one's text. tell: is called whenever there is news.
        """
        write({"kept": self.kept})
        for place in range(self.kept):
            write(self._line(place))
        threading.Thread(target=self._read, args=[write, tell], name="mixdesk-response", daemon=True).start()

    def _read(self, write: Callable[[Any], None], tell: Callable[[], None]) -> None:
        try:
            for place, token in enumerate(self.request):
                if place >= self.kept:
                    self._add(place, token)
                    write(self._line(place))
                    tell()
            completion = self.request.completion()
            if self.texts and (rest := completion.text[len(self.text) :]):
                self.texts[-1] += rest  # bytes of a character that was never finished
                write({"rest": rest})
            self.completion = completion
        except Exception as error:
            self.error = error
        self.over = True
        tell()

    def _add(self, place: int, token: Token) -> None:
        reference = token.log_probs.get(REFERENCE, 0.0)
        pushes = [round(token.log_probs.get(name, reference) - reference, 2) for name in self.policies]
        if place == self.kept and self.origin:
            self.marks = [*self.marks, [place, "branch", f"Goes on from here with {in_short(token.mixture)}"]]
        elif place and token.mixture != self.mixtures[-1]:
            self.marks = [*self.marks, [place, "steered", f"Steered to {in_short(token.mixture)}"]]
        self.tokens.append(token.id)
        self.pushes.append(pushes)
        self.mixtures.append(token.mixture)
        self.candidates.append(token.candidates)
        self.texts.append(token.text)

    def note(self) -> str:
        """What is said in the place of a text that comes at its end; empty if that is nothing new."""
        particles, drawn, before = self.request.sampling.particles, self.request.drawn, self._note
        if particles > 1 and not self.texts and drawn:
            self._note = f"Drawing {particles} particles: {drawn} tokens so far. The text comes at the end."
        return self._note if self._note != before else ""

    def _line(self, place: int) -> list[Any]:
        return [self.texts[place], self.pushes[place], *(mark[1:] for mark in self.marks if mark[0] == place)]
