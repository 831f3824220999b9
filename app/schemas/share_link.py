"""Links that hold the desk's state."""

from __future__ import annotations

import base64
import binascii
import re

from pydantic import ValidationError

from app.schemas.desk_state import LONGEST, DeskState
from engine import InputError


def to_link(state: DeskState) -> str:
    """Encode the state as the part of an address after 'mix=': letters, digits, - and _.

    Raises:
        InputError: if a text holds a lone surrogate.
    """
    try:
        # Without stop strings a link is what it was before there were any.
        packed = state.model_dump_json(exclude={"new_seed"} if state.stop else {"new_seed", "stop"}).encode()
    except ValueError:
        raise InputError("prompt: it has half a character (a lone surrogate); type it again") from None
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def from_link(text: str) -> DeskState:
    """Decode the state that `to_link` encoded.

    Raises:
        InputError: if the link is broken, too long, or from another version of Mixdesk.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError
        standard = text.translate(str.maketrans("-_", "+/"))
        packed = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        state = DeskState.model_validate_json(packed)
        if not re.fullmatch(r"[0-9]{1,19}", state.seed):
            raise ValueError
        return state
    except ValidationError as error:
        if any(found["loc"] == ("v",) for found in error.errors(include_input=False, include_context=False)):
            raise InputError("link: it is from another version of Mixdesk, and cannot be read here.") from None
        raise InputError("link: it is broken; copy it again, all of it.") from None
    except (ValueError, binascii.Error):
        raise InputError("link: it is broken; copy it again, all of it.") from None
