"""A function with a process image, for all tests of images that a worker runs; and its source, for those that make another."""

import functools
import os
from pathlib import Path

from conftest import Chain, chained, tidalctl
from support.criu import WITH_CRIU

APP = """
import multiprocessing
import os
import random
import signal
import ssl
import sys
import tempfile
import time
import uuid

import numpy
import torch

import tidalctl

CONTEXT = ssl.create_default_context()
NAMES = tempfile.gettempdir()
MODE = os.environ.get("APP_MODE", "usual")
if MODE == "socket":
    import socket
    HELD = socket.socket()
if MODE == "thread":
    import threading
    threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
if MODE == "raise":
    raise ValueError("not now")
if MODE == "user":
    USER = os.getuid()
if MODE == "directory":
    os.chdir("/usr")
if MODE == "ignore":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
if MODE == "tiles":
    torch.ones(512, 512, dtype=torch.bfloat16).mm(torch.ones(512, 512, dtype=torch.bfloat16))


@tidalctl.init(static=True)
def load():
    torch.manual_seed(3)
    return torch.nn.Linear(64, 64)


def drawn():
    return [
        random.random(),
        numpy.random.rand(),
        numpy.random.default_rng().random(),
        uuid.uuid4().hex,
        uuid.uuid1().hex,
        ssl.RAND_bytes(8).hex(),
        os.path.basename(tempfile.mktemp()),
        multiprocessing.current_process().authkey.hex(),
    ]


def handler(event, context):
    do = event.get("do")
    if do == "raise":
        raise ValueError("not this one")
    if do == "exit":
        sys.exit(3)
    if do == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "wait":
        for number in event.get("catch", []):
            signal.signal(number, lambda *_: sys.exit(7))
        yield "waits"
        time.sleep(60)
    if do == "read":
        yield sys.stdin.read()
    if do == "drawn":
        yield drawn()
    if do == "write":
        with open(event["path"], "w") as file:
            file.write("written")
    if do == "who":
        yield [os.getuid(), os.getgid(), os.getcwd(), os.environ.get("GIVEN"), sys.argv[1:]]
    model = load()
    with torch.no_grad():
        for n in range(3 if do == "slowly" else 1):
            time.sleep(event.get("wait", 0))
            yield [model(torch.full((64, 64), float(event.get("n", 1) + n))).sum().item(), torch.rand(1).item()]
"""


def open_to_all(folder: Path) -> None:
    """Let everybody enter a folder, for a start by another user. A pytest that starts closes the folder that all share again."""
    for path in (folder, *folder.parents):
        if path.stat().st_uid == os.getuid() and path != Path("/"):
            path.chmod(path.stat().st_mode | 0o055)


@functools.cache
def made(folder: Path) -> Chain:
    """Make the function's bundle and its image in a folder that everybody may enter."""
    open_to_all(folder)
    chain = chained(folder, APP, {"n": 1})
    chain.env.update(WITH_CRIU)
    tidalctl("image", chain.bundle, "--ship", cwd=folder, env=chain.env).ok()
    return chain


def imaged_in(base: Path) -> Chain:
    """Return the chain of this worker, whose temporary folder is `base`."""
    folder = base / "imaged"
    folder.mkdir(exist_ok=True)
    return made(folder)
