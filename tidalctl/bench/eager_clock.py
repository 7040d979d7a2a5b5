"""Runs a plain function with nothing of tidalctl around it but the clock and its context. Executed by its path, never imported.

    python eager_clock.py FD ROOT SOURCE MODULE HANDLER EVENT CONTEXT ENCODE SHAPE [ARGUMENT …]

EVENT is a JSON object or the path of a file with one, CONTEXT the JSON of all fields of the handler's context, ENCODE empty unless
outputs are converted to JSON, SHAPE empty for an ordinary handler. Once the function is done, its marks (nanoseconds of the monotonic
clock) and its output go to the file descriptor FD as a line of JSON. Where EVENT is `-`, FD is a socket through which events come, one
after the other; each is answered by such a line.
"""

import time

ENTERED = time.monotonic_ns()

import sys  # noqa: E402 - the clock comes first

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


def main() -> None:
    """What `python app.py` does for a user who has a handler: import, call, print."""
    fd, root, source, module, handler_name, event_text, context_text, encode, shape = sys.argv[1:10]
    sys.argv[:] = [f"{root}/{source}", *sys.argv[10:]]
    if not sys.flags.safe_path:
        sys.path.pop(0)
    sys.path.insert(0, root)
    import importlib
    import json
    import os

    if not event_text.startswith(("{", "-")):
        with open(event_text, encoding="utf-8") as file:
            event_text = file.read()
    requests = [(json.loads(event_text), json.loads(context_text))] if event_text != "-" else _asked(int(fd))
    make_context = _loaded("context").Context
    encoded = _loaded("encoding").encoded if encode else None
    handler = importlib.import_module(module)
    if shape:
        _loaded("shapes/__init__", "shapes")
        handler = _loaded(f"shapes/{shape}", f"shapes.{shape}").handler(handler, handler_name)
    else:
        for part in handler_name.split("."):
            handler = getattr(handler, part)
    imported = time.monotonic_ns()
    for event, fields in requests:
        try:
            told = _answered(handler, event, make_context(fields), encoded)
        except Exception as error:  # raised again, unless more events are to come
            if event_text != "-":
                raise
            told = {"failed": f"{type(error).__name__}: {error}"}
        report = json.dumps({"entered_ns": ENTERED, "imported_ns": imported, **told}).encode() + b"\n"
        while report:
            report = report[os.write(int(fd), report) :]


def _answered(handler: "Any", event: object, context: object, encoded: "Any") -> "dict[str, Any]":
    """Call the handler and print what it gives. Return when the first of it came, when it was done, and all of it."""
    import json
    from collections.abc import Iterator

    first = 0
    result: Any = handler(event, context)
    if hasattr(result, "__await__") or hasattr(result, "__anext__"):
        result = _loaded("event_loop", "event_loop").settled(result)
    streams = isinstance(result, Iterator)
    output: list[object] = []
    for piece in result if streams else (result,):
        if encoded is not None:
            piece = encoded(piece)
        first = first or time.monotonic_ns()
        text = piece if streams and isinstance(piece, str) else json.dumps(piece, ensure_ascii=False) + "\n"
        print(text, end="", flush=True)
        output.append(piece)
    return {"first_token_ns": first or None, "done_ns": time.monotonic_ns(), "output": output if streams else output[0]}


def _asked(fd: int) -> "Iterator[tuple[Any, Any]]":
    """The events that come through a socket, one a line, each with the fields of its context, until its other end is closed."""
    import json

    with open(fd, "rb", closefd=False) as lines:
        for line in lines:
            request = json.loads(line)
            yield request["event"], request["context"]


def _loaded(file: str, name: str = "") -> "Any":
    """Return a module of tidalctl/function, loaded by its path, without the package above it. With `name`, others find it by that."""
    import importlib.util

    if name and f"tidalctl.function.{name}" in sys.modules:
        return sys.modules[f"tidalctl.function.{name}"]
    path = f"{__file__.rpartition('/')[0]}/../function/{file}.py"
    spec = importlib.util.spec_from_file_location(f"tidalctl.function.{name or file}", path)
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    if name:
        sys.modules[module.__name__] = module
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - shown without the frames on the way to the user's, which are ours and importlib's
        frames = error.__traceback__
        while frames is not None and frames.tb_frame.f_globals["__name__"].partition(".")[0] in ("__main__", "importlib"):
            frames = frames.tb_next
        sys.excepthook(type(error), error.with_traceback(frames), frames)
        sys.exit(1)
