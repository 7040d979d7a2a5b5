"""Each property of an answering process is whose the design says it is, whichever way the process was started."""

import resource
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import chained, tidalctl
from process_properties import (
    APP,
    Caller,
    Start,
    from_bundle,
    in_thread,
    kept_status,
    plainly,
    readable_by_others,
    started,
    two_at_once,
    until,
)
from support.criu import DUMPS, WITH_CRIU
from support.http_host import http_host

from tidalctl.artifacts.cause import Cause

# ways of importing the function, chosen by marks in the file system, and the starts that are made of each
MARKS = {"forked": ["draw"], "seeded": ["seed"], "spawned": ["thread", "draw"], "spawned, seeded": ["thread", "seed"]}
FORKED = ("keep first", "keep spare", "keep fork", "keep changed", "http spare", "http fork")
IMAGE = ("image",) if DUMPS else ()
SPAWNED = ("keep first", "keep spare", "keep spawn", "keep changed", "http spare", "http spawn", "http changed")
KINDS = {
    "forked": ("run", "moved", *IMAGE, *FORKED),
    "seeded": ("run", *IMAGE, *FORKED, "http changed"),
    "spawned": SPAWNED,
    "spawned, seeded": SPAWNED,
}
WAYS = [pytest.param(way, marks=[pytest.mark.slow] if way != "forked" else []) for way in MARKS]
EACH = [pytest.param(*way.values, kind, marks=way.marks) for way in WAYS for kind in KINDS[str(way.values[0])]]

# what is as in a start of the plain function by the same caller, in whichever way a process was started
AS_PLAIN = (
    *("event", "arguments", "script", "environ", "directory", "umask", "limits", "users", "read at import"),
    *("filled", "threads", "its own threads", "product", "signals", "handlers", "wakeup", "flags", "path", "hooks"),
    *("main thread", "locale", "recursion limit", "warnings", "dumpable", "priority"),
)
OF_LIBC = 3 << 31  # signals 32 and 33, which posix_spawn of the C library leaves ignored


@pytest.fixture(scope="module", autouse=True)
def _hang_ups_are_not_ignored() -> Iterator[None]:
    """A test run that `nohup` has begun would hand that on, and a host does not."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


class Workplace:
    """A folder with a bundle, callers, and the starts that were made in it so far, by way and kind.

    `readable` says of each way whether others may look into the processes of a host: front, template, and a spare.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.marks = folder, folder / "marks"
        self.marks.mkdir()
        self._read("at first")
        self.made = chained(folder / "made", APP.replace("@MARKS@", str(self.marks)), {"given": "traced"})
        self.callers = {
            "first": self._caller("first", 0o022),
            "other": self._caller("other", 0o027, RLIMIT_NOFILE=(300, 500), RLIMIT_CORE=(0, 0), RLIMIT_FSIZE=(2**30, 2**31)),
            "host": self._caller("host", 0o037, RLIMIT_NOFILE=(310, 510)),
        }
        self.made.env.update(self.callers["first"].variables)
        self._starts: dict[str, dict[str, Start]] = {}
        self.readable: dict[str, list[bool]] = {}

    def _caller(self, name: str, umask: int, **limits: tuple[int, int]) -> Caller:
        (self.folder / name).mkdir()
        return Caller(self.folder / name, umask, {"XDG_RUNTIME_DIR": str(self.folder), "GIVEN": name, **WITH_CRIU}, limits)

    def _read(self, text: str) -> None:
        (self.marks / "read").write_text(text)

    def caller(self, kind: str) -> Caller:
        """Return who has made a start of a kind, or whose host has."""
        return self.callers["host" if kind.startswith("http") else "first" if kind == "keep first" else "other"]

    def starts(self, way: str) -> dict[str, Start]:
        """Return the starts by kind, which are made once."""
        if way not in self._starts:
            for mark in MARKS[way]:
                (self.marks / mark).touch()
            self.readable[way] = []
            self._starts[way] = dict([*self._ordinary(way), *self._kept(way), *self._served(way)])
            for mark in MARKS[way]:
                (self.marks / mark).unlink()
        return self._starts[way]

    def _ordinary(self, way: str) -> Iterator[tuple[str, Start]]:
        other = self.callers["other"]
        yield "plain", plainly(self.made, other)
        yield "run", started(from_bundle(self.made.bundle, other, given="run"))
        if "image" in KINDS[way]:
            tidalctl("image", self.made.bundle, cwd=self.folder, env={**self.made.env, **WITH_CRIU}).ok()
            yield "image", started(from_bundle(self.made.bundle, other, "--image", "require", given="image"))
            tidalctl("image", self.made.bundle, "--remove", cwd=self.folder).ok()
        if "moved" in KINDS[way]:
            moved = Path(shutil.copytree(self.made.bundle, self.folder / "moved.bundle"))
            self.made.project.rename(self.folder / "away")
            yield "moved", started(from_bundle(moved, other, given="moved"))
            (self.folder / "away").rename(self.made.project)

    def _kept(self, way: str) -> Iterator[tuple[str, Start]]:
        bundle, first, other = self.made.bundle, self.callers["first"], self.callers["other"]

        def begin(hold: Path) -> Callable[[], Start]:
            process = from_bundle(bundle, other, "--keep", "1m", given="keep", hold=str(hold))
            return lambda: started(process)

        try:
            yield "keep first", started(from_bundle(bundle, first, "--keep", "1m", given="keep"))
            until(lambda: kept_status(self.made)["spares"])
            for kind, start in two_at_once(begin, lambda: int(kept_status(self.made)["running"]), self.folder).items():
                yield f"keep {kind}", start
            self._read("changed")
            yield "keep changed", started(from_bundle(bundle, other, "--keep", "1m", given="keep"))
            words = ("--keep", "1m", "--", "one", "two")
            yield "keep arguments", started(from_bundle(bundle, other, *words))
        finally:
            self._read("at first")
            tidalctl("stop", cwd=self.folder, env=self.made.env)

    def _served(self, way: str) -> Iterator[tuple[str, Start]]:
        caller = self.callers["host"]

        def ask(**event: str) -> Start:
            reply = host.invoke({"given": "http", **event})
            return Start(reply.start, reply.pieces)

        with http_host(caller.directory, self.made.bundle, env=caller.variables, preexec=caller.enter) as host:
            (ready,) = host.told("ready")
            assert ready["cause"] == (Cause.THREADS_NOT_FORKED.code if "thread" in MARKS[way] else None)
            ask()
            host.spare_ready()
            self.readable[way] = readable_by_others(caller, [host.process.pid, *host.processes()])
            begin = lambda hold: in_thread(lambda: ask(hold=str(hold)))  # noqa: E731
            for kind, start in two_at_once(begin, lambda: int(host.status()["running"]), self.folder).items():
                yield f"http {kind}", start
            if "http changed" in KINDS[way]:
                self._read("changed")
                yield "http changed", ask()
        self._read("at first")


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Workplace:
    return Workplace(tmp_path_factory.mktemp("conformance"))


@pytest.mark.parametrize(("way", "kind"), EACH)
def test_each_property_is_whose_the_design_says(workplace: Workplace, way: str, kind: str) -> None:
    starts, caller = workplace.starts(way), workplace.caller(kind)
    start, plain, run = starts[kind], starts["plain"], starts["run"]
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    limits |= caller.limits
    limits["RLIMIT_OFILE"] = limits["RLIMIT_NOFILE"]
    for look, other in zip(start.looks, plain.looks, strict=True):
        look["signals"]["SigIgn"] &= ~OF_LIBC
        other["signals"]["SigIgn"] &= ~OF_LIBC
        expected = {
            **other,
            "event": kind.split()[0],
            "environ": other["environ"] | caller.variables,
            "directory": str(caller.directory),
            "umask": caller.umask,
            "limits": {name: [*limit] for name, limit in limits.items()},
            "read at import": "changed" if kind.endswith("changed") else "at first",
        }
        assert {name: look[name] for name in AS_PLAIN} == {name: expected[name] for name in AS_PLAIN}
    before, after = start.looks
    assert before["environ"]["SET_BY_IMPORT"] == "import"
    assert (before["filled"], before["environ"].get("SET_BY_INIT")) == ([], None), "init was not called yet"
    assert (after["filled"], after["environ"]["SET_BY_INIT"], after["recursion limit"]) == (["init"], "init", 2345)
    assert (after["output"], after["torch"]) == (plain.looks[1]["output"], plain.looks[1]["torch"])
    assert before["collector"] == run.looks[0]["collector"] and after["collector"] == plain.looks[1]["collector"]
    if kind.startswith(("keep", "http")):
        pid, _, group, session = before["process"]
        assert pid == group == session, "a session of its own"


@pytest.mark.parametrize("way", WAYS)
def test_global_generators_are_fresh_unless_imports_seed_them(workplace: Workplace, way: str) -> None:
    looks = [start.looks[0] for start in workplace.starts(way).values()]
    drawn = [[*look["random"], *look["torch"]] for look in looks]
    if "seed" in MARKS[way]:
        assert drawn == [drawn[0]] * len(drawn)
    else:
        assert len({number for one in drawn for number in one}) == 6 * len(drawn)


@pytest.mark.parametrize(("way", "kind"), EACH)
def test_descriptors_are_the_callers_and_files_of_the_bundle(workplace: Workplace, way: str, kind: str) -> None:
    look = workplace.starts(way)[kind].looks[0]
    places = {int(number): str(place) for number, place in look["descriptors"].items()}
    streams, others = [places.pop(number) for number in range(3)], list(places.values())
    others = [place for place in others if ".bundle/" not in place]
    if kind.startswith("http"):
        assert streams == ["/dev/null", *[str(workplace.caller(kind).directory / "host.log")] * 2]
        assert [place.partition(":")[0] for place in others] == ["socket"], "that of the answer alone"
    else:  # --json gives standard output to the report, and the function standard error for it
        assert streams[1] == streams[2] and len({*streams, *others}) == 3
        assert {place.partition(":")[0] for place in [*streams, *others]} == {"pipe"}
    assert look["streams"] == workplace.starts(way)["run" if not kind.startswith("http") else "plain"].looks[0]["streams"]


def test_arguments_are_the_callers(workplace: Workplace) -> None:
    start = workplace.starts("forked")["keep arguments"]
    assert start.kind in ("fork", "spare") and start.looks[0]["arguments"] == ["one", "two"]


def test_nobody_looks_into_front_or_template(workplace: Workplace) -> None:
    workplace.starts("forked")
    assert workplace.readable["forked"] == [False, False, True], "a worker is as any process"
