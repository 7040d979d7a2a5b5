"""Stands for an engine in tests of what waits for it."""

from collections.abc import Iterable


class Asked:
    """What was asked of it: groups, in order, and how often for all of them."""

    def __init__(self) -> None:
        self.groups: list[int] = []
        self.all = 0

    def need(self, groups: Iterable[int]) -> None:
        self.groups += groups

    def wait(self) -> None:
        self.all += 1
