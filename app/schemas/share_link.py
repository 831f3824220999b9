"""Links that hold the desk's settings."""

from __future__ import annotations

import base64
import binascii

from pydantic import ValidationError

from app.schemas.desk_state import LONGEST, DeskSettings
from engine import InputError


def to_link(settings: DeskSettings) -> str:
    """Encode the settings as the part of an address after 'mix=': letters, digits, - and _.

    Raises:
        InputError: if a text holds a lone surrogate.
    """
    try:
        packed = settings.model_dump_json().encode()
    except ValueError:
        raise InputError("prompt: it holds half a character (a lone surrogate); type it again") from None
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def from_link(text: str) -> DeskSettings:
    """Decode the settings that `to_link` encoded.

    Raises:
        InputError: if the link is broken, too long, or from another version of Mixdesk.
    """
    try:
        if len(text) > LONGEST:
            raise ValueError
        standard = text.translate(str.maketrans("-_", "+/"))
        packed = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
        return DeskSettings.model_validate_json(packed)
    except ValidationError as error:
        if any(found["loc"] == ("v",) for found in error.errors(include_input=False, include_context=False)):
            raise InputError("link: it is from another version of Mixdesk, and cannot be read here.") from None
        raise InputError("link: it is broken; copy it again, all of it.") from None
    except (ValueError, binascii.Error):
        raise InputError("link: it is broken; copy it again, all of it.") from None
