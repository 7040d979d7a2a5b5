"""`@tidalctl.init`, and the one piece of global state: who answers a call of an init in this process.

Outside tidalctl nobody does, and the marked function is called as if it had no mark.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from tidalctl.function.statements import Statements

    # (the marked function, positional arguments, keyword arguments) -> the state
    Provider = Callable[["Init", tuple[Any, ...], dict[str, Any]], Any]

_provider: "Provider | None" = None


class Init:
    """A function that builds state. `static` promises that it depends neither on the event nor on what the handler did before.

    `target` is the object that a method fills: see filled_object.py. `statements` says more of an init that is no function, but
    statements at the top of a module: see module_state.py.
    """

    statements: "Statements | None" = None

    def __init__(self, function: "Callable[..., Any]", static: bool, target: "Any" = None) -> None:
        self.function = function
        self.static = static
        self.target = target
        self.name = f"{function.__module__}:{function.__qualname__}"


def init(function: "Callable[..., Any] | None" = None, *, static: bool = False) -> "Callable[..., Any]":
    """Mark the function that builds the state, from which `compile` takes its snapshot.

    `static=True` promises that it looks neither at the event nor at what the handler has set before the call; compile checks the
    promise on the events that were traced. Of a method the state is what it returns and the attributes of its object; of a class it
    is `__init__` that is marked.
    Used as `@tidalctl.init` or `@tidalctl.init(static=True)`.
    """
    if function is None:
        return lambda marked: init(marked, static=static)
    if isinstance(function, staticmethod | classmethod):
        return type(function)(init(function.__func__, static=static))
    if isinstance(function, type):
        function.__init__ = init(function.__init__, static=static)  # type: ignore[misc]
        return function
    if (known := getattr(function, "__tidalctl_init__", None)) is not None:
        known.static = known.static or static
        return function
    mark = Init(function, static)

    def call(*arguments: "Any", **keywords: "Any") -> "Any":
        return answer_init(mark, arguments, keywords)

    for name in ("__module__", "__name__", "__qualname__", "__doc__", "__annotations__", "__type_params__"):
        if hasattr(function, name):
            setattr(call, name, getattr(function, name))
    call.__wrapped__ = function  # type: ignore[attr-defined]
    call.__tidalctl_init__ = mark  # type: ignore[attr-defined]
    return call


def as_lines(name: str) -> "tuple[int, int] | None":
    """Return the first and the last line that a name `FIRST-LAST` or `LINE` means, or None where it is another name."""
    first, dash, last = name.partition("-")
    last = last if dash else first
    return (int(first), int(last)) if first.isdecimal() and last.isdecimal() else None


def answer_init(mark: Init, arguments: "tuple[Any, ...]", keywords: "dict[str, Any]") -> "Any":
    """Call an init, or have the call answered."""
    provider = _provider
    return mark.function(*arguments, **keywords) if provider is None else provider(mark, arguments, keywords)


def answer_inits_with(provider: "Provider | None") -> "Provider | None":
    """Let `provider` answer every call of an init from now on; None gives plain calls back. Returns the one before."""
    global _provider
    before, _provider = _provider, provider
    return before
