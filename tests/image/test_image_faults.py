"""Kills, a full disk and a system that forbids namespaces: the right answer or one error, and nothing is left behind."""

import ctypes
import json
import os
import random
import signal
import struct
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from conftest import TIDALCTL, Chain, interruptible, tidalctl
from support.criu import left, needs_criu, none_left
from support.imaged import imaged_in

from tidalctl.artifacts.cause import Cause

pytestmark = needs_criu

UNSHARE, ALLOWED, REFUSED = 272, 0x7FFF0000, 0x00050001  # a system call; what seccomp does: let it be, and EPERM
NO_NEW_PRIVS, SECCOMP, FILTER = 38, 22, 2


@pytest.fixture(scope="module")
def imaged(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return imaged_in(tmp_path_factory.getbasetemp())


def forbid_namespaces() -> None:
    """Have this process's calls of `unshare` refused, as a container's profile does."""
    instructions = [(0x20, 0, 0, 0), (0x15, 0, 1, UNSHARE), (0x06, 0, 0, REFUSED), (0x06, 0, 0, ALLOWED)]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(instructions), ctypes.addressof(code)))
    libc = ctypes.CDLL(None)
    libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0)
    assert libc.prctl(SECCOMP, FILTER, ctypes.c_void_p(ctypes.addressof(program)), 0, 0) == 0


def test_namespaces_that_are_forbidden_are_an_ordinary_start(imaged: Chain) -> None:
    words = ("run", imaged.bundle, "--event", "{}", "--json")
    done = tidalctl(*words, cwd=imaged.folder, env=imaged.env, preexec_fn=forbid_namespaces).ok()
    assert done.report["output"] == imaged.plain({})
    assert done.report["image_cause"] == Cause.IMAGE_NAMESPACES_FORBIDDEN.code
    assert "Operation not permitted" in done.err


def test_a_full_disk_leaves_the_bundle_as_it_was(imaged: Chain, tmp_path: Path) -> None:
    script = """
    mount -t tmpfs -o size=90m tmpfs "$1" && mkdir "$1/app.bundle" && cd "$2"
    cp -a $(ls | grep -v "^image$") "$1/app.bundle"; shift 2
    "$@"; code=$?; ls -A "$0" "$0/app.bundle"; exit $code
    """
    words = [*TIDALCTL, "image", tmp_path / "app.bundle"]
    command = ["unshare", "-m", "sh", "-c", script, tmp_path, tmp_path, imaged.bundle, *words]
    done = subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **imaged.env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1 and Cause.IMAGE_NOT_DUMPED.code in done.stderr, done.stderr
    there = sorted(name for name in os.listdir(imaged.bundle) if name != "image")
    assert done.stdout.split() == [f"{tmp_path}:", "app.bundle", f"{tmp_path}/app.bundle:", *there]


@pytest.mark.slow
def test_a_dump_that_was_killed_is_made_again(imaged: Chain, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [*TIDALCTL, "image", str(imaged.bundle)], env={**os.environ, **imaged.env}, stderr=subprocess.DEVNULL
    )
    time.sleep(0.8)
    process.kill()
    process.wait()
    none_left(imaged)
    assert imaged.start({}, "--json", "--image", "require").report["output"] == imaged.plain({})
    tidalctl("image", imaged.bundle, "--ship", cwd=imaged.folder, env=imaged.env).ok()
    assert not [name for name in os.listdir(imaged.folder) if "partial" in name]


@pytest.mark.slow
@pytest.mark.parametrize("count", [50])
def test_kills(imaged: Chain, count: int) -> None:
    """Of dump, launcher, and restored process, at random moments."""
    draw, ended, expected = random.Random(7), Counter[str](), imaged.plain({"do": "slowly"})
    for _ in range(count):
        who = draw.choice(["launcher", "restored", "dump"] if count > 2 else ["launcher", "restored"])
        slowly = '{"do": "slowly", "wait": 0.02}'
        words = ["image", imaged.bundle, "--ship"] if who == "dump" else ["run", imaged.bundle, "--event", slowly, "--json"]
        process = subprocess.Popen(
            [*TIDALCTL, *map(str, words)],
            env={**os.environ, **imaged.env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=interruptible,
        )
        time.sleep(draw.uniform(0, 2.5 if who == "dump" else 0.7))
        if who == "restored":
            for one in left(imaged):
                os.kill(int(one.split()[0]), signal.SIGKILL)
        else:
            process.kill()
        out, err = process.communicate(timeout=120)
        none_left(imaged)
        if who == "restored" or process.returncode == 0:
            if process.returncode == 0 and who != "dump":
                assert json.loads(out.splitlines()[-1])["output"] == expected
                ended["right"] += 1
            elif process.returncode == -signal.SIGKILL:  # as the restored process ended
                ended["restored killed"] += 1
            elif who != "dump":
                assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1, err
                ended["error"] += 1
        else:
            assert process.returncode == -signal.SIGKILL
            ended[f"{who} killed"] += 1
        after = imaged.start({"do": "slowly"}, "--json").report
        assert after["output"] == expected, "the next one"
    assert imaged.start({"do": "slowly"}, "--json", "--image", "require").report["output"] == expected
