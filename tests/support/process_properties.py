"""A function whose answer tells each property of the process that gives it, and starts of it by callers of different properties.

Its answer is two looks: one before it calls init, and one after the first has left.
"""

import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from conftest import TIDALCTL, Chain, interruptible, tidalctl

PR_CAPBSET_DROP, CAP_SYS_PTRACE = 24, 19
Looks = list[dict[str, Any]]

APP = """
import ctypes, gc, hashlib, locale, os, random, resource, signal, sys, threading, time, warnings

import numpy
import torch

import tidalctl

MARKS = "@MARKS@"  # files that a test makes, outside of the project
os.environ["SET_BY_IMPORT"] = "import"
with open(MARKS + "/read") as file:
    READ = file.read()
if os.path.exists(MARKS + "/draw"):
    random.random(), numpy.random.rand(), torch.rand(1)
if os.path.exists(MARKS + "/seed"):
    random.seed(11)
    numpy.random.seed(12)
    torch.manual_seed(13)
if os.path.exists(MARKS + "/thread"):
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
FILLED = []


@tidalctl.init(static=True)
def load():
    os.environ["SET_BY_INIT"] = "init"
    FILLED.append("init")
    sys.setrecursionlimit(2345)
    torch.manual_seed(3)
    return torch.nn.Linear(64, 64)


def handler(event, context):
    yield look(event)
    if "hold" in event:
        until = time.monotonic() + 60
        while not os.path.exists(event["hold"]) and time.monotonic() < until:
            time.sleep(0.01)
    model = load()
    with torch.no_grad():
        yield {**look(event), "output": model(torch.ones(64, 64)).sum().item()}


def look(event):
    descriptors = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            descriptors[int(name)] = os.readlink("/proc/self/fd/" + name)
        except OSError:  # that of the listing
            continue
    umask = os.umask(0)
    os.umask(umask)
    status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines() if ":\\t" in line)
    limits = {name: resource.getrlimit(getattr(resource, name)) for name in dir(resource) if name.startswith("RLIMIT_")}
    product = hashlib.sha256((torch.arange(2.0**18).reshape(512, 512) / 7).mm(torch.ones(512, 512)).numpy().tobytes())
    torch.zeros(2**20).add_(1)
    threads = len(os.listdir("/proc/self/task"))
    streams = {}
    for name in ("stdin", "stdout", "stderr"):
        stream = getattr(sys, name)
        streams[name] = [stream.encoding, stream.errors, stream.line_buffering, stream.write_through, stream.isatty()]
    wakeup = signal.set_wakeup_fd(-1)
    return {
        "event": event.get("given"),
        "arguments": sys.argv[1:],
        "script": os.path.basename(sys.argv[0]),
        "environ": dict(os.environ),
        "directory": os.getcwd(),
        "umask": umask,
        "limits": limits,
        "descriptors": descriptors,
        "streams": streams,
        "users": [os.getresuid(), os.getresgid(), sorted(os.getgroups())],
        "process": [os.getpid(), os.getppid(), os.getpgid(0), os.getsid(0)],
        "random": [random.random(), numpy.random.rand(), random.random(), numpy.random.rand()],
        "torch": torch.rand(2).tolist(),
        "read at import": READ,
        "filled": list(FILLED),
        "threads": torch.get_num_threads(),
        "its own threads": threads >= torch.get_num_threads(),
        "product": product.hexdigest(),
        "signals": {name: int(status[name], 16) for name in ("SigBlk", "SigIgn", "SigCgt", "ShdPnd")},
        "handlers": {str(number): str(signal.getsignal(number)) for number in sorted(signal.valid_signals())},
        "wakeup": wakeup,
        "collector": [gc.isenabled(), gc.get_threshold(), len(gc.callbacks), gc.get_debug()],
        "flags": repr(sys.flags),
        "path": sys.path[1:],
        "hooks": [str(sys.gettrace()), str(sys.getprofile()), sys.excepthook is sys.__excepthook__, sys.getswitchinterval()],
        "main thread": [threading.current_thread() is threading.main_thread(), threading.current_thread().name],
        "locale": [locale.setlocale(locale.LC_ALL), locale.getpreferredencoding(False), sys.getfilesystemencoding()],
        "recursion limit": sys.getrecursionlimit(),
        "warnings": [repr(one) for one in warnings.filters],
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "priority": [os.nice(0), sorted(os.sched_getaffinity(0))],
    }
"""
# the plain function, with nothing of tidalctl's but the mark on its init
PLAIN = """
import json, sys
project, event = sys.argv[1:3]
sys.path.insert(0, project)
sys.argv[:] = [project + "/app.py", *sys.argv[3:]]
import app
output = list(app.handler(json.loads(event), None))
print()
print(json.dumps({"output": output, "start": "plain"}))
"""

READABLE = """
import json, os, sys

def readable(pid):
    try:
        return bool(os.readlink("/proc/" + pid + "/cwd"))  # the kernel asks as for a process's memory
    except PermissionError:
        return False

print(json.dumps([readable(pid) for pid in sys.argv[1:]]))
"""


class Caller(NamedTuple):
    """Who starts a process, and what that has of it. `limits` are by the names of `resource`, soft and hard."""

    directory: Path
    umask: int
    variables: Mapping[str, str]
    limits: Mapping[str, tuple[int, int]]

    def enter(self) -> None:
        """Take all of it on: for a process that is about to run a program, and that may look into others only as any user's may."""
        interruptible()
        ctypes.CDLL(None).prctl(PR_CAPBSET_DROP, CAP_SYS_PTRACE, 0, 0, 0)
        os.chdir(self.directory)
        os.umask(self.umask)
        for name, limit in self.limits.items():
            resource.setrlimit(getattr(resource, name), limit)

    def begin(self, command: list[str], text: str = "") -> "subprocess.Popen[str]":
        """Run a command, with some text to read."""
        pipe: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        environ = {**os.environ, **self.variables}
        process = subprocess.Popen(command, preexec_fn=self.enter, env=environ, text=True, **pipe)
        assert process.stdin is not None
        process.stdin.write(text)
        process.stdin.close()
        process.stdin = None
        return process


class Start(NamedTuple):
    """A start: its kind as it was told, and the function's looks."""

    kind: str
    looks: Looks


def started(process: "subprocess.Popen[str]") -> Start:
    """Return what a process has reported, when it has ended."""
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    report = json.loads(out.strip().splitlines()[-1])
    return Start(report["start"], report["output"])


def plainly(made: Chain, caller: Caller) -> Start:
    """Return a start of the plain function."""
    event = json.dumps({"given": "plain"})
    return started(caller.begin([sys.executable, "-P", "-c", PLAIN, str(made.project), event]))


def from_bundle(bundle: Path, caller: Caller, *options: str, **event: str) -> "subprocess.Popen[str]":
    """Begin a start from a bundle."""
    return caller.begin([*TIDALCTL, "run", str(bundle), "--event", json.dumps(event), "--json", *options])


def two_at_once(begin: Callable[[Path], Callable[[], Start]], running: Callable[[], int], folder: Path) -> dict[str, Start]:
    """Return two starts by their kinds, of which only the first finds a spare.

    `begin` begins one that waits for a file and returns what waits for its end; `running` says how many are being answered.
    """
    hold = folder / "go on"
    hold.unlink(missing_ok=True)
    ending = [begin(hold)]
    until(lambda: running() == 1)
    ending.append(begin(hold))
    until(lambda: running() == 2)
    hold.touch()
    starts = [end() for end in ending]
    return {start.kind: start for start in starts}


def until(holds: Callable[[], Any], seconds: float = 60) -> None:
    """Return when something holds."""
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def readable_by_others(caller: Caller, pids: list[int]) -> list[bool]:
    """Return of each process whether another one of its user may look into its memory."""
    out, _ = caller.begin([sys.executable, "-P", "-c", READABLE, *map(str, pids)]).communicate(timeout=30)
    return [bool(readable) for readable in json.loads(out)]


def in_thread(work: Callable[[], Start]) -> Callable[[], Start]:
    """Begin some work in a thread, and return what waits for its result."""
    results: list[Start] = []
    thread = threading.Thread(target=lambda: results.append(work()))
    thread.start()

    def end() -> Start:
        thread.join()
        return results[0]

    return end


def kept_status(made: Chain) -> dict[str, Any]:
    """Return what `ps` says of the one template of the chain's own host; empty where there is none."""
    found = tidalctl("ps", "--json", cwd=made.folder, env=made.env).ok().report
    return dict(found["templates"][0]) if found["templates"] else {}
