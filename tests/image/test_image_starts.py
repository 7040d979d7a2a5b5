"""A start from a process image answers as an ordinary one, with what is its caller's and nothing of the dump."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from conftest import TIDALCTL, Chain, Done, interruptible, tidalctl
from support.criu import NOBODY, as_nobody, needs_criu, needs_user_namespaces, none_left
from support.imaged import imaged_in, open_to_all

from tidalctl.artifacts.cause import Cause

pytestmark = needs_criu


@pytest.fixture(scope="module")
def imaged(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    return imaged_in(tmp_path_factory.getbasetemp())


@pytest.fixture(autouse=True)
def _nothing_is_left(imaged: Chain) -> Iterator[None]:
    yield
    none_left(imaged)


def start(imaged: Chain, event: dict[str, Any], *options: str, **more: str) -> Done:
    return imaged.start(event, "--image", "require", *options, **more)


def test_answers_are_the_plain_functions(imaged: Chain) -> None:
    for n in (1, 2):
        report = start(imaged, {"n": n}, "--json").report
        assert (report["output"], report["start"], report["strategy"]) == (imaged.plain({"n": n}), "image", "snapshot")
        assert report["phases"]["image"] > 10 * report["phases"].get("imports", 0.0)


def test_what_is_drawn_is_fresh_and_torch_is_as_ever(imaged: Chain) -> None:
    (one, first), (other, second) = (start(imaged, {"do": "drawn"}, "--json").report["output"] for _ in range(2))
    assert [number for number, same in enumerate(zip(one, other, strict=True)) if same[0] == same[1]] == []
    assert first == second == imaged.plain({"n": 1})[0]


def test_the_process_is_the_callers(imaged: Chain, tmp_path: Path) -> None:
    done = tidalctl(
        *("run", imaged.bundle, "--event", json.dumps({"do": "who"}), "--image", "require", "--", "one", "two"),
        cwd=tmp_path,
        env={**imaged.env, "GIVEN": "here"},
    ).ok()
    assert json.loads(done.out.splitlines()[0]) == [0, 0, str(tmp_path), "here", ["one", "two"]]
    read = tidalctl(
        "run", imaged.bundle, "-e", '{"do": "read"}', "--image", "require", cwd=tmp_path, env=imaged.env, text="given\n"
    ).ok()
    assert read.out.startswith("given\n")


@needs_user_namespaces
def test_another_user_starts_it_without_privileges(imaged: Chain, tmp_path: Path) -> None:
    open_to_all(imaged.folder)
    tmp_path.chmod(0o777)
    command = [*TIDALCTL, "run", imaged.bundle, "--image", "require", "--event"]
    done = as_nobody([*command, json.dumps({"do": "who"})], tmp_path, imaged.env)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[0])[:3] == [NOBODY, NOBODY, str(tmp_path)]
    assert json.loads(done.stdout.splitlines()[1]) == imaged.plain({"n": 1})[0]
    (imaged.bundle / "image").chmod(0o700)
    kept = as_nobody([*command[:-3], "--json", "--event", "{}"], tmp_path, imaged.env)
    (imaged.bundle / "image").chmod(0o755)
    report = json.loads(kept.stdout.splitlines()[-1])
    assert (report["start"], report["image_cause"]) == ("process", Cause.IMAGE_NOT_READABLE.code)
    as_nobody([*command, json.dumps({"do": "write", "path": str(tmp_path / "file")})], tmp_path, imaged.env)
    assert ((tmp_path / "file").read_text(), (tmp_path / "file").stat().st_uid) == ("written", NOBODY)


def test_exit_codes_and_errors_are_those_of_an_ordinary_start(imaged: Chain) -> None:
    for event in ({"do": "raise"}, {"do": "exit"}):
        ours, ordinary = start(imaged, event), imaged.start(event, "--image", "off")
        assert (ours.code, ours.out, ours.lines("error:")) == (ordinary.code, ordinary.out, ordinary.lines("error:"))
    assert start(imaged, {"do": "die"}).code == imaged.start({"do": "die"}, "--image", "off").code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGINT, 130),
        (signal.SIGTERM, -signal.SIGTERM),
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGALRM, 1),  # which the handler catches: it exits, with 7
    ],
)
def test_signals_reach_it(imaged: Chain, number: int, code: int) -> None:
    process = subprocess.Popen(
        [*TIDALCTL, "run", str(imaged.bundle), "--event", '{"do": "wait", "catch": [14]}', "--image", "require"],
        env={**os.environ, **imaged.env},
        cwd=imaged.folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=interruptible,
    )
    assert process.stdout is not None and process.stdout.read(5) == b"waits"
    time.sleep(0.2)  # so that it sleeps: Python does not see a signal that comes just before a system call
    process.send_signal(number)
    assert process.wait(timeout=30) == code


def test_a_caller_that_waits_for_no_child_gets_its_answer(imaged: Chain) -> None:
    words = ("run", imaged.bundle, "--event", "{}", "--image", "require", "--json")
    ignored = lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN) and None  # noqa: E731
    done = tidalctl(*words, cwd=imaged.folder, env=imaged.env, preexec_fn=ignored).ok()
    assert done.report["output"] == imaged.plain({"n": 1})


def test_a_closed_stream_is_an_ordinary_start(imaged: Chain) -> None:
    words = " ".join([*TIDALCTL, "run", str(imaged.bundle), "-e", "'{}'"])
    done = subprocess.run(
        ["bash", "-c", f"{words} <&-"],
        env={**os.environ, **imaged.env},
        cwd=imaged.folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, json.loads(done.stdout)) == (0, imaged.plain({"n": 1})[0]), done.stderr
    assert "a standard stream is closed" in done.stderr


def test_a_reader_that_is_gone_ends_it(imaged: Chain) -> None:
    words = " ".join([*TIDALCTL, "run", str(imaged.bundle), "-e", "'{}'", "--image", "require"])
    script = f"set -o pipefail; {words} | true; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", script], env={**os.environ, **imaged.env}, cwd=imaged.folder, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "141", done.stderr


def test_ten_at_once(imaged: Chain) -> None:
    with ThreadPoolExecutor(10) as pool:
        reports = [done.report for done in pool.map(lambda n: start(imaged, {"n": n}, "--json"), [1, 2] * 5)]
    assert [report["output"] for report in reports] == [imaged.plain({"n": n}) for n in [1, 2] * 5]


@pytest.mark.slow
def test_bench_and_plan_know_the_image(imaged: Chain) -> None:
    options = ("--event", '{"n": 1}', "-n", "1", "--json")
    found = json.loads(tidalctl("bench", imaged.bundle, *options, cwd=imaged.folder, env=imaged.env).ok().out)
    assert [one["variant"] for one in found["samples"]] == ["eager", "bundle", "image"] and found["image_speedup"]["warm"] > 1
    done = tidalctl("bench", imaged.bundle, *options, cwd=imaged.folder, env={**imaged.env, "LANG": "xx"}).ok()
    assert [one["variant"] for one in json.loads(done.out)["samples"]] == ["eager", "bundle"]
    assert "the bundle's image is not measured" in done.err and Cause.IMAGE_ENVIRONMENT_DIFFERS.code in done.err
    tidalctl("compile", imaged.trace, "-o", "proved.bundle", "--image", "require", cwd=imaged.folder, env=imaged.env).ok()
    planned = tidalctl("plan", "proved.bundle", "--json", cwd=imaged.folder, env=imaged.env).ok().report
    assert any("restored from image" in better["what"] for better in planned["improvements"])


def test_a_start_of_its_own_kind_does_without(imaged: Chain) -> None:
    report = imaged.start({"n": 1}, "--json", "--eager").report
    assert (report["start"], report["output"]) == ("process", imaged.plain({"n": 1}))
    start(imaged, {"n": 1}, "--verify", "off").one_error("--verify")


def test_nothing_secret_is_in_it(imaged: Chain, tmp_path: Path) -> None:
    planted = {"SOME_TOKEN": os.urandom(32).hex(), "GIVEN": os.urandom(32).hex()}
    (tmp_path / ".env").write_text(f"KEY={os.urandom(32).hex()}")
    tidalctl("image", imaged.bundle, "--ship", cwd=tmp_path, env={**imaged.env, **planted}).ok()
    secrets = [*planted.values(), (tmp_path / ".env").read_text()[4:]]
    held = b"".join(path.read_bytes() for path in (imaged.bundle / "image").iterdir())
    assert not [secret for secret in secrets if secret.encode() in held]
    assert start(imaged, {"do": "who"}, "--json", **planted).report["output"][0][3] == planted["GIVEN"]
