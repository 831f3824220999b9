"""Single tokens as bytes and text: a token may be a part of a character, or a control token."""

from __future__ import annotations

import re
from functools import lru_cache

from transformers import PreTrainedTokenizerBase

BYTE = re.compile(r"<0x([0-9A-F]{2})>")
SPACE = "\u2581"  # that SentencePiece writes for a space


class TokenTexts:
    """The texts of a tokenizer's tokens."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        decoder = repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", None))
        self._of_bytes = "ByteLevel" in decoder
        self._special = set(tokenizer.all_special_ids)
        self._added = {number: token.content for number, token in tokenizer.added_tokens_decoder.items()}
        self._known: dict[int, bytes] = {}

    def is_special(self, token: int) -> bool:
        """Return whether the text of a response leaves a token out."""
        return token in self._special

    def drops_space(self, token: int) -> bool:
        """Return whether the token begins with a space that the decoder drops at the beginning of a text."""
        return not self._of_bytes and self.bytes_of(token).startswith(b" ")

    def bytes_of(self, token: int) -> bytes:
        """Return the UTF-8 bytes of a token, which may be a part of a character."""
        if token not in self._known:
            self._known[token] = self._find(token)
        return self._known[token]

    def text_of(self, token: int) -> str:
        r"""Return the text of a token; one that is no text by itself is written as OpenAI does, `bytes:\xe4\xbd`."""
        raw = self.bytes_of(token)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "bytes:" + "".join(f"\\x{byte:02x}" for byte in raw)

    def _find(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token].encode()
        piece = self._tokenizer.convert_ids_to_tokens(token)
        if not isinstance(piece, str):  # beyond the tokenizer's own: models may have more rows
            return b""
        if self._of_bytes and all(character in byte_alphabet() for character in piece):
            return bytes(byte_alphabet()[character] for character in piece)
        if byte := BYTE.fullmatch(piece):
            return bytes([int(byte[1], 16)])
        if SPACE in piece:
            return piece.replace(SPACE, " ").encode()
        return self._tokenizer.decode([token], clean_up_tokenization_spaces=False).encode()


@lru_cache(maxsize=1)
def byte_alphabet() -> dict[str, int]:
    """Return {character: byte} of byte-level BPE, which writes bytes that are not printable as characters from 256."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}
