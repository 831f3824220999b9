"""Names in a configuration: its own, and those of policies and objectives. Some become part of file names."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Container
from typing import Annotated

from pydantic import AfterValidator

LONGEST = 100  # characters; with a hash and a suffix behind it, a name still is a file name
LONGEST_BYTES = 200  # in UTF-8
UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, lone surrogates, line and paragraph separators
REORDERING = set("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # a name is not what it seems to be


def check_label(text: str) -> str:
    """Return a name that is only shown, such as an objective's.

    Raises:
        ValueError: it is blank or too long, or has characters that cannot be seen.
    """
    if not text.strip():
        raise ValueError("a name that is not empty")
    if len(text) > LONGEST or len(text.encode("utf-8", "surrogatepass")) > LONGEST_BYTES:
        raise ValueError(f"a name of up to {LONGEST} characters, and {LONGEST_BYTES} bytes")
    if any(unicodedata.category(character) in UNSEEN or character in REORDERING for character in text):
        raise ValueError("a name in one line, without control characters")
    return text


def check_file_name(text: str) -> str:
    """Return a name that becomes part of file names: of banks, scales and saved mixtures.

    Raises:
        ValueError: as `check_label`, or it would lead to another folder.
    """
    check_label(text)
    if "/" in text or "\\" in text or text in (".", ".."):
        raise ValueError("a name that can be part of a file name, without / and \\")
    return text


def slug_of(name: str, taken: Container[str]) -> str:
    """Return an unused part of an address for a name: lower-case letters, digits and dashes."""
    slug = wanted = re.sub(r"[^a-z0-9]+", "-", name.lower())[:60].strip("-") or "configuration"
    number = 1
    while slug in taken:
        number += 1
        slug = f"{wanted}-{number}"
    return slug


Label = Annotated[str, AfterValidator(check_label)]
FileName = Annotated[str, AfterValidator(check_file_name)]
