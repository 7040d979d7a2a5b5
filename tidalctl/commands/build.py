"""`tidalctl build`: trace and compile as one, with the settings of a project's pyproject.toml."""

import inspect
from pathlib import Path
from typing import Annotated, Any

import typer

from tidalctl.artifacts.bundle.output_paths import refuse_existing
from tidalctl.artifacts.errors import CheckFailed, TidalError
from tidalctl.commands.compile import compile as compile_verb
from tidalctl.commands.project_settings import PROJECT_FILE, read_settings
from tidalctl.commands.trace import trace as trace_verb

OWN = ("context", "target", "event", "output", "check", "force", "as_json")
UNSHARED = ("traces", "vary")  # of compile's: there is one trace, which has the fields that vary


def build(**given: Any) -> None:
    """Trace a function and compile its bundle, in one step.

    Takes the options of both. The trace lies beside the bundle. What is not given is taken from [tool.tidalctl] of the
    pyproject.toml in this folder or above it. The handler is called as often as by trace and compile. With --check nothing is
    run: it says whether a bundle is what this source, these packages and this environment would give. Arguments after -- reach
    the function's sys.argv.
    """
    context: typer.Context = given.pop("context")
    settings = read_settings(Path.cwd())
    said = {name for name in given if getattr(context.get_parameter_source(name), "name", "") == "COMMANDLINE"}
    chosen = {
        name: settings.options[name] if name in settings.options and name not in said else value
        for name, value in given.items()
    }
    target, events, output = chosen.pop("target"), chosen.pop("event"), chosen.pop("output")
    check, force, as_json = chosen.pop("check"), chosen.pop("force"), chosen.pop("as_json")
    if check is not None:
        _check(check, tuple(context.args), as_json=as_json)
        return
    if not target:
        raise TidalError(
            "no function to build", f"tidalctl build app.py -e EVENT; or target in [tool.tidalctl] of {PROJECT_FILE}"
        )
    if not events:
        raise TidalError("no event to trace", f"give --event; or events in [tool.tidalctl] of {PROJECT_FILE}")
    output = Path(output or f"{_name(target)}.bundle")
    traced = output.with_name(f"{output.name.removesuffix('.bundle')}.trace")
    refuse_existing(output, force, "bundle")  # before the function is run
    trace_options = {name: chosen[name] for name in _parameters(trace_verb) if name in chosen}
    compile_options = {name: chosen[name] for name in _parameters(compile_verb) if name in chosen and name not in UNSHARED}
    trace_verb(context, target=target, event=events, output=traced, force=True, as_json=False, **trace_options)
    compile_verb([traced], output=output, force=force, as_json=as_json, vary=None, **compile_options)


def _name(target: str) -> str:
    place = target.partition(":")[0]
    return Path(place).stem if place.endswith(".py") else place.rpartition(".")[2]


def _check(bundle: Path, argv: tuple[str, ...], *, as_json: bool) -> None:
    """Say whether a bundle is what a build would give now. Raises CheckFailed where it is not. Nothing of the function is run."""
    import json

    from tidalctl.artifacts.bundle.directory import open_bundle
    from tidalctl.artifacts.bundle.provenance import ProjectChanged, changed_files, project_of, read_provenance
    from tidalctl.runtime.here import look_here

    manifest = open_bundle(bundle)
    try:
        changed = changed_files(manifest, project_of(read_provenance(bundle), manifest))
    except ProjectChanged:
        changed = [manifest.function.source]
    place = look_here(bundle, manifest, argv)
    found = [f"{name} has changed" for name in changed] + list(place.refused) + [str(reason) for reason in place.mismatches]
    if as_json:
        typer.echo(json.dumps({"schema": 1, "bundle": str(bundle), "current": not found, "differences": found}))
    else:
        for line in found:
            typer.echo(f"  {line}")
    if found:
        raise CheckFailed(f"{bundle} is not what a build would give now ({len(found)} differ)", "build it again: --force")
    if not as_json:
        typer.echo(
            f"{bundle} is what this source, these packages and this environment give (events and options are not compared)"
        )


def _parameters(verb: Any) -> dict[str, inspect.Parameter]:
    return dict(inspect.signature(verb).parameters)


def _signature() -> inspect.Signature:
    """Return the parameters of `build`: its own, then those of trace and compile."""
    traced = _parameters(trace_verb)
    shared = traced | {name: parameter for name, parameter in _parameters(compile_verb).items() if name not in traced}
    own = {
        "context": shared["context"].replace(kind=inspect.Parameter.KEYWORD_ONLY),
        "target": Annotated[str, typer.Argument(metavar="TARGET", help="As for trace.  [default: of pyproject.toml]")],
        "event": Annotated[
            list[str] | None,
            typer.Option("--event", "-e", metavar="JSON|FILE|-", help="The request, as for trace. Repeatable."),
        ],
        "output": Annotated[Path | None, typer.Option("--output", "-o", help="Where the bundle goes.  [default: NAME.bundle]")],
        "check": Annotated[
            Path | None,
            typer.Option(
                "--check", metavar="BUNDLE", help="Say whether this bundle is what a build would give now; run nothing."
            ),
        ],
        "force": Annotated[bool, typer.Option("--force", help="Replace a bundle that exists.")],
        "as_json": Annotated[bool, typer.Option("--json", help="Print one JSON object, as compile does.")],
    }
    defaults = {"target": "", "event": None, "output": None, "check": None, "force": False, "as_json": False}
    keyword = inspect.Parameter.KEYWORD_ONLY
    parameters = [
        kind
        if isinstance(kind, inspect.Parameter)
        else inspect.Parameter(name, keyword, default=defaults[name], annotation=kind)
        for name, kind in own.items()
    ]
    parameters += [parameter.replace(kind=keyword) for name, parameter in shared.items() if name not in (*OWN, "traces")]
    return inspect.Signature(parameters)


SIGNATURE = _signature()
build.__signature__ = SIGNATURE  # type: ignore[attr-defined]
build.__annotations__ = {parameter.name: parameter.annotation for parameter in SIGNATURE.parameters.values()}
