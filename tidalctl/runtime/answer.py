"""One event answered by a function from its bundle: the pieces that the handler gives, each when it is known to be right."""

from collections.abc import Generator
from typing import Any, NamedTuple

from tidalctl.artifacts.errors import FunctionError, TidalError
from tidalctl.function.context import make_context
from tidalctl.function.outputs import answer_of, called, is_stream, json_text, pieces
from tidalctl.runtime.load_bundle import guarded
from tidalctl.runtime.template import Template


class Piece(NamedTuple):
    """A piece of an answer: what JSON holds of it, its JSON text, and whether the handler gives a stream of them."""

    value: Any
    text: str
    streamed: bool


def answer_pieces(
    template: Template, event: Any, context: str = "", argv: tuple[str, ...] = (), *, eager: bool = False, again: bool = False
) -> Generator[Piece]:
    """Call the handler, and yield what it gives: one piece, or those of its stream.

    `context` is the JSON text of fields of its context, as `parse_context` gives it. Where the function raises, its traceback goes to
    standard error, and FunctionError is raised from what it raised, without a hint. A piece may leave when it is yielded. The process
    is one that ends with its answer, or answers a few: `again` says that it has answered before.
    """
    timeline, function = template.timeline, template.manifest.function
    number = 0
    template.ends_soon = True
    try:
        handler = template.prepare_again(event) if again else template.prepare(event, argv, eager)
        with timeline.span("compute"):
            result = template.weights.call(called, handler, event, make_context(function.module, event, context))
            streamed = is_stream(result)
            for piece in guarded(pieces(result), template):
                if not streamed:
                    template.requirement.check_used(state_made=template.state_made)
                answer = answer_of(piece, number if streamed else None, encode=function.encode)
                timeline.mark("first token")
                text = json_text(answer, number if streamed else None)
                number += 1
                with timeline.span("print"):
                    yield Piece(answer, text, streamed)
        template.requirement.check_used(state_made=template.state_made)
        timeline.mark("done")
    except (TidalError, GeneratorExit):
        raise
    except (Exception, SystemExit) as error:  # the user's function may raise anything
        template.wait()
        if isinstance(error, BrokenPipeError) and _nobody_reads():
            raise  # it was the function that printed
        from tidalctl.function.tracebacks import show_traceback

        show_traceback(error)
        raise FunctionError(_how_it_ended(error)) from error


def _how_it_ended(error: BaseException) -> str:
    if isinstance(error, SystemExit):  # no exit of ours: with 0 there would be neither an answer nor a word about it
        return f"the function called sys.exit({'' if error.code is None else repr(error.code)})"
    return f"the function raised {type(error).__name__}: {error}"


def _nobody_reads() -> bool:
    """Whether standard output is a pipe whose other end is closed."""
    import select

    asked = select.poll()
    asked.register(1, 0)
    return any(state & select.POLLERR for _, state in asked.poll(0))
