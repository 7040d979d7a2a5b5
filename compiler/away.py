"""A bundle away from home: its files at another place, and the process that answers from there with the project out of reach."""

import importlib.util
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.artifacts.bundle.manifest import CODE
from tidalctl.artifacts.project import inside, installed, is_own
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, Header
from tidalctl.compiler.code.shipment import SYSTEM, Shipment, of_a_request
from tidalctl.compiler.dynamic.answers import texts_in
from tidalctl.function.working_environment import marked


class Away(Record, frozen=True):
    """Where the bundle lies, and what its process sees: see away_child.py.

    `root` is covered; in it only what is `kept` is seen. `hidden` are files outside of it. `told` is made where the kernel forbids
    that.
    """

    bundle: str
    root: str
    kept: tuple[str, ...]
    hidden: tuple[str, ...]
    scratch: str
    told: str

    @property
    def command(self) -> tuple[str, ...]:
        """How the process is run, to be followed by the arguments of tidalctl."""
        request = {name: getattr(self, name) for name in ("root", "kept", "hidden", "scratch", "told")}
        return (sys.executable, "-P", "-m", "tidalctl.compiler.away_child", json.dumps(request))

    def header(self, header: Header) -> Header:
        """Return the header with arguments as somebody would give them here: paths in the project lie in the bundle."""
        places = [(self.root, f"{self.bundle}/{CODE}")]
        return msgspec.structs.replace(header, argv=tuple(str(marked(argument, places)) for argument in header.argv))

    def at_home(self, output: Any) -> Any:
        """Return an output as it is at home: a function may answer with a path of its project."""
        here, there = (json.dumps(folder)[1:-1] for folder in (f"{self.bundle}/{CODE}", self.root))
        return json.loads(json.dumps(output).replace(here, there))

    @property
    def native(self) -> bool:
        """Whether the files were out of reach for libraries, too, in the runs until now."""
        return not os.path.exists(self.told)


def lay_away(partial: Path, work: Path, trace: Trace, shipment: Shipment, *, hide: bool) -> Away:
    """Link a bundle's files into `work`, with the secrets that a machine has where it runs. With `hide`, init's files are hidden."""
    bundle, scratch = work / "moved.bundle", work / "scratch"
    if bundle.exists():
        shutil.rmtree(bundle)
    shutil.copytree(partial, bundle, copy_function=_link)
    root = Path(trace.header.root)
    for name in shipment.secrets:
        (bundle / CODE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / name, bundle / CODE / name)
    scratch.mkdir(exist_ok=True)
    begin = inside(str(root))
    return Away(
        bundle=str(bundle),
        root=str(root),
        kept=tuple(path for path in dict.fromkeys([str(work), *_kept(trace)]) if path.startswith(begin) and path != str(root)),
        hidden=tuple(_hidden(trace)) if hide else (),
        scratch=str(scratch),
        told=str(work / "native"),
    )


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _kept(trace: Trace) -> Iterator[str]:
    """Yield what a start may use within the project: the environment, our own modules, the event's files, and what `cwd` names."""
    yield from (sys.prefix, sys.base_prefix, *installed(), *filter(None, sys.path), tempfile.gettempdir())
    for package in ("tidalctl", "tidalctl.artifacts", "tidalctl.compiler", "tidalctl.tracer"):
        found = importlib.util.find_spec(package)
        yield from (found.submodule_search_locations or ()) if found is not None else ()
    for event in trace.header.events:
        for text in texts_in(json.loads(event.text)):
            if text.startswith("/") and os.path.exists(text):
                yield text
    for record in trace.of(FileOpened):
        if record.given and (of_a_request(record.given, trace) or not os.path.isabs(record.given)):
            yield record.path


def _hidden(trace: Trace) -> Iterator[str]:
    """Yield files outside the project that init alone has read, and that no event names."""
    phases: dict[str, set[str]] = {}
    for record in trace.of(FileOpened):
        phases.setdefault(record.path, set()).add(record.phase)
        if of_a_request(record.given, trace):
            phases[record.path].add("event")
    for path, seen in phases.items():
        elsewhere = not path.startswith((*installed(), *SYSTEM)) and not is_own(path, trace.header.root)
        if seen == {"init"} and elsewhere and os.path.isfile(path) and not path.startswith(inside(trace.header.root)):
            yield path
