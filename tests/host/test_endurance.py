"""Many events: none wrong, none lost, and afterwards everything that a host holds is as it was before."""

import json
import os
import random
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import tidalctl
from leaving import KINDS, NUMBERS, Event, Leaving, text_of
from support.http_host import http_host

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
OWN = ("Pss_Anon:", "Pss_Shmem:")
WARM_UP, SERVED, KEPT = 100, 2000, 200


class Held(NamedTuple):
    """What the processes of a host hold: how many there are, their descriptors and sockets, files in their folders, and bytes.

    `memory` is the sum of their proportional set sizes. Of it, `own` is what no file has: what they map of files is shared with
    whatever else maps them at this moment.
    """

    processes: int
    descriptors: int
    sockets: int
    files: list[str]
    shared_memory: list[str]
    memory: int
    own: int


def held(pids: list[int], *folders: Path) -> Held:
    descriptors = [descriptor for pid in pids for descriptor in Path(f"/proc/{pid}/fd").iterdir()]
    sockets = [descriptor for descriptor in descriptors if stat.S_ISSOCK(descriptor.stat().st_mode)]
    files = sorted(str(path) for folder in folders for path in folder.rglob("*"))
    rollups = [Path(f"/proc/{pid}/smaps_rollup").read_text() for pid in pids]
    sizes = [line.split() for text in rollups for line in text.splitlines()[1:]]
    memory, own = (sum(int(size) * 1024 for name, size, _ in sizes if name in kinds) for kinds in (["Pss:"], OWN))
    return Held(len(pids), len(descriptors), len(sockets), files, sorted(os.listdir("/dev/shm")), memory, own)


def settled(look: Callable[[], Held], before: Held | None = None) -> Held:
    """Return what is held when it is as before, or else when some seconds have passed."""
    ends = time.monotonic() + 10
    found = look()
    while time.monotonic() < ends and (before is None or found[:5] != before[:5]):
        time.sleep(0.5)
        found = look()
    return found


def drawn_events(seed: int, count: int) -> list[Event]:
    draw = random.Random(seed)
    events: list[Event] = [{"n": draw.choice(NUMBERS), "leave": draw.choice(KINDS)} for _ in range(count)]
    return [{**event, "pieces": draw.randrange(4)} if draw.random() < 0.2 else event for event in events]


def check(before: Held, after: Held) -> None:
    print(before._replace(files=[]), after._replace(files=[]))
    assert after[:5] == before[:5]
    assert abs(after.own - before.own) < 0.02 * before.own
    assert after.memory - before.memory < 0.02 * before.memory


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Leaving:
    return Leaving(tmp_path_factory.mktemp("endured"), 3)


@pytest.fixture
def temporary_files(tmp_path: Path) -> Iterator[Path]:
    """A folder for temporary files of the host and its workers."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder


def test_a_server_holds_after_many_events_what_it_held_before(leaving: Leaving, tmp_path: Path, temporary_files: Path) -> None:
    with http_host(tmp_path, leaving.made.bundle, "--concurrency", "4", env={"TMPDIR": str(temporary_files)}) as host:
        host.told("ready")

        def ask(event: Event) -> bool:
            reply = host.invoke(event)
            answer: Any = reply.pieces if "pieces" in event else reply.json
            return reply.status == 200 and text_of(answer) == text_of(leaving.right(event))

        def look() -> Held:
            host.until(lambda: host.status()["running"] == 0)
            host.spare_ready()
            return held([host.process.pid, *host.processes()], tmp_path, leaving.made.bundle)

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, drawn_events(1, WARM_UP)))
            before = settled(look)
            began = time.monotonic()
            right = list(pool.map(ask, drawn_events(2, SERVED)))
            print(f"{SERVED} events in {time.monotonic() - began:.0f} s")
        assert right == [True] * SERVED
        check(before, settled(look, before))
        assert host.status()["answered"] == WARM_UP + SERVED


def test_a_host_that_is_kept_holds_after_many_events_what_it_held_before(
    leaving: Leaving, tmp_path: Path, temporary_files: Path
) -> None:
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(temporary_files)}

    def ask(event: Event) -> bool:
        words = ("run", leaving.made.bundle, "--event", json.dumps(event), "--json", "--keep", "1m")
        report = tidalctl(*words, cwd=tmp_path, env=env).ok().report
        return report["start"] in ("fork", "spare") and text_of(report["output"]) == text_of(leaving.right(event))

    def look() -> Held:
        told = tidalctl("ps", "--json", cwd=tmp_path, env=env).ok().report
        (template,) = told["templates"]
        children = Path(f"/proc/{template['pid']}/task/{template['pid']}/children").read_text().split()
        return held([int(told["host"]), int(template["pid"]), *map(int, children)], tmp_path, leaving.made.bundle)

    try:
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(ask, drawn_events(3, WARM_UP // 2)))
            before = settled(look)
            right = list(pool.map(ask, drawn_events(4, KEPT)))
        assert right == [True] * KEPT
        check(before, settled(look, before))
    finally:
        tidalctl("stop", cwd=tmp_path, env=env)
