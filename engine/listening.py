"""Sockets to listen on."""

from __future__ import annotations

import socket

from engine.errors import InputError


def bind_address(host: str, port: int, listen: bool = True) -> socket.socket:
    """Open a socket before the models are loaded, so that a taken port fails at once.

    Args:
        host: the address or name.
        port: the port; 0 takes a free one.
        listen: whether connections are taken from now on.

    Raises:
        InputError: the address cannot be resolved or bound.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        if listen:
            listener.listen()
    except OSError as error:
        raise InputError(f"--port: cannot listen on {host[:80]}:{port}: {error.strerror}; give another") from None
    except UnicodeError:  # a label of a host's name is empty, or too long
        raise InputError(f"--host: found '{host[:80]}'; give an address, such as 127.0.0.1, or a host's name") from None
    return listener
