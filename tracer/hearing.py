"""Audit events, told to whoever listens at the time. One hook for all, since none can be taken away again."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator

Told = Callable[[str, tuple[object, ...]], None]

_listening: list[Told] = []


@contextlib.contextmanager
def hearing(told: Told) -> Iterator[None]:
    """A context in which `told` is called with each audit event and its arguments."""
    _hook_once()
    _listening.append(told)
    try:
        yield
    finally:
        _listening.remove(told)


@functools.cache
def _hook_once() -> None:
    sys.addaudithook(_hook)


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    for told in tuple(_listening):
        told(event, arguments)
