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
from tidalctl.artifacts.project import inside, installed
from tidalctl.artifacts.records import Record
from tidalctl.artifacts.trace.file import Trace
from tidalctl.artifacts.trace.records import FileOpened, Header
from tidalctl.compiler.code.shipment import Shipment
from tidalctl.compiler.traced_files import event_texts, lies_outside, named_by_events, phases_of_use
from tidalctl.function.project_places import marked


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
        return msgspec.structs.replace(header, argv=tuple(marked(argument, places) for argument in header.argv))

    def at_home(self, output: Any) -> Any:
        """Return an output as it is at home: a function may answer with a path of its project."""
        here, there = (json.dumps(folder)[1:-1] for folder in (f"{self.bundle}/{CODE}", self.root))
        return json.loads(json.dumps(output).replace(here, there))

    def without_folders(self, text: str) -> str:
        """Return a text that goes into the bundle without the folders of this machine, which are others each time."""
        return text.replace(f"{self.bundle}/", "bundle/").replace(inside(self.root), "project/")

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
    yield from (text for text in event_texts(trace) if text.startswith("/") and os.path.exists(text))
    of_an_event = named_by_events(trace)
    yield from (r.path for r in trace.of(FileOpened) if r.given and (of_an_event(r) or not os.path.isabs(r.given)))


def _hidden(trace: Trace) -> Iterator[str]:
    """Yield files outside the project that init alone has used, and that no event names."""
    used, of_an_event = phases_of_use(trace), named_by_events(trace)
    for record in trace.of(FileOpened):
        elsewhere = lies_outside(record.path, trace.header.root)
        if used.get(record.path) == {"init"} and elsewhere and not of_an_event(record) and os.path.isfile(record.path):
            yield record.path
