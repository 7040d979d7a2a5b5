"""The global random generators of a process: `random`'s, NumPy's and torch's."""

import random
import sys
from collections.abc import Sequence
from typing import Any

TWISTS = 100  # that a generator may have made since it was seeded, each for 624 numbers


class GlobalGenerators:
    """`random`, NumPy's and torch's generators: a process that starts has them fresh, unless its imports seed them.

    One that imports have drawn from is fresh, too. Make it before the function is imported, and say when it is. `put_right` is for a
    fork.
    """

    def __init__(self) -> None:
        self._random = random.getstate()
        self._torch: int | None = None  # the seed, as torch's import left it
        self._imported = False
        self._seeded: tuple[Any, Any, Any] = (None, None, None)
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import" and not self._imported:
            self._torch = self._torch or _torch_seed()

    def imported(self) -> None:
        """The function is imported: the generators that it has seeded stay as they are."""
        self._look("import", ())
        self._imported = True
        state, numpy = random.getstate(), _numpy_state()
        seeded = not _drawn_from(self._random[1][:-1], state[1][:-1])
        numpy_seeded = numpy is not None and not _drawn_from(_first_numpy_words(), _numpy_words(numpy))
        torch_seeded = _torch_seed() != self._torch
        self._seeded = (
            state if seeded else None,
            numpy if numpy_seeded else None,
            _torch_generator().get_state() if torch_seeded else None,
        )

    def put_right(self) -> None:
        """Have them as an ordinary start would."""
        state, numpy, torch = self._seeded
        if state is not None:
            random.setstate(state)
        else:
            random.seed()
        module = sys.modules.get("numpy.random")
        if module is not None:
            if numpy is not None:
                module.set_state(numpy)
            else:
                module.seed()
        generator = _torch_generator()
        if generator is not None:
            if torch is not None:
                generator.set_state(torch)
            else:
                generator.seed()  # that of the CPU: a device's begin with a seed that is always the same


def _numpy_state() -> Any:
    """Return the state of NumPy's global generator, or None while there is none."""
    made = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
    return made.get_state(legacy=False) if made is not None else None


def _first_numpy_words() -> Sequence[int]:
    """Return the words that NumPy's global generator began with: it keeps what it made them of."""
    twister = sys.modules["numpy.random.mtrand"]._rand._bit_generator
    return _numpy_words(type(twister)(twister.seed_seq if hasattr(twister, "seed_seq") else twister._seed_seq).state)


def _numpy_words(state: Any) -> Sequence[int]:
    """Return the words of a Mersenne Twister's state; none of a generator of another kind."""
    return [*map(int, state["state"]["key"])] if state["bit_generator"] == "MT19937" else []


def _torch_generator() -> Any:
    """Return torch's generator for the CPU, or None while there is none."""
    return getattr(sys.modules.get("torch._C"), "default_generator", None)


def _torch_seed() -> int | None:
    generator = _torch_generator()
    return generator.initial_seed() if generator is not None else None


def _drawn_from(before: Sequence[int], after: Sequence[int]) -> bool:
    """Whether a Mersenne Twister with the words `after` is one with the words `before` that was drawn from, and not seeded since."""
    words, after = tuple(before), tuple(after)
    twister = random.Random()
    for _ in range(TWISTS if words else 0):  # one of another kind has none, and is left as it is
        if words == after:
            return True
        twister.setstate((3, (*words, len(words)), None))  # all of its words are used up
        twister.getrandbits(32)
        words = twister.getstate()[1][:-1]
    return False
