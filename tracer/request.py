"""What `trace` asks of the traced process."""

from tidalctl.artifacts.records import Function, Record


class Request(Record, frozen=True):
    """`events` are JSON texts, as is `context`, the fields that `--context` gives; `partial` is where the trace grows.

    With `once` the handler is called once for each event, and not again. With `discover` all that is wanted is what could be named as
    init: a handler is called once at most.
    """

    function: Function
    root: str
    argv: tuple[str, ...]
    events: tuple[str, ...]
    partial: str
    context: str = ""
    once: bool = False
    discover: bool = False
    vary: tuple[str, ...] = ()
    tensorboard: str = ""
