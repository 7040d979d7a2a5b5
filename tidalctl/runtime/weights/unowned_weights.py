"""Lets a handler begin before the weights that no module owns are in: the operators that read them wait.

A function without modules (its state a dict of tensors, say) would otherwise compute only when everything has been read. Operators are
held up by a mode of torch's functions (see operators), in the thread that asked for the state and for the time of the call that did: a
call of the handler, or for its next piece. It is never there between two pieces, goes a few operators after the last group came in, and
is not entered again.

Why not a mode of torch's dispatcher: that costs twice as much an operator, can't be entered inside of `inference_mode`, where init
often is called, and composite operators take other ways below it.

Limits: a thread that the handler starts reads without waiting, and so does C++ that is given no tensor from here. On the CPU what they
read is the mapped file all the same; that it was right is known before output leaves (see weights.WeightStream.refuse_wrong).
"""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from tidalctl.runtime.weights.operator_gate import OperatorGate

Groups = Mapping[int, Sequence[int]]  # by a storage's address
EVENTS = 100  # of the interpreter, for which a mode looks for its chance to leave


class Unowned:
    """`need` returns when these groups are in, `wait` when all are; both raise what is wrong with them."""

    def __init__(self, need: Callable[[Iterable[int]], None], wait: Callable[[], None]) -> None:
        self._need = need
        self._wait = wait
        self._groups: dict[int, Sequence[int]] = {}
        self._here = _Here()
        self._entered: list[_Operators] = []  # in any thread

    @contextlib.contextmanager
    def call(self) -> Iterator[None]:
        """Around a call of the function in this thread. One inside another is part of it."""
        if self._here.calling:
            yield
            return
        self._here.calling = True
        try:
            if self._groups:  # what an earlier call has left
                self._enter()
            yield
        finally:
            self._here.calling = False
            self.leave()

    def hold(self, groups: Groups) -> None:
        """Operators wait for these from now on, where something ends that: outside of a call they are waited for here."""
        if not self._here.calling:
            self._need(index for found in groups.values() for index in found)
        elif groups:
            self._groups.update(groups)
            self._enter()

    def open(self) -> None:
        """Everything is in: nobody waits any more, and nobody will."""
        self._groups.clear()
        for gate in list(self._entered):
            gate.open()
        self.leave()

    def leave(self) -> None:
        """Be gone from this thread's path. A mode that is below one of the function's own stays so long, and does nothing more."""
        here = self._here
        if here.gate is not None:
            here.gate.open()
            here.leaving.append(here.gate)
            here.gate = None
        for gate in here.leaving[::-1]:
            if gate.leave():
                here.leaving.remove(gate)
                self._entered.remove(gate)

    def _enter(self) -> None:
        if self._here.gate is None:
            gate = self._here.gate = _Operators(self._need, self._wait, self._groups)
            self._entered.append(gate)
            gate.close()


class _Operators(OperatorGate):
    """Leaves by itself once everything is in. Where the function has a profiler of its own, or a mode above this one, the call ends it.

    Torch puts a mode back after each operator that went through it, so that none can leave from there: it leaves at a later event of
    the interpreter, of which a profiler is told.
    """

    _events = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = super().__torch_function__(func, types, args, kwargs)
        if self._open and not self._events and sys.getprofile() is None:
            sys.setprofile(self._look)
        return result

    def _look(self, frame: Any, event: str, argument: Any) -> None:
        self._events += 1
        if self.leave() or self._events > EVENTS:
            sys.setprofile(None)


class _Here(threading.local):
    """What a thread is at: whether in a call of the function, the mode that it is in for that, and those that it can't leave yet."""

    def __init__(self) -> None:
        self.calling = False
        self.gate: _Operators | None = None
        self.leaving: list[_Operators] = []
