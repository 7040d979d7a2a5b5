"""The command line: the verbs, and how mistakes in calling them are told."""

import importlib
from typing import Annotated, Any

import typer
import typer.core

from tidalctl import __version__
from tidalctl.artifacts.errors import TidalError

VERBS = (
    "build",
    "trace",
    "compile",
    "image",
    "run",
    "inspect",
    "diff",
    "plan",
    "verify",
    "bench",
    "replay",
    "serve",
    "ps",
    "stop",
)
TAKES_ARGUMENTS = ("build", "trace", "run", "verify", "bench")  # what stands after -- reaches the function
# click's, which typer exports under no name, and keeps in one place or another by its version
_UsageMistake: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


class _Verb(typer.core.TyperCommand):
    """Its usage names arguments as its help does: TARGET, where typer would put braces around them."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        return [piece.translate({ord("{"): None, ord("}"): None}) for piece in super().collect_usage_pieces(ctx)]


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tidalctl {__version__}")
        raise typer.Exit


def _app() -> typer.Typer:
    app = typer.Typer(
        name="tidalctl",
        help="Makes LLM functions start fast: trace once, compile a template bundle, run from it.",
        add_completion=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )

    @app.callback()
    def root(
        version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    ) -> None:
        pass

    for verb in VERBS:
        module = importlib.import_module(f"tidalctl.commands.{verb}")
        app.command(verb, cls=_Verb, context_settings={"allow_extra_args": verb in TAKES_ARGUMENTS})(getattr(module, verb))
    return app


def main(arguments: list[str]) -> int:
    """Run one command; without any, show the help. Usage mistakes come out as TidalErrors, so that all errors look alike."""
    command = typer.main.get_command(_app())
    try:
        result = command.main(args=arguments or ["--help"], prog_name="tidalctl", standalone_mode=False)
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):  # typer has caught it
            raise error.__context__ from None
        return error.code if isinstance(error.code, int) else 1
    except _UsageMistake as error:
        context = getattr(error, "ctx", None)
        verb = arguments[0] if arguments[:1] and arguments[0] in VERBS else ""  # the parser of options gives no context
        path = context.command_path if context is not None else f"tidalctl {verb}".strip()
        # "Value error, " is what typer's own checker puts before what a choice is not one of
        raise TidalError(error.format_message().replace("Value error, ", ""), f"see: {path} --help") from None
    if result == 130:
        raise KeyboardInterrupt  # typer has caught it
    return result if isinstance(result, int) else 0
