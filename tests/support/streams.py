"""What tests of weights that arrive share: a call with a time limit, and the digest of a weight."""

import threading
from collections.abc import Callable

from tidalctl.artifacts.hashing import weight_hasher


def within(seconds: float, call: Callable[[], None]) -> BaseException | None:
    """What a call raises, if it ends in time; a test that would hang fails instead."""
    found: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
            found.append(None)
        except BaseException as error:  # noqa: BLE001 - handed to the test
            found.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert found, "it waits for ever"
    return found[0]


def digest(data: bytes) -> str:
    return weight_hasher(data).hexdigest()
