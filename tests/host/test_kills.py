"""`kill -9` at random moments: each event ends in the right answer or in one error, the next is right, and nothing is left behind."""

import contextlib
import http.client
import json
import os
import random
import signal
import subprocess
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from conftest import TIDALCTL, Done, tidalctl
from leaving import KINDS, NUMBERS, Event, Leaving, text_of
from support.http_host import HttpHost, Reply, http_host

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
HTTP_KILLS, KEPT_KILLS = 150, 50
# of the answers that are no right ones, those that tell one thing that went wrong
ERRORS = {(502, "WorkerEnded"), (503, "NotServed")}
KEPT_ERRORS = ("the host ended while it answered", "the function's process was killed by signal 9")


@pytest.fixture(scope="module")
def leaving(tmp_path_factory: pytest.TempPathFactory) -> Leaving:
    return Leaving(tmp_path_factory.mktemp("killed"), 3)


def drawn_event(draw: random.Random) -> Event:
    event: Event = {"n": draw.choice(NUMBERS), "leave": draw.choice(KINDS), "wait": draw.choice([0, 0.05])}
    return {**event, "pieces": draw.randrange(4)} if draw.random() < 0.3 else event


def outcome(leaving: Leaving, event: Event, reply: Reply) -> str:
    """Return how an event ended: rightly, or by which error. Anything else fails."""
    if reply.status != 200:
        error = reply.json["error"]
        assert (reply.status, error["type"]) in ERRORS, reply
        return str(error["type"])
    answer = reply.pieces if "pieces" in event else reply.json
    right = leaving.right(event)
    if text_of(answer) == text_of(right):
        return "right"
    assert "pieces" in event and text_of(answer[:-1]) == text_of(right[: len(answer) - 1]), (event, answer)
    assert answer[-1]["error"]["type"] == "WorkerEnded", (event, answer)
    return "ended amid a stream"


def ask(host: HttpHost, leaving: Leaving, event: Event, outcomes: list[str], killed: threading.Event) -> None:
    """Have an event answered. Where the host itself is `killed`, a connection that ends is an error, too."""
    try:
        outcomes.append(outcome(leaving, event, host.invoke(event)))
    except (OSError, http.client.HTTPException) as error:
        outcomes.append("connection ended" if killed.wait(5) else repr(error))


def victims(host: HttpHost) -> dict[str, list[int]]:
    """Return the processes of a host by what they are."""
    template = int(host.status()["pid"])
    return {"front": [host.process.pid], "template": [template], "worker": [pid for pid in host.processes() if pid != template]}


def kill_some(
    leaving: Leaving, folder: Path, draw: random.Random, kills: Counter[str], outcomes: Counter[str], wanted: int
) -> None:
    """Serve, and kill at random, until the front was killed or there were enough kills."""
    killed = threading.Event()
    with http_host(folder, leaving.made.bundle) as host:
        host.told("ready")
        while kills.total() < wanted and not killed.is_set():
            events, ended = [drawn_event(draw) for _ in range(3)], list[str]()
            who = draw.choices(["worker", "template", "front"], [8, 2, 1])[0]
            asking = [threading.Thread(target=ask, args=(host, leaving, event, ended, killed)) for event in events]
            for thread in asking:
                thread.start()
            time.sleep(draw.uniform(0, 0.4))
            there = victims(host)[who]
            if there:
                kill(draw.choice(there))
                kills[who] += 1
                if who == "front":
                    killed.set()
            for thread in asking:
                thread.join()
            outcomes.update(ended)
            assert len(ended) == len(events)
            if killed.is_set():
                left = host.processes()
                host.process.wait(10)
                until_gone(left)
            else:
                event = drawn_event(draw)
                assert outcome(leaving, event, host.invoke(event)) == "right", "the next one"
        if not killed.is_set():
            left = host.processes()
    until_gone(left)


def kill(pid: int) -> None:
    """Kill a process, and return when all of its threads have ended, though its parent need not know of it yet."""
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGKILL)
        ended = False
        while not ended:
            state, threads = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[number] for number in (0, 17))
            ended = state in "ZX" and int(threads) <= 1


def until_gone(pids: list[int]) -> None:
    """Return when none of the processes is there any more."""
    ends = time.monotonic() + 10
    while there := [pid for pid in pids if Path(f"/proc/{pid}").exists()]:
        assert time.monotonic() < ends, there
        time.sleep(0.02)


def test_whatever_is_killed_of_a_server(leaving: Leaving, tmp_path: Path) -> None:
    draw, kills, outcomes = random.Random(1), Counter[str](), Counter[str]()
    while kills.total() < HTTP_KILLS:
        kill_some(leaving, tmp_path, draw, kills, outcomes, HTTP_KILLS)
    print(kills, outcomes)
    assert outcomes["right"] and set(outcomes) <= {
        "right",
        "WorkerEnded",
        "NotServed",
        "ended amid a stream",
        "connection ended",
    }
    assert kills["worker"] > 50 and kills["template"] > 10 and kills["front"] > 5


def kept_outcome(leaving: Leaving, event: Event, done: Done) -> str:
    """Return how an event ended that the host of `run --keep` was asked for."""
    if done.code == 0:
        report: Any = done.report
        right = leaving.right(event)
        assert text_of(report["output"]) == text_of(right), (event, report["output"])
        return f"right, {report['start']}"
    (error,) = done.lines("error:")
    assert any(known in error for known in KEPT_ERRORS), done
    return error.removeprefix("error: ")


def kept_processes(env: dict[str, str], folder: Path) -> dict[str, list[int]]:
    """Return the processes of the host of `run --keep`, by what they are."""
    told = tidalctl("ps", "--json", cwd=folder, env=env).ok().report
    if not told.get("host"):
        return {}
    templates = [int(template["pid"]) for template in told["templates"] if template["state"] in ("ready", "starting")]
    workers = []
    for template in templates:
        with contextlib.suppress(OSError):
            workers += [int(pid) for pid in Path(f"/proc/{template}/task/{template}/children").read_text().split()]
    return {"front": [int(told["host"])], "template": templates, "worker": workers}


def test_whatever_is_killed_of_a_host_that_is_kept(leaving: Leaving, tmp_path: Path) -> None:
    draw, kills, outcomes = random.Random(2), Counter[str](), Counter[str]()
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}

    def begin(event: Event) -> "subprocess.Popen[str]":
        command = [*TIDALCTL, "run", str(leaving.made.bundle), "--event", json.dumps(event), "--json", "--keep", "1m"]
        environ = {**os.environ, **env}
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path, env=environ)

    def end(event: Event, process: "subprocess.Popen[str]") -> str:
        out, err = process.communicate(timeout=60)
        return kept_outcome(leaving, event, Done(process.returncode, out, err))

    seen: set[int] = set()
    while kills.total() < KEPT_KILLS:
        events = [{**drawn_event(draw), "wait": draw.choice([0.05, 0.6])} for _ in range(2)]
        asking = [begin(event) for event in events]
        time.sleep(draw.uniform(0, 0.6))
        there = kept_processes(env, tmp_path)
        seen.update(pid for pids in there.values() for pid in pids)
        who = draw.choices(["worker", "template", "front"], [5, 2, 2])[0]
        if there.get(who):
            kill(draw.choice(there[who]))
            kills[who] += 1
        outcomes.update(end(event, process) for event, process in zip(events, asking, strict=True))
        event = drawn_event(draw)
        assert end(event, begin(event)).startswith("right"), "the next one"
    there = kept_processes(env, tmp_path)
    os.kill(there["front"][0], signal.SIGKILL)
    until_gone([*seen, *(pid for pids in there.values() for pid in pids)])
    assert sorted(path.name for path in (tmp_path / "tidalctl").iterdir()) == ["host.lock", "host.log", "host.sock"]
    event = drawn_event(draw)
    assert end(event, begin(event)).startswith("right"), "a stale socket is no host"
    front = kept_processes(env, tmp_path)["front"]
    tidalctl("stop", cwd=tmp_path, env=env).ok()
    until_gone(front)
    assert sorted(path.name for path in (tmp_path / "tidalctl").iterdir()) == ["host.lock", "host.log"]
    print(kills, outcomes)
    assert all(kills[who] > 3 for who in ("worker", "template", "front"))
