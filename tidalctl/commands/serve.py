"""`tidalctl serve`: a host that answers HTTP."""

import json
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer

from tidalctl.artifacts.errors import TidalError
from tidalctl.commands.duration import parse_duration
from tidalctl.commands.size import parse_size
from tidalctl.function.near_names import near_names

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    bundles: Annotated[
        list[Path] | None,
        typer.Argument(metavar="BUNDLE", help="Bundles to serve, each under the name of its folder: app.bundle as app."),
    ] = None,
    name: Annotated[
        list[str] | None, typer.Option("--name", metavar="NAME=BUNDLE", help="Serve a bundle under a name. Repeatable.")
    ] = None,
    listen: Annotated[
        str | None,
        typer.Option(
            "--listen", metavar="HOST:PORT", help="Where to answer; port 0 takes a free one.  [default: 127.0.0.1:8707]"
        ),
    ] = None,
    unix: Annotated[
        Path | None,
        typer.Option("--unix", metavar="PATH", help="Answer HTTP on this Unix socket, too; alone without --listen."),
    ] = None,
    spares: Annotated[int, typer.Option("--spares", min=0, help="Workers that are ready ahead, for each function in use.")] = 1,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", min=1, help="Events that are answered at a time.  [default: the processors]")
    ] = None,
    queue: Annotated[int, typer.Option("--queue", min=0, help="Events that wait beyond that; others are told to retry.")] = 64,
    memory: Annotated[
        str,
        typer.Option("--memory", metavar="SIZE", help="What templates and workers may hold: 8GB.  [default: no bound]"),
    ] = "",
    keep_alive: Annotated[
        str,
        typer.Option(
            "--keep-alive",
            metavar="TIME",
            help="How long a worker that has answered stays for other events of its function, which meet what it has left.",
        ),
    ] = "",
    timeout: Annotated[str, typer.Option("--timeout", metavar="TIME", help="How long an answer may take.")] = "60s",
    max_body: Annotated[str, typer.Option("--max-body", metavar="SIZE", help="The largest event.")] = "6MiB",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file", metavar="FILE", help="Answer those alone who send the token in this file, as a bearer token."
        ),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host", metavar="NAME", help="A name by which this host is reached, for its Host header. Repeatable."
        ),
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Put tracebacks of the function into answers.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what happens as lines of JSON on standard output.")] = False,
) -> int:
    """Answer events over HTTP, each in a process of its own.

    Templates are kept ready for them. POST /functions/NAME/invocations takes an event as JSON. SIGTERM ends the host when what runs
    has been answered; SIGHUP looks at the bundles again. What functions print goes to standard error.
    """
    try:
        from tidalctl.host.http.answer import ServeOptions
        from tidalctl.host.serve import HostSettings, serve_host, tell_plainly
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] not in ("starlette", "uvicorn", "prometheus_client"):
            raise
        raise TidalError(
            f"serve needs {error.name}, which is not installed", "pip install '/path/to/tidalctl[serve]'"
        ) from None
    address = _address(listen) if listen is not None or unix is None else None
    token = _token(token_file) if token_file is not None else None
    reached_at = address[0] if address is not None else "localhost"
    open_to_others = reached_at not in LOOPBACK
    settings = HostSettings(
        bundles=_functions(bundles or [], name or []),
        address=address,
        unix=unix.absolute() if unix is not None else None,
        token=token,
        allowed_hosts=tuple(allow_host or ()),
        spares=spares,
        concurrency=concurrency or os.cpu_count() or 1,
        queue=queue,
        memory=parse_size("--memory", memory, "8GB") if memory else None,
        options=ServeOptions(
            timeout_s=parse_duration("--timeout", timeout, "60s"),
            keep_alive_s=parse_duration("--keep-alive", keep_alive, "60s") if keep_alive else 0.0,
            max_body=parse_size("--max-body", max_body, "6MiB"),
            debug=debug,
            terse=open_to_others,
        ),
    )
    if open_to_others and token is None:
        typer.echo(f"warning: whoever reaches {reached_at} may have functions run: see --token-file", err=True)
    return serve_host(settings, _tell_json if as_json else tell_plainly)


def _tell_json(event: dict[str, Any]) -> None:
    typer.echo(json.dumps({"schema": 1, **event}, ensure_ascii=False))


def _functions(bundles: list[Path], named: list[str]) -> dict[str, str]:
    """Return the bundles by the names of their functions. Raises TidalError for a name that is none, or stands twice."""
    pairs = [(bundle.absolute().name.removesuffix(".bundle"), bundle) for bundle in bundles]
    for text in named:
        name, equals, path = text.partition("=")
        if not equals or not path:
            raise TidalError(f"--name {text!r} names no bundle", "for example: --name app=app.bundle")
        pairs.append((name, Path(path)))
    if not pairs:
        raise TidalError("there is no bundle to serve", "for example: tidalctl serve app.bundle")
    found: dict[str, str] = {}
    for name, bundle in pairs:
        if "=" in str(bundle) and not bundle.exists():
            raise TidalError(f"no bundle at {bundle}", f"a name is given so: --name {bundle}")
        if not NAME.fullmatch(name):
            raise TidalError(f"{name!r} can't be a function's name: letters, digits, and _ . -", f"--name app={bundle}")
        if name in found:
            raise TidalError(f"two functions would be {name}", f"for example: --name {name}-2={bundle}")
        if not bundle.is_dir():
            made = f"make one of it: tidalctl compile {bundle}" if bundle.is_file() else _near_bundles(bundle)
            raise TidalError(f"no bundle at {bundle}", made)
        found[name] = str(bundle.absolute())
    return found


def _near_bundles(bundle: Path) -> str:
    near = near_names(bundle.name, (path.name for path in bundle.absolute().parent.glob("*.bundle")))
    return f"did you mean: {', '.join(near)}" if near else "make one: tidalctl trace, then tidalctl compile"


def _address(text: str | None) -> tuple[str, int]:
    host, colon, port = (text or "127.0.0.1:8707").rpartition(":")
    if not colon or not host or not port.isdecimal() or int(port) > 65535:
        raise TidalError(f"--listen {text!r} is no address", "for example: --listen 127.0.0.1:8707")
    return host.strip("[]"), int(port)


def _token(file: Path) -> str:
    """Return the token in a file. Raises TidalError where there is none, or others may read it.

    The group of a file of root's may: platforms mount secrets so, for a service that is not root.
    """
    try:
        text, status = file.read_text(encoding="utf-8").strip(), file.stat()
    except (OSError, UnicodeError) as error:
        raise TidalError(
            f"--token-file {file}: {error}", "for example: openssl rand -hex 32 > token; chmod 600 token"
        ) from None
    if status.st_mode & (0o037 if status.st_uid == 0 else 0o077):
        raise TidalError(f"others may read {file}", f"chmod 600 {file}")
    if len(text) < 16 or not text.isascii() or not text.isprintable() or " " in text:
        raise TidalError(f"{file} holds no token of 16 or more letters and digits", "for example: openssl rand -hex 32 > token")
    return text
