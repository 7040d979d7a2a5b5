"""The event of a verb that answers one: a second would take the first one's place without a word."""

from collections.abc import Sequence

from tidalctl.artifacts.errors import TidalError


def one_event(given: Sequence[str]) -> str:
    if len(given) != 1:
        raise TidalError(
            f"--event was given {len(given)} times, and one event is answered", "give one; start again for another"
        )
    return given[0]
