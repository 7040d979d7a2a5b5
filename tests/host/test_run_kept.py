"""`tidalctl run --keep`: answers from forks of a template are those of an ordinary start, and nothing of one is in the next."""

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import TIDALCTL, Chain, Done, chained, interruptible, tidalctl

from tidalctl.artifacts.cause import Cause
from tidalctl.host.ready_template import NotForked, ready_template

APP = """
import os
import random
import sys
import time

import numpy
import torch

import tidalctl

COUNT = []
MODE = os.environ.get("APP_MODE", "usual")


@tidalctl.init(static=True)
def load():
    torch.manual_seed(3)
    return torch.nn.Linear(8, 8)


def handler(event, context):
    if event["do"] == "raise":
        raise ValueError("not this one")
    if event["do"] == "exit":
        sys.exit(3)
    if event["do"] == "die":
        os.kill(os.getpid(), 9)
    if event["do"] == "wait":
        yield "waits"
        time.sleep(60)
    if event["do"] == "read":
        yield sys.stdin.read()
    if event["do"] == "accents":
        yield "Grüße"
    if event["do"] == "print":
        print("printed", flush=True)
        print("talk", file=sys.stderr)
    model = load()
    with torch.no_grad():
        yield model(torch.ones(8)).sum().item()
    umask = os.umask(0)
    yield [os.getcwd(), umask, sys.argv[1:], os.environ.get("GREETING"), MODE, len(COUNT), os.getsid(0) == os.getpid()]
    yield [torch.rand(1).item(), random.random(), numpy.random.rand()]
    COUNT.append(1)
    os.chdir("/")
    os.environ["GREETING"] = "changed"
    random.seed(1)
    numpy.random.seed(1)
    model.weight.data.zero_()
"""


@pytest.fixture(scope="module")
def runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """$XDG_RUNTIME_DIR of a host that ends with the tests."""
    folder = tmp_path_factory.mktemp("xdg")
    yield folder
    tidalctl("stop", cwd=folder, env={"XDG_RUNTIME_DIR": str(folder)})


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, runtime_folder: Path) -> Chain:
    chain = chained(tmp_path_factory.mktemp("kept"), APP, {"do": "answer"})
    chain.env["XDG_RUNTIME_DIR"] = str(runtime_folder)
    return chain


def kept(
    made: Chain,
    do: str,
    *options: object,
    cwd: Path | None = None,
    text: str = "",
    preexec: Callable[[], None] | None = None,
    **env: str,
) -> Done:
    asked = ("run", made.bundle, "--event", json.dumps({"do": do}), "--keep", "1m", *options)
    return tidalctl(*asked, cwd=cwd or made.folder, env={**made.env, **env}, text=text, preexec_fn=preexec)


def test_each_event_is_answered_as_by_a_process_of_its_own(made: Chain, tmp_path: Path) -> None:
    reports = [kept(made, "answer", "--json", cwd=tmp_path, GREETING=f"hello {n}").ok().report for n in range(3)]
    assert reports[0]["start"] == "fork" and {report["start"] for report in reports} <= {"fork", "spare"}
    assert {report["strategy"] for report in reports} == {"snapshot"}
    plain = made.run({"do": "answer"})["output"]
    told = [report["output"] for report in reports]
    assert [output[0] for output in told] == [plain[0]] * 3
    umask = plain[1][1]
    assert [output[1] for output in told] == [[str(tmp_path), umask, [], f"hello {n}", "usual", 0, True] for n in range(3)]
    assert [output[2][0] for output in told] == [plain[2][0]] * 3, "torch draws what it draws in any start"
    assert len({output[2][1] for output in told} | {output[2][2] for output in told}) == 6, "nobody has seeded the others"


def test_what_is_printed_goes_where_the_caller_says_and_the_exit_code_is_that_of_a_start(made: Chain) -> None:
    printed = kept(made, "print").ok()
    assert printed.out.startswith("printed\n") and "talk\n" in printed.err
    alone = kept(made, "print", "--json").ok()
    assert alone.report["streamed"] and "printed\n" in alone.err
    raised = kept(made, "raise").one_error("ValueError: not this one", code=1)
    assert "Traceback" in raised.err
    kept(made, "exit").one_error("sys.exit(3)", code=1)
    kept(made, "die").one_error("killed by signal 9")
    assert kept(made, "read", text="from here").ok().out.startswith("from here")


def test_a_client_that_goes_takes_its_worker_with_it(made: Chain) -> None:
    asked = [*TIDALCTL, "run", str(made.bundle), "--event", '{"do": "wait"}', "--keep", "1m"]
    environ = {**os.environ, **made.env}
    for number, code in ((signal.SIGINT, 130), (signal.SIGKILL, -9)):
        streams: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "preexec_fn": interruptible}
        with subprocess.Popen(asked, env=environ, **streams) as client:
            assert client.stdout is not None and client.stdout.read(5) == b"waits"
            client.send_signal(number)
            assert client.wait(10) == code
        ended = time.monotonic() + 5
        while _status(made)["running"] and time.monotonic() < ended:
            time.sleep(0.05)
        assert _status(made)["running"] == 0


def test_an_event_is_not_run_again_when_the_host_ends_while_it_runs(made: Chain) -> None:
    asked = [*TIDALCTL, "run", str(made.bundle), "--event", '{"do": "wait"}', "--keep", "1m"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **made.env}) as client:
        assert client.stdout is not None and client.stdout.read(5) == b"waits"
        tidalctl("stop", cwd=made.folder, env=made.env).ok()
        out, err = client.communicate(timeout=30)
    Done(client.returncode, out.decode(), err.decode()).one_error("the host ended while it answered")
    assert out == b""


def test_nobody_reads(made: Chain) -> None:
    asked = [*TIDALCTL, "run", str(made.bundle), "--event", '{"do": "answer"}', "--keep", "1m"]
    read, write = os.pipe()
    os.close(read)
    with open(write, "wb") as out:
        done = subprocess.run(asked, stdout=out, stderr=subprocess.PIPE, env={**os.environ, **made.env}, check=False)
    assert done.returncode == 141


def test_what_the_imports_have_read_must_be_the_hosts(made: Chain) -> None:
    for name in ("APP_MODE", "OMP_NUM_THREADS"):
        report = kept(made, "answer", "--json", **{name: "1"})
        assert report.ok().report["start"] == "process"
        assert f"note: started without the host: the environment variable {name} is not what it was" in report.err
        assert "(template-environment-differs)" in report.err


def test_a_caller_that_lacks_a_stream_answers_itself(made: Chain) -> None:
    done = kept(made, "answer", "--json", preexec=lambda: os.close(0))
    assert done.ok().report["start"] == "process" and done.err == ""


@pytest.mark.slow
def test_what_an_encoding_lacks_is_printed_as_by_any_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = separate_host(tmp_path, "", monkeypatch)
    made.env["PYTHONIOENCODING"] = "ascii"
    try:
        assert kept(made, "accents").ok().out.startswith("Gr\\u00fc\\u00dfe")
    finally:
        tidalctl("stop", cwd=made.folder, env=made.env)


def test_an_option_about_the_start_has_one(made: Chain) -> None:
    report = kept(made, "answer", "--json", "--eager")
    assert report.ok().report["start"] == "process"
    assert "note: started without the host: --eager is for a start of its own" in report.err
    kept(made, "answer", "--require", "replay").one_error("a start by replay was required", code=1)


def test_a_host_is_shown_and_stopped(made: Chain) -> None:
    kept(made, "answer").ok()
    shown = tidalctl("ps", cwd=made.folder, env=made.env).ok()
    assert str(made.bundle) in shown.out and "ready" in shown.out
    template = _status(made)["pid"]
    tidalctl("stop", made.bundle, cwd=made.folder, env=made.env).ok()
    assert json.loads(tidalctl("ps", "--json", cwd=made.folder, env=made.env).ok().out)["templates"] == []
    assert not Path(f"/proc/{template}").exists()
    tidalctl("stop", made.bundle, cwd=made.folder, env=made.env).one_error("no host keeps", "tidalctl ps")


def test_a_host_that_is_killed_takes_all_with_it_and_the_next_call_starts_another(made: Chain) -> None:
    kept(made, "answer").ok()
    host = json.loads(tidalctl("ps", "--json", cwd=made.folder, env=made.env).ok().out)["host"]
    template = _status(made)["pid"]
    os.kill(host, signal.SIGKILL)
    ended = time.monotonic() + 5
    while Path(f"/proc/{template}").exists() and time.monotonic() < ended:
        time.sleep(0.05)
    assert not Path(f"/proc/{template}").exists()
    assert kept(made, "answer", "--json").ok().report["start"] in ("fork", "spare")


def test_a_state_on_a_device_is_not_forked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    opened = SimpleNamespace(
        weights=SimpleNamespace(on_device=("group",)), manifest=SimpleNamespace(fingerprint=SimpleNamespace(device="a GPU"))
    )
    monkeypatch.setattr("tidalctl.host.ready_template.Template", lambda *_: opened)  # no device is here
    with pytest.raises(NotForked) as refused:
        ready_template(tmp_path, forked=True)
    assert refused.value.reason == Cause.DEVICE_NOT_FORKED.of(device="a GPU")


def separate_host(folder: Path, prelude: str, monkeypatch: pytest.MonkeyPatch) -> Chain:
    """Compile a function of its own, for a host of its own."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    made = chained(folder, prelude + APP, {"do": "answer"})
    (folder / "xdg").mkdir()
    made.env["XDG_RUNTIME_DIR"] = str(folder / "xdg")
    return made


@pytest.mark.slow
def test_a_function_that_fails_to_import_is_started_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prelude = "import os\nif os.environ.get('XDG_RUNTIME_DIR'):\n    raise RuntimeError('not here')\n"
    made = separate_host(tmp_path, prelude, monkeypatch)
    try:
        for _ in range(2):
            done = kept(made, "answer", "--json")
            assert "(template-failed)" in done.err and "not here" in done.err
            assert done.code == 1
        assert _status(made)["state"] == "template-failed"
    finally:
        tidalctl("stop", cwd=made.folder, env=made.env)


def test_a_template_that_fails_is_idle_and_its_host_ends(tmp_path: Path) -> None:
    (tmp_path / "broken.bundle").mkdir()
    (tmp_path / "broken.bundle" / "manifest.json").write_text("{")
    env = {"XDG_RUNTIME_DIR": str(tmp_path)}
    tidalctl("run", "broken.bundle", "--event", "{}", "--keep", "1s", cwd=tmp_path, env=env).one_error("is not JSON")
    ends = time.monotonic() + 10
    while (tmp_path / "tidalctl" / "host.sock").exists() and time.monotonic() < ends:
        time.sleep(0.05)
    assert not (tmp_path / "tidalctl" / "host.sock").exists()


def test_a_template_that_is_stopped_amid_its_start_leaves_nobody_waiting(tmp_path: Path, made: Chain) -> None:
    env = {**made.env, "XDG_RUNTIME_DIR": str(tmp_path)}
    asked = [*TIDALCTL, "run", str(made.bundle), "--event", '{"do": "answer"}', "--keep", "1m", "--json"]
    with subprocess.Popen(asked, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **env}) as client:
        while not (tmp_path / "tidalctl" / "host.sock").exists():
            time.sleep(0.02)
        ends = time.monotonic() + 20
        while tidalctl("stop", made.bundle, cwd=tmp_path, env=env).code and time.monotonic() < ends:
            time.sleep(0.02)
        out, err = client.communicate(timeout=30)
    done = Done(client.returncode, out.decode(), err.decode())
    assert done.report["start"] == "process" and "(template-failed)" in done.err
    tidalctl("stop", cwd=tmp_path, env=env).ok()


@pytest.mark.slow
def test_a_function_that_can_not_be_forked_is_answered_by_processes_made_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prelude = "import threading, time\nthreading.Thread(target=time.sleep, args=(600,), daemon=True).start()\n"
    made = separate_host(tmp_path, prelude, monkeypatch)
    try:
        first = kept(made, "answer", "--json", GREETING="hello").ok().report
        plain = made.run({"do": "answer"})["output"]
        assert first["start"] in ("spawn", "spare") and first["output"][0] == plain[0] and first["output"][2][0] == plain[2][0]
        assert first["output"][1][2:] == [[], "hello", "usual", 0, True]
        ended = time.monotonic() + 20
        while not _status(made)["spares"] and time.monotonic() < ended:
            time.sleep(0.05)
        assert _status(made)["workers"] == "spawned" and _status(made)["cause"] == Cause.THREADS_NOT_FORKED.of(count=1).text
        second = kept(made, "answer", "--json", GREETING="again").ok().report
        assert second["start"] == "spare" and second["output"][:1] == first["output"][:1]
    finally:
        tidalctl("stop", cwd=made.folder, env=made.env)


def test_a_folder_that_others_may_enter_is_no_host_folder(made: Chain, tmp_path: Path) -> None:
    (tmp_path / "tidalctl").mkdir()
    os.chmod(tmp_path / "tidalctl", 0o755)
    kept(made, "answer", XDG_RUNTIME_DIR=str(tmp_path)).one_error("is not a folder that is yours alone", "XDG_RUNTIME_DIR")
    kept(made, "answer", "--keep", "soon").one_error("--keep 'soon' is no time", "10m")


def test_the_socket_and_the_log_are_the_users_alone(made: Chain, runtime_folder: Path) -> None:
    kept(made, "answer").ok()
    assert stat.S_IMODE((runtime_folder / "tidalctl").stat().st_mode) == 0o700
    assert stat.S_IMODE((runtime_folder / "tidalctl" / "host.log").stat().st_mode) == 0o600


def test_a_client_imports_neither_torch_nor_the_framework(made: Chain) -> None:
    kept(made, "answer").ok()
    script = (
        "import sys\nfrom tidalctl.commands.kept import run_kept\n"
        f"code = run_kept({{'bundle': {str(made.bundle)!r}, 'event': '{{\"do\": \"answer\"}}', 'keep': '1m'}})\n"
        "print(code, sorted({'torch', 'typer', 'asyncio', 'tidalctl.runtime.template'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], capture_output=True, text=True, env={**os.environ, **made.env}, check=False
    )
    assert done.stdout.splitlines()[-1] == "0 []", done.stderr


def _status(made: Chain) -> dict[str, Any]:
    found = json.loads(tidalctl("ps", "--json", cwd=made.folder, env=made.env).ok().out)
    (status,) = [template for template in found["templates"] if template["bundle"] == str(made.bundle)]
    return dict(status)
