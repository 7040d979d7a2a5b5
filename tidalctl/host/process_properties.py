"""What a worker must have of its caller and not of the template that it is a fork of, and what of the template must be the caller's."""

import ctypes
import os
import random
import signal
import sys
from collections.abc import Mapping
from typing import Any

from tidalctl.artifacts.bundle.manifest import Manifest
from tidalctl.artifacts.cause import Cause, Reason

# variables that the interpreter and libraries look at while they are loaded
LOADED_BY = ("OMP_", "MKL_", "OPENBLAS_", "KMP_", "MALLOC_", "LD_", "CUDA_", "TORCH", "PYTORCH_", "PYTHON", "LC_")
LOADED_BY_NAME = ("LANG", "TZ")
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def environment_mismatch(manifest: Manifest, template: Mapping[str, str], caller: Mapping[str, str]) -> Reason | None:
    """Return the first variable that imports have read and that is not the caller's, or None."""
    names = {name for state in manifest.held for name in state.guard.environ}
    names |= {name for name in {*template, *caller} if name.startswith(LOADED_BY) or name in LOADED_BY_NAME}
    other = next((name for name in sorted(names) if template.get(name) != caller.get(name)), None)
    return Cause.TEMPLATE_ENVIRONMENT_DIFFERS.of(name=other) if other is not None else None


class GlobalGenerators:
    """`random` and NumPy's global generator: a process that starts has them fresh, unless its imports seed them.

    Make it before the function is imported, and say when it is. `put_right` is for a fork.
    """

    def __init__(self) -> None:
        self._random = random.getstate()
        self._numpy: Any = None  # as NumPy's import left it
        self._imported: tuple[Any, Any] = (None, None)
        sys.addaudithook(self._look)

    def _look(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "import" and self._numpy is None:
            self._numpy = self._numpy_state()

    def imported(self) -> None:
        """The function is imported: generators that are not as they were have been seeded, or used."""
        state, numpy = random.getstate(), self._numpy_state()
        self._numpy = self._numpy or numpy or ()
        seeded = numpy is not None and repr(numpy) != repr(self._numpy)
        self._imported = (state if state != self._random else None, numpy if seeded else None)

    def put_right(self) -> None:
        """Have them as an ordinary start would."""
        state, numpy = self._imported
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

    @staticmethod
    def _numpy_state() -> Any:
        """Return the state of NumPy's global generator, or None while there is none."""
        made = getattr(sys.modules.get("numpy.random.mtrand"), "_rand", None)
        return made.get_state(legacy=False) if made is not None else None


def take_over(request: Mapping[str, Any], streams: list[int]) -> None:
    """Take on what the caller has: descriptors 0 to 2, and environment, working directory and umask where the request says so."""
    for number, descriptor in enumerate(streams):
        os.dup2(descriptor, number)
        os.close(descriptor)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.reconfigure(line_buffering=stream is sys.stderr or stream.isatty())  # type: ignore[union-attr]
    if "environ" not in request:
        return
    environ = dict(request["environ"])
    for name in [name for name in os.environ if name not in environ]:
        del os.environ[name]
    os.environ.update(environ)
    os.chdir(request["directory"])
    os.umask(request["umask"])
