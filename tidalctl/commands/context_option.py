"""The option of the verbs that call a handler: fields of its context."""

import typer

CONTEXT = typer.Option(
    "--context",
    metavar="JSON|FILE",
    help="Fields of the handler's context: a JSON object, or a file with one.",
    show_default=False,
)
