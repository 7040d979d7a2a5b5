"""What `tidalctl replay` does with real processes: requests sent when due, instances started, kept and ended, and what they used."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from conftest import TIDALCTL, interruptible, tidalctl
from small_bundle import write_bundle

from tidalctl.artifacts.errors import TidalError
from tidalctl.bench.replay.arrivals import Arrival
from tidalctl.bench.replay.driver import drive
from tidalctl.bench.replay.host import HostServing
from tidalctl.bench.replay.instance import plain_command
from tidalctl.bench.replay.instance_pool import InstancePool
from tidalctl.bench.replay.mapping import Mapping as Map
from tidalctl.bench.replay.mapping import open_functions
from tidalctl.bench.replay.resources import Usage, tree
from tidalctl.bench.replay.serving import Answer, Served, Serving

# a function that does what its event says, and counts its events in a global
APP = """
import os, time
count = 0
def handler(event, context):
    global count
    count += 1
    end = time.process_time() + event.get("cpu_s", 0)
    while time.process_time() < end:
        pass
    event.get("memory") and globals().update(kept=bytearray(event["memory"]))
    time.sleep(event.get("sleep_s", 0))
    if "raise" in event:
        raise ValueError(event["raise"])
    if event.get("exit"):
        os.write(2, b"on its way out\\n")
        os._exit(3)
    yield [context.function_name, event["letter"]]
    yield count if event.get("count") else None
"""
EVENT = '{"letter": "a"}'
Pool = Callable[..., InstancePool]


def served(folder: Path, *events: str) -> dict[str, Served]:
    """Functions f0, f1, … of one bundle, each with an event of its own."""
    bundle = write_bundle(folder, APP)
    names = [f"f{number}" for number in range(len(events))]
    maps = [Map(name, str(bundle), event) for name, event in zip(names, events, strict=True)]
    return open_functions(names, maps)


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[Pool]:
    """Make a pool of plain instances, one function an event, and open it."""
    made: list[InstancePool] = []

    def make(*events: str, keep_warm_s: float = 60, timeout_s: float = 30, memory: int | None = None) -> InstancePool:
        made.append(InstancePool(served(tmp_path, *events), plain_command, keep_warm_s, timeout_s, memory))
        made[-1].open()
        return made[-1]

    yield make
    for one in made:
        one.close()
        assert one.roots() == []


def test_an_idle_instance_of_the_function_answers_and_others_start(pool: Pool) -> None:
    serving = pool(EVENT, '{"letter": "b"}')
    begin = time.monotonic_ns()
    first, second, other = serving.answer("f0"), serving.answer("f0"), serving.answer("f1")
    assert [answer.start for answer in (first, second, other)] == ["cold", "warm", "cold"]
    assert first.output == [["app", "a"], None] and other.output == [["app", "b"], None]
    assert first.first_ns and second.first_ns and begin < first.first_ns <= first.done_ns < second.first_ns <= second.done_ns
    assert len(serving.roots()) == 2


def test_requests_at_once_have_an_instance_each(pool: Pool) -> None:
    serving = pool('{"letter": "a", "sleep_s": 0.5}')
    found: list[Answer] = []
    threads = [threading.Thread(target=lambda: found.append(serving.answer("f0"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.start for answer in found] == ["cold"] * 3 and len(serving.roots()) == 3
    assert serving.answer("f0").start == "warm"


def test_an_instance_that_was_idle_for_too_long_is_ended(pool: Pool) -> None:
    serving = pool(EVENT, keep_warm_s=0.3)
    serving.answer("f0")
    (pid,) = serving.roots()
    wait_until(lambda: not serving.roots())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert serving.answer("f0").start == "cold"


def test_memory_beyond_the_bound_ends_the_longest_idle(pool: Pool) -> None:
    serving = pool(EVENT, EVENT, EVENT, memory=100)
    serving.answer("f0")
    (oldest,) = serving.roots()
    serving.answer("f1")
    serving.answer("f2")
    serving.hold(dict.fromkeys(serving.roots(), 33))
    assert len(serving.roots()) == 3
    serving.hold(dict.fromkeys(serving.roots(), 34))
    assert len(serving.roots()) == 2 and oldest not in serving.roots()
    assert [serving.answer(name).start for name in ("f2", "f1", "f0")] == ["warm", "warm", "cold"]


def test_a_failure_is_an_answer_and_the_next_request_is_served(pool: Pool) -> None:
    raises, exits, hangs = '{"letter": "a", "raise": "no"}', '{"letter": "a", "exit": true}', '{"letter": "a", "sleep_s": 60}'
    serving = pool(raises, exits, hangs, EVENT, timeout_s=2)
    assert serving.answer("f0").failed == "ValueError: no"
    assert serving.answer("f0").start == "warm"  # its process goes on
    assert serving.answer("f1").failed == "the process ended: on its way out"
    assert serving.answer("f1").start == "cold"
    assert serving.answer("f2").failed == "no answer within 2 s"
    assert len(serving.roots()) == 1
    assert serving.answer("f3").failed is None


def test_what_instances_use_is_counted_while_they_run_and_when_they_are_gone(pool: Pool, tmp_path: Path) -> None:
    serving = pool('{"letter": "a", "cpu_s": 0.4}')
    assert serving.used() == Usage()
    serving.answer("f0")
    running = serving.used()
    assert 0.4 <= running.cpu_s < 2
    serving.close()
    assert serving.roots() == [] and running.cpu_s - 0.05 <= serving.used().cpu_s < running.cpu_s + 0.5


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Slow(Serving):
    """Answers each request half a second after it came, from no process at all."""

    def __init__(self) -> None:
        self.closed = 0

    def open(self) -> None:
        time.sleep(0.2)

    def answer(self, function: str) -> Answer:
        time.sleep(0.5)
        now = time.monotonic_ns()
        return Answer(start="warm", first_ns=now, done_ns=now, output=function)

    def roots(self) -> list[int]:
        return []

    def used(self) -> Usage:
        return Usage(1.0, 100)

    def hold(self, memory: Mapping[int, int]) -> None:
        assert memory == {}

    def close(self) -> None:
        self.closed += 1


def test_requests_are_sent_when_due_whatever_has_become_of_others(tmp_path: Path) -> None:
    functions = served(tmp_path, EVENT, EVENT)
    arrivals = [Arrival(at, "f1" if at == 2 else "f0") for at in (0.0, 0.5, 1.0, 2.0)]
    serving = Slow()
    way = drive("plain", serving, arrivals, 10, functions, {0: '"f0"', 1: '"f0"'}, lambda text: None)
    assert serving.closed == 1
    assert [sample.due_s for sample in way.samples] == pytest.approx([0, 0.05, 0.1, 0.2])
    assert all(0 <= sample.late_s < 0.2 for sample in way.samples)  # of answers one after the other it would be 1.3 s
    assert all(0.5 <= (sample.ttft_s or 0) < 0.75 for sample in way.samples)
    assert [sample.output_equal for sample in way.samples] == [True, True, True, False]
    assert way.opening_s >= 0.2 and 0.7 <= way.serving_s < 1.5
    assert (way.opening, way.serving) == (Usage(1.0, 100), Usage(0.0, 0))


def test_the_whole_memory_is_seen(tmp_path: Path) -> None:
    functions = served(tmp_path, '{"letter": "a", "memory": 200000000, "sleep_s": 0.2}')
    pool = InstancePool(functions, plain_command, 60, 30)
    way = drive("plain", pool, [Arrival(0.0, "f0"), Arrival(0.01, "f0")], 1, functions, {0: None}, lambda text: None)
    assert way.peak_memory is not None and 4e8 < way.peak_memory < 6e8
    assert [sample.output_equal for sample in way.samples] == [None, None]


def test_a_host_answers_over_http_and_its_failures_are_answers(tmp_path: Path) -> None:
    """From a real `tidalctl serve`, whose workers of this function, which restores nothing, are starts of their own."""
    functions = served(tmp_path, '{"letter": "a", "cpu_s": 0.5}', '{"letter": "a", "raise": "no"}')
    with HostServing(functions, 60) as serving:
        serving.open()
        opened = serving.used()
        begin = time.monotonic_ns()
        right, wrong = serving.answer("f0"), serving.answer("f1")
        used = serving.used() - opened
        pids = tree(serving.roots())
        assert len(pids) > 1
    assert right.failed is None and right.start in ("spare", "fork", "spawn") and right.output == [["app", "a"], None]
    assert right.first_ns and begin + 0.5e9 < right.first_ns <= right.done_ns
    assert wrong.failed and wrong.failed.startswith("500: ") and "ValueError" in wrong.failed and "no" in wrong.failed
    assert used.cpu_s >= 0.5
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))


def test_a_host_that_can_not_begin_says_why(tmp_path: Path) -> None:
    functions = served(tmp_path, EVENT)
    with HostServing(functions, 60, ("--no-such-option",)) as serving:
        with pytest.raises(TidalError, match="the host ended: No such option"):
            serving.open()
        assert serving.answer("f0").failed, "nobody listens"
    (tmp_path / "app.bundle" / "code" / "app.py").write_text("changed")
    with HostServing(functions, 60) as serving, pytest.raises(TidalError, match=r"the host can.t serve f0: .*app\.py"):
        serving.open()


def test_a_host_with_little_memory_makes_templates_when_they_are_asked_for(tmp_path: Path) -> None:
    functions = served(tmp_path, EVENT, EVENT)
    with HostServing(functions, 60, ("--memory", "700MB")) as serving:
        serving.open()
        assert [serving.answer(name).failed for name in ("f0", "f1")] == [None, None]


# --- the command


def replay(folder: Path, *options: object, event: str = EVENT, **more: Any) -> Any:
    return tidalctl("replay", *options, "--map", f"*=app.bundle:{event}", cwd=folder, **more)


def test_enough_plain_requests_are_measured_and_reported(tmp_path: Path) -> None:
    write_bundle(tmp_path, APP)
    options = ("--functions", 2, "--rate", 1, "--seconds", 30, "--speed", 10, "--against", "plain", "--keep-warm", "20s")
    done = replay(tmp_path, *options, "--json", "--report", "replay.html")
    found = json.loads(done.ok().out)
    (way,) = found["ways"]
    assert found["schema"] == 1 and found["arrivals"]["requests"] == len(way["samples"]) >= 20
    assert found["arrivals"]["offered_rate"] == pytest.approx(len(way["samples"]) / 3)
    assert way["starts"]["cold"] + way["starts"]["warm"] == len(way["samples"]) and way["starts"]["cold"] >= 2
    assert found["plain_cold_share"] == way["starts"]["cold"] / len(way["samples"])
    assert way["failed"] == way["differing"] == 0 and all(sample["output_equal"] for sample in way["samples"])
    assert 0 < way["ttft_s"]["p50"] <= way["ttft_s"]["p95"] <= way["ttft_s"]["max"] and way["ttft_s"]["p99"] is None
    assert way["cpu_s"] > 0 and way["peak_memory_bytes"] > 5e6 and way["seconds"] >= way["samples"][-1]["due_s"]
    assert "instances" in (tmp_path / "replay.html").read_text()


def test_few_requests_from_the_bundle_are_right_and_too_few_for_a_p95(tmp_path: Path) -> None:
    """From a real start of the bundle, which this function's needs torch for, and then from that process."""
    write_bundle(tmp_path, APP)
    (tmp_path / "two.csv").write_text("at_s,function\n0,f\n30,f\n")
    done = replay(tmp_path, "two.csv", "--speed", 10, "--against", "plain,bundle")
    done.one_error("too few answers for a p95: plain, bundle", code=3)
    shown = [line.split() for line in done.out.splitlines()]
    assert ["started", "cold", "1", "1"] in shown and ["started", "warm", "1", "1"] in shown
    assert ["outputs", "that", "differ", "0", "0"] in shown


def test_answers_that_differ_or_fail_exit_1_after_the_numbers(tmp_path: Path) -> None:
    write_bundle(tmp_path, APP)
    (tmp_path / "two.csv").write_text("at_s,function\n0,f\n1,f\n")
    done = replay(tmp_path, "two.csv", "--against", "plain", event='{"letter": "a", "count": true}')
    done.one_error("answers are missing or differ from the plain function's: 1 of plain", code=1)
    assert "outputs differ from the plain function's first one for map 0" in done.out


def test_what_can_not_be_replayed_is_told_at_once(tmp_path: Path) -> None:
    write_bundle(tmp_path, APP)
    options = ("--rate", 1, "--seconds", 9)
    replay(tmp_path).one_error("no file of arrivals is named")
    replay(tmp_path, *options, "--against", "plain,magic").one_error("'magic' is no way of serving", "plain,bundle,host")
    replay(tmp_path, *options, "--keep-warm", "long").one_error("--keep-warm 'long' is no time")
    replay(tmp_path, *options, "--speed", "nan").one_error("--speed 'nan'")
    replay(tmp_path, *options, event="[1]").one_error("--map [1] is not a JSON object")
    tidalctl("replay", *options, "--map", f"*=none.bundle:{EVENT}", cwd=tmp_path).one_error("none.bundle")


@pytest.mark.parametrize(("way", "number"), [("plain", signal.SIGINT), ("plain", signal.SIGKILL), ("host", signal.SIGKILL)])
def test_a_replay_that_is_interrupted_or_killed_leaves_no_process(tmp_path: Path, way: str, number: int) -> None:
    write_bundle(tmp_path, APP)
    (tmp_path / "two.csv").write_text("at_s,function\n0,f\n900,f\n")
    command = [*TIDALCTL, "replay", "two.csv", "--against", way, "--map", f"*=app.bundle:{EVENT}"]
    environment = {**os.environ, "REPLAY_MARK": str(tmp_path)}
    parent = subprocess.Popen(command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, preexec_fn=interruptible)

    def children() -> list[str]:
        """The replay's own, and not the one that answers before it begins."""
        found = []
        for name in filter(str.isdigit, os.listdir("/proc")):
            try:
                words, environ = (Path("/proc", name, part).read_bytes().split(b"\0") for part in ("cmdline", "environ"))
            except OSError:
                continue
            if f"REPLAY_MARK={tmp_path}".encode() in environ and (b"-" in words or b"serve" in words):
                found.append(name)
        return found

    wait_until(lambda: bool(children()))
    parent.send_signal(number)
    assert parent.wait(20) == (130 if number == signal.SIGINT else -number)
    assert parent.stderr is not None and b"Traceback" not in parent.stderr.read()
    if number == signal.SIGINT:
        assert children() == []
    wait_until(lambda: not children())


def test_the_parent_imports_no_torch(tmp_path: Path) -> None:
    script = "import sys, tidalctl.commands.replay, tidalctl.bench.replay.replay, tidalctl.bench.replay.report_page\n"
    script += "print([name for name in sys.modules if name.partition('.')[0] in ('torch', 'numpy')])"
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
