"""Mixdesk's engine: policies, mixtures of them, and what is computed with them."""

from engine.engine import Completion, Engine, Request, Token
from engine.errors import InputError
from engine.mixing import RULES, Mixture
from engine.sampling import Sampling

__all__ = ["RULES", "Completion", "Engine", "InputError", "Mixture", "Request", "Sampling", "Token"]
