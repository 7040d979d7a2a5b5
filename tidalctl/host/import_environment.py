"""Environment variables that imports have read: whoever has imported a function serves those alone who have them the same."""

from collections.abc import Iterable, Mapping

# variables that the interpreter and libraries look at while they are loaded
LOADED_BY = ("OMP_", "MKL_", "OPENBLAS_", "KMP_", "MALLOC_", "LD_", "CUDA_", "TORCH", "PYTORCH_", "PYTHON", "LC_")
LOADED_BY_NAME = ("LANG", "TZ")
SHELLS = frozenset(("_", "SHLVL", "PWD", "OLDPWD", "COLUMNS", "LINES"))  # which a shell sets for each command


def read_while_loading(name: str) -> bool:
    """Whether the interpreter or a library looks at this variable while it is loaded."""
    return name.startswith(LOADED_BY) or name in LOADED_BY_NAME


def other_variable(
    read: Iterable[str], imported: Mapping[str, str], caller: Mapping[str, str], *, every: bool = False
) -> str | None:
    """Return the first variable, by name, that imports have read and that is not the caller's; None where all are.

    `read` are those that the function's own imports read; where they looked at `every` one, all count but those of a shell's own.
    The values may be digests.
    """
    names = {*read, *(name for name in {*imported, *caller} if (every and name not in SHELLS) or read_while_loading(name))}
    return next((name for name in sorted(names) if imported.get(name) != caller.get(name)), None)
