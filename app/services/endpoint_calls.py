"""What the endpoints for programs do, apart from Gradio. Wrong arguments raise InputError, which names the argument."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
from collections.abc import Mapping
from typing import Any

from app.schemas.endpoint_arguments import (
    GenerateArguments,
    MixtureArguments,
    RateArguments,
    ScoreArguments,
    SolveArguments,
)
from app.services.app_state import Desk
from app.services.balance_choices import BY_POLICIES, BY_REWARDS
from app.services.endpoint_runs import EndpointRuns
from app.services.generation_run import Run, new_seed
from app.storage.saved_mixtures import SavedMixtures
from engine import RULES, Completion, InputError, Mixture, Sampling
from engine.config import REFERENCE
from engine.rewards.missing import Rewards
from engine.rules.registry import DEFAULT_RULE

log = logging.getLogger("mixdesk")

REPEATS = 30  # of the bootstrap, above floors
NO_BANK = "There is no bank yet: press Balance on the page, which samples one."
UNSAVED = "The rating was not saved: the database says “{}”. Send it again."


class EndpointCalls:
    """The desk as programs see it. Thread-safe."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.runs = EndpointRuns(desk.engine, desk.runs)
        self.saved = SavedMixtures(desk.store)
        self.longest = min(512, desk.engine.policy_set.context // 2)  # tokens, as on the page

    @property
    def methods(self) -> list[str]:
        """The methods of `solve`, the preferred one first; without reward models, only the policies' own rewards."""
        return [BY_REWARDS, BY_POLICIES] if self.desk.engine.reward_set.objectives else [BY_POLICIES]

    @property
    def alone(self) -> list[str]:
        """Names that are a mixture of one: the policies and the reference."""
        return [*self.desk.engine.policy_set.names, REFERENCE]

    def mixture(self, given: MixtureArguments) -> Mixture:
        """Return the mixture that arguments describe; a rule, gain or exponent wins over that of a saved mixture."""
        settings: dict[str, Any] = {"weights": given.weights, "rule": DEFAULT_RULE}
        if given.mixture:
            if given.weights is not None:
                raise InputError("weights: a mixture is named too; give one of the two")
            settings = self._named(given.mixture)
        chosen = {"rule": given.rule, "gain": given.gain, "exponent": given.exponent}
        settings |= {name: value for name, value in chosen.items() if value is not None}
        return self.desk.engine.mixture(**settings)

    def _named(self, name: str) -> dict[str, Any]:
        saved = self.saved.names()
        if name in saved:
            state = self.saved.load(name)
            heard = {policy: weight for policy, weight in state.audible_weights().items() if weight}
            return {"weights": heard, "rule": state.rule, "gain": state.gain, "exponent": state.exponent}
        if name in self.alone:
            return {"weights": {name: 1.0}}
        raise InputError(f"mixture: there is no '{name[:40]}'; there are {', '.join([*self.alone, *saved])}")

    def begin(self, given: GenerateArguments, session: str, address: str) -> Run:
        """Submit a response; `runs.end` must follow."""
        if given.max_new_tokens > self.longest:
            raise InputError(f"max_new_tokens: found {given.max_new_tokens}; give at most {self.longest} on this desk")
        sampling = Sampling(
            max_new_tokens=given.max_new_tokens,
            temperature=given.temperature,
            top_k=given.top_k,
            top_p=given.top_p,
            min_p=given.min_p,
            repetition_penalty=given.repetition_penalty,
            particles=given.particles,
            stop=tuple(given.stop or ()),
        )
        seed = new_seed() if given.seed is None else given.seed
        return self.runs.begin(session, address, given.question, self.mixture(given), sampling, seed)

    def finish(self, completion: Completion, session: str, address: str) -> dict[str, Any]:
        """Keep a finished response, and return it with its id."""
        key = self.runs.keep(session, address, completion)
        standard = self.desk.engine.reward_set.standard(completion.rewards)
        return {"id": key, **completion.as_dict(), "standard_rewards": standard}

    def score(self, given: ScoreArguments, session: str, address: str) -> dict[str, Any]:
        """Return a given response's log-probability under every policy, and its rewards."""
        self.runs.make_room(session, address)
        engine = self.desk.engine
        log_probs = engine.token_log_probs(given.question, given.response)
        rewards: Rewards = engine.rewards([(given.question, given.response, None)])[0]
        return {
            "log_probs": {name: sum(values) for name, values in log_probs.items()},
            "rewards": dict(rewards),
            "standard_rewards": engine.reward_set.standard(rewards),
            "missing_rewards": dict(rewards.missing),
        }

    def expected_rewards(self, given: MixtureArguments) -> dict[str, Any]:
        """Return the rewards that the bank expects of a mixture."""
        mixed, expected = self.mixture(given), self.desk.expected
        expected.load()
        reading = expected.read({**dict.fromkeys(self.desk.policies, 0.0), **mixed.weights}, mixed.rule, mixed.gain)
        if not reading.raw:
            raise InputError(reading.text)
        return {
            "weights": mixed.weights,
            "gain": mixed.gain,
            "rewards": dict(reading.raw),
            "standard_rewards": dict(reading.standard),
            "standard_errors": dict(reading.errors),
            "reliable": reading.reliable,
            "note": reading.text,
        }

    def solve(self, given: SolveArguments) -> dict[str, Any]:
        """Return weights that are found from the bank, and what it expects of them."""
        expected = self.desk.expected
        expected.load()
        if expected.missing or expected.bank is None:
            raise InputError(expected.missing or NO_BANK)
        fixed = given.fixed or {}
        self._check_fixed(fixed)
        method = given.method or self.methods[0]
        if method not in self.methods:
            raise InputError(f"method: there is no '{method[:40]}'; there are {', '.join(self.methods)}")
        if not given.floors and not given.worth:
            solution = expected.balanced(fixed, method, given.gain)
        elif given.method:
            raise InputError("method: floors and worth have a method of their own; leave out one or the other")
        else:
            solution = expected.reaching(given.floors or {}, fixed, given.worth, given.gain, repeats=REPEATS)
        found = {name: value for name, value in solution.as_dict().items() if name not in ("path", "lottery")}
        try:
            return {**found, **expected.outcome(solution.weights, fixed, given.gain).as_dict()}
        except InputError:
            if solution.method != BY_POLICIES:
                raise
            return found  # the policies' own rewards need no scale

    def _check_fixed(self, fixed: Mapping[str, float]) -> None:
        for name in fixed:
            if name not in self.desk.policies:
                raise InputError(f"fixed: there is no policy '{name[:40]}'; there are {', '.join(self.desk.policies)}")
        if sum(fixed.values()) >= 1 or len(fixed) >= len(self.desk.policies):
            raise InputError("fixed: these weights leave nothing to find; keep fewer, with a sum below 1")

    def rate(self, given: RateArguments, session: str, address: str) -> dict[str, Any]:
        """Store a rating of two responses of the session."""
        pair = self.runs.find(session, left=given.left, right=given.right)
        if given.left == given.right:
            raise InputError("right: it is the left response too; give the id of another one")
        self.desk.check_rate(address)
        key = given.rating_id or rating_key(given.left, given.right, given.annotator)
        model = self.desk.engine.config.name
        try:
            new = self.desk.store.rate(key, pair["left"], pair["right"], given.choice, given.annotator, model=model)
        except sqlite3.Error as error:
            log.exception("a rating could not be stored")
            raise InputError(UNSAVED.format(error)) from None
        if new:
            self.desk.copy(key)
        return {"rating_id": key, "new": new}

    def describe(self) -> dict[str, Any]:
        """Return what the arguments of the other calls can name."""
        saved = {}
        for name in self.saved.names():
            try:
                saved[name] = self.mixture(MixtureArguments(mixture=name)).as_dict()
            except InputError as error:  # of another configuration, or of another version
                saved[name] = {"error": str(error)}
        return {
            "configuration": self.desk.engine.config.name,
            "policies": self.desk.policies,
            "objectives": list(self.desk.engine.reward_set.objectives),
            "rules": list(RULES),
            "methods": self.methods,
            "max_new_tokens": self.longest,
            "saved": saved,
        }


def rating_key(*parts: str) -> str:
    """Return the id of a rating, the same for the same responses and annotator."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
