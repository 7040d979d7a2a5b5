"""Whatever happens to a host, each event is answered as by a fresh process, or by one error, and the next is right."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from conftest import TIDALCTL, tidalctl
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test
from leaving import KINDS, NUMBERS, Event, Leaving, text_of
from support.http_host import http_host
from test_kills import KEPT_ERRORS, kill, until_gone

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
NAMES = st.sampled_from(["one", "two"])
EVENTS = st.fixed_dictionaries(
    {"n": st.sampled_from(NUMBERS), "leave": st.sampled_from(KINDS)}, optional={"pieces": st.integers(0, 3)}
)


@pytest.fixture(scope="module")
def versions(tmp_path_factory: pytest.TempPathFactory) -> list[Leaving]:
    """Two bundles that differ in a constant."""
    return [Leaving(tmp_path_factory.mktemp(f"scale{scale}"), scale) for scale in (3, 5)]


class HostMachine(RuleBasedStateMachine):
    """Two functions, each served over HTTP and by a host that is kept, from bundles that change.

    The model: `served` and `on_disk` are the versions of each function that a server answers from, and that its bundle is.
    """

    versions: list[Leaving]

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(prefix="host-property"))
        self.on_disk = {"one": 0, "two": 1}
        for name, version in self.on_disk.items():
            shutil.copytree(self.versions[version].made.bundle, self.bundle(name))
        self.served = dict(self.on_disk)
        self.env = {"XDG_RUNTIME_DIR": str(self.folder)}
        self.seen: set[int] = set()
        self.serving = http_host(self.folder, self.bundle("one"), self.bundle("two"), env=self.env)
        self.host = self.serving.__enter__()
        self.host.told("ready", 2)

    def teardown(self) -> None:
        self.look()
        tidalctl("stop", cwd=self.folder, env=self.env)
        self.serving.__exit__(None, None, None)
        until_gone([*self.seen])
        shutil.rmtree(self.folder)

    def bundle(self, name: str) -> Path:
        return self.folder / f"{name}.bundle"

    def look(self) -> None:
        """Note the processes that there are, none of which may be left in the end."""
        self.seen.update(self.host.processes())

    def ends(self, name: str, event: Event) -> str:
        """Have an event answered over HTTP. Return how it ended; an answer that is not right fails."""
        right = self.versions[self.served[name]].right(event)
        reply = self.host.invoke(event, name)
        if reply.status != 200:
            assert (reply.status, reply.json["error"]["type"]) == (502, "WorkerEnded")
            return "error"
        answer: Any = reply.pieces if "pieces" in event else reply.json
        if "pieces" in event and answer and isinstance(answer[-1], dict) and "error" in answer[-1]:
            assert answer[-1]["error"]["type"] == "WorkerEnded" and answer[:-1] == right[: len(answer) - 1]
            return "error"
        assert text_of(answer) == text_of(right)
        return "right"

    def in_threads(self, events: list[tuple[str, Event]]) -> tuple[list[threading.Thread], list[str]]:
        """Begin to have events answered. Return the threads, and where they will say how each ended."""
        ended: list[str] = []
        asking = [threading.Thread(target=lambda one=one: ended.append(self.ends(*one))) for one in events]
        for thread in asking:
            thread.start()
        return asking, ended

    @rule(name=NAMES, event=EVENTS)
    def invoke(self, name: str, event: Event) -> None:
        assert self.ends(name, event) == "right"

    @rule(events=st.lists(st.tuples(NAMES, EVENTS), min_size=2, max_size=4))
    def invoke_at_once(self, events: list[tuple[str, Event]]) -> None:
        asking, ended = self.in_threads(events)
        for thread in asking:
            thread.join()
        assert ended == ["right"] * len(events)

    @rule(name=NAMES, event=EVENTS, wait=st.floats(0, 0.2))
    def disconnect(self, name: str, event: Event, wait: float) -> None:
        body = json.dumps({**event, "wait": 5}).encode()
        head = f"POST /functions/{name}/invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        address = self.host.connect()
        with socket.create_connection((address.host, address.port)) as connection:
            connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            time.sleep(wait)
        self.host.until(lambda: self.host.status(name)["running"] == 0, 3)

    @rule(name=NAMES, event=EVENTS, who=st.sampled_from(["template", "worker"]), amid=st.booleans())
    def kill(self, name: str, event: Event, who: str, amid: bool) -> None:
        asking, ended = self.in_threads([(name, {**event, "wait": 0.3})] if amid else [])
        if amid:
            self.host.until(lambda: self.host.status(name)["running"] == 1 or ended, 5)
        self.look()
        template = int(self.host.status(name)["pid"])
        children = Path(f"/proc/{template}/task/{template}/children").read_text().split()
        for pid in [template] if who == "template" else children:
            kill(int(pid))
        for thread in asking:
            thread.join()
        assert set(ended) <= {"right", "error"} and len(ended) == len(asking)
        if who == "template":
            self.served[name] = self.on_disk[name]  # the next one opens the bundle
        assert self.ends(name, event) == "right"

    @rule(name=NAMES)
    def compile_another(self, name: str) -> None:
        """Put another version in a bundle's place, as `compile --force` does. Nobody has told the server."""
        new = self.folder / "new"
        self.on_disk[name] = 1 - self.on_disk[name]
        shutil.copytree(self.versions[self.on_disk[name]].made.bundle, new)
        self.bundle(name).rename(self.folder / "old")
        new.rename(self.bundle(name))
        shutil.rmtree(self.folder / "old")

    @precondition(lambda self: self.served != self.on_disk)
    @rule(event=EVENTS)
    def reload(self, event: Event) -> None:
        changed = [name for name in self.on_disk if self.on_disk[name] != self.served[name]]
        ready = len(self.host.told("ready", 0))
        asking, ended = self.in_threads([(name, event) for name in self.on_disk if name not in changed])
        self.look()
        self.host.process.send_signal(signal.SIGHUP)
        self.host.told("ready", ready + len(changed))
        self.host.until(lambda: all(self.host.status(name)["state"] == "ready" for name in changed), 5)
        for thread in asking:
            thread.join()
        assert ended == ["right"] * len(asking)
        self.served = dict(self.on_disk)

    @rule(name=NAMES, event=EVENTS)
    def run_kept(self, name: str, event: Event) -> None:
        words = ("run", self.bundle(name), "--event", json.dumps(event), "--keep", "1m", "--json")
        report = tidalctl(*words, cwd=self.folder, env=self.env).ok().report
        assert report["start"] in ("fork", "spare")
        assert text_of(report["output"]) == text_of(self.versions[self.on_disk[name]].right(event))

    @rule(name=NAMES, event=EVENTS, wait=st.floats(0, 0.6))
    def stop_kept(self, name: str, event: Event, wait: float) -> None:
        words = [
            *TIDALCTL,
            "run",
            str(self.bundle(name)),
            "--event",
            json.dumps({**event, "wait": 0.3}),
            "--keep",
            "1m",
            "--json",
        ]
        environ = {**os.environ, **self.env}
        process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environ)
        time.sleep(wait)
        tidalctl("stop", cwd=self.folder, env=self.env)
        out, err = process.communicate(timeout=60)
        if process.returncode == 0:
            right = self.versions[self.on_disk[name]].right(event)
            assert text_of(json.loads(out.splitlines()[-1])["output"]) == text_of(right)
        else:
            assert any(known in err for known in KEPT_ERRORS), err


@pytest.mark.parametrize(("examples", "steps"), [(4, 15), (25, 25)])
def test_a_host_is_as_its_model_whatever_happens(versions: list[Leaving], examples: int, steps: int) -> None:
    machine = type("Machine", (HostMachine,), {"versions": versions})
    wanted = settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # a failure is as it is: what a machine does again it does at other times
        database=None,
    )
    run_state_machine_as_test(machine, settings=wanted)
