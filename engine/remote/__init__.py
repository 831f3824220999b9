"""An engine on another machine: the protocol between it and a desk, and both of its ends."""

from engine.remote.client import EngineError
from engine.remote.engine import RemoteEngine

__all__ = ["EngineError", "RemoteEngine"]
