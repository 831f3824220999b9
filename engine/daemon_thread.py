"""Blocking calls on threads that do not keep the process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


async def on_daemon_thread(call: Callable[[], T], name: str) -> T:
    """Run a call on a daemon thread, and await its result.

    Unlike those of asyncio.to_thread, such threads are never too few for calls that wait, and a long call does not
    prevent the process from ending.

    Args:
        call: the call.
        name: the thread's name.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(setter: Callable[[Any], None], value: Any) -> None:
        if not future.done():
            setter(value)

    def work() -> None:
        setter: Callable[[Any], None] = future.set_result
        try:
            value: Any = call()
        except BaseException as error:
            setter, value = future.set_exception, error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(settle, setter, value)

    threading.Thread(target=work, name=name, daemon=True).start()
    return await future
