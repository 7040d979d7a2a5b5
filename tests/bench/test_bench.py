"""What `tidalctl bench` measures, held against real files and real processes: the clock of a plain function, the children it starts,
and the whole command over a bundle."""

import ast
import json
import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sample_artifacts
import typer
from conftest import interruptible, python, tidalctl
from small_bundle import write_bundle
from typer.testing import CliRunner

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.bundle.manifest import PROVENANCE, BundleFile, encode_manifest, seal
from tidalctl.artifacts.errors import CheckFailed, FunctionError, TidalError
from tidalctl.bench import processes, session
from tidalctl.bench.subject import open_subject
from tidalctl.commands.bench import bench

APP = """
def handler(event, context):
    yield "a"
    yield event["letter"]
"""
# stands where `tidalctl run` stands, so that a test of the bench does not wait for torch
STAND_IN = """
import json, sys, time
started = time.monotonic_ns()
text = sys.argv[sys.argv.index("--event") + 1]
event = json.loads(text if text.startswith("{") else open(text).read())
if "--require" in sys.argv:
    sys.exit("error: not by " + sys.argv[sys.argv.index("--require") + 1])
if event.get("fail"):
    sys.exit("error: the bundle broke\\nhint: mend it")
print("printed by the function", end="")
first = time.monotonic_ns()
report = {"schema": 1, "output": ["a", event.get("bundle_letter", event["letter"])], "strategy": "snapshot", "fallback": None,
          "own_s": 0.01, "phases": {"process start": 0.0, "compute": (time.monotonic_ns() - started) / 1e9},
          "started_ns": started, "first_token_ns": first, "done_ns": time.monotonic_ns()}
print(json.dumps(report))
print("printed by an exit handler")
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "stand_in" / "tidalctl"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "__main__.py").write_text(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(package.parent))


def run_command(*arguments: str) -> Any:
    app = typer.Typer()
    app.command("bench")(bench)
    return CliRunner().invoke(app, list(arguments))


# --- the processes


def plain_of(folder: Path, app: str, *argv: str) -> processes.PlainFunction:
    folder.mkdir(exist_ok=True)
    (folder / "app.py").write_text(textwrap.dedent(app))
    where = str(folder)
    return processes.PlainFunction(root=where, cwd=where, source="app.py", module="app", handler="handler", argv=argv)


def test_the_eager_clock_has_nothing_of_ours_in_it() -> None:
    tree = ast.parse(processes.CLOCK.read_text())
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert names <= {"time", "sys", "os", "json", "importlib", "importlib.util", "collections.abc", "typing"}


def test_the_plain_function_sees_what_python_app_py_would_show_it(tmp_path: Path) -> None:
    app = """
    import sys
    def handler(event, context):
        ours = sorted(name for name in sys.modules if name.startswith("tidalctl"))
        return [event, context.function_name, sys.argv, sys.path[0], ours, any(p.endswith("bench") for p in sys.path)]
    """
    run = processes.run_eager(plain_of(tmp_path, app, "--size", "3"), '{"x": "ü"}')
    assert run.output == [{"x": "ü"}, "app", [f"{tmp_path}/app.py", "--size", "3"], str(tmp_path), [], False]
    assert run.strategy == "plain" and run.own_s is None


def test_the_plain_function_has_the_given_context_and_its_output_is_converted(tmp_path: Path) -> None:
    plain = plain_of(tmp_path, "def handler(event, context): yield {event['n'], context.client_context.custom['tenant']}")
    plain = msgspec.structs.replace(plain, context='{"client_context": {"custom": {"tenant": "a"}}}', encode=True)
    assert processes.run_eager(plain, '{"n": 1}').output == [[1, "a"]]


def test_the_plain_function_may_be_async_or_of_another_shape(tmp_path: Path) -> None:
    app = "async def handler(event, context):\n    for n in range(event['n']):\n        yield n\n"
    assert processes.run_eager(plain_of(tmp_path / "async", app), '{"n": 2}').output == [0, 1]
    app = "class P:\n    def setup(self): self.x = 2\n    def predict(self, n): return n * self.x\n"
    plain = msgspec.structs.replace(plain_of(tmp_path / "cog", app), handler="P", shape="cog")
    assert processes.run_eager(plain, '{"n": 2}').output == 4


def test_the_first_token_the_end_and_the_exit_are_told_apart(tmp_path: Path) -> None:
    app = """
    import atexit, time
    atexit.register(time.sleep, 0.3)
    time.sleep(0.2)
    def handler(event, context):
        time.sleep(0.1)
        yield 1
        time.sleep(0.4)
        yield 2
    """
    run = processes.run_eager(plain_of(tmp_path, app), "{}")
    assert run.output == [1, 2]
    assert run.ttft_s >= 0.3 and run.ttft_s + 0.4 <= run.total_s and run.exit_s >= 0.3
    assert run.phases["imports"] >= 0.2 and run.phases["compute"] >= 0.5
    assert sum(run.phases.values()) == pytest.approx(run.total_s, abs=1e-6)
    assert run.ended_ns <= time.monotonic_ns()


def test_an_event_longer_than_an_argument_and_an_answer_larger_than_a_pipe_arrive(tmp_path: Path) -> None:
    text = json.dumps({"prompt": "ü" * 200_000})
    argument = processes.event_argument(text, tmp_path)
    assert argument == str(tmp_path / "event.json")
    assert processes.run_eager(plain_of(tmp_path, "def handler(e, c): return e['prompt'] * 5"), argument).output == "ü" * 10**6


@pytest.mark.parametrize(
    ("app", "said"),
    [
        ("def handler(e, c): raise ValueError('no such prompt')", "ValueError: no such prompt"),
        ("import os\ndef handler(e, c): os.kill(os.getpid(), 9)", "SIGKILL"),
        ("import os\ndef handler(e, c): os._exit(0)", "before its answer"),
        ("def handler(e, c): return iter(())", "no first token"),
        ("def handler(e, c): return {1, 2}", "not JSON serializable"),
    ],
)
def test_a_plain_function_that_fails_ends_the_bench(
    tmp_path: Path, app: str, said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(FunctionError, match=re.escape(said)):
        processes.run_eager(plain_of(tmp_path, app), "{}")
    assert "eager_clock" not in capfd.readouterr().err, "a traceback holds the user's frames alone"


def test_an_interrupted_bench_leaves_no_child(tmp_path: Path) -> None:
    note = tmp_path / "pid"
    app = f"import os, time\ndef handler(e, c):\n    open({str(note)!r}, 'w').write(str(os.getpid()))\n    time.sleep(60)"
    plain = plain_of(tmp_path, app)
    script = f"from tidalctl.bench.processes import *; run_eager(PlainFunction(**{msgspec.structs.asdict(plain)!r}), '{{}}')"
    parent = subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.DEVNULL, preexec_fn=interruptible)
    deadline = time.monotonic() + 20
    while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    parent.send_signal(signal.SIGINT)
    assert parent.wait(10) != 0
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


@pytest.mark.usefixtures("stand_in")
def test_a_bundle_that_fails_hands_on_its_error_and_hint(tmp_path: Path) -> None:
    with pytest.raises(TidalError) as caught:
        processes.run_bundle(tmp_path, plain_of(tmp_path, ""), '{"fail": true}')
    assert caught.value.message.endswith("the bundle broke") and caught.value.hint == "mend it"


# --- the whole


@pytest.mark.usefixtures("stand_in")
def test_runs_are_paired_and_change_places(tmp_path: Path) -> None:
    said: list[str] = []
    subject = open_subject(write_bundle(tmp_path, APP))
    result = session.measure(subject, {"letter": "b"}, 3, ["warm"], said.append)
    assert said[:2] == ["warm-up: eager", "warm-up: bundle"]
    assert [s.variant for s in result.samples] == ["eager", "bundle", "bundle", "eager", "eager", "bundle"]
    assert all(s.output_equal and s.cache_proved for s in result.samples)
    assert "the handler ran 8 times" in result.remarks
    for s in result.samples:
        assert 0 < s.ttft_s <= s.total_s and s.exit_s > 0 and s.idle_s is not None


@pytest.mark.usefixtures("stand_in")
def test_the_json_has_its_schema(tmp_path: Path) -> None:
    done = run_command(str(write_bundle(tmp_path, APP)), "--event", '{"letter": "b"}', "-n", "1", "--cache", "both", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert list(found) == ["schema", "machine", "bundle", "speedup", "medians", "verdicts", "samples"] and found["schema"] == 1
    assert found["medians"]["cold"]["bundle"]["count"] == 1 and found["verdicts"] == []
    assert set(found["machine"]) == {"cpu", "vectors", "cores", "memory_bytes", "python", "torch", "kernel", "date"}
    assert found["machine"]["torch"] == "9.9.9"
    assert [(s["cache"], s["variant"]) for s in found["samples"]] == [
        (c, v) for c in ("warm", "cold") for v in ("eager", "bundle")
    ]
    named = {"variant", "cache", "ttft_s", "total_s", "exit_s", "phases", "own_s", "output_equal", "resident_before"}
    for s in found["samples"]:
        assert named | {"cache_proved", "strategy"} <= set(s) and s["output_equal"] is True and isinstance(s["phases"], dict)
    warm = [s["ttft_s"] for s in found["samples"] if s["cache"] == "warm"]
    assert found["speedup"]["warm"] == pytest.approx(warm[0] / warm[1])


@pytest.mark.usefixtures("stand_in")
@pytest.mark.parametrize("options", [(), ("--json",)])
def test_differing_outputs_exit_1_after_the_numbers(tmp_path: Path, options: tuple[str, ...]) -> None:
    done = run_command(
        str(write_bundle(tmp_path, APP)), "--event", '{"letter": "b", "bundle_letter": "c"}', "-n", "1", *options
    )
    assert isinstance(done.exception, CheckFailed) and done.exception.exit_code == 1
    assert "1 of 2" in done.exception.message
    if options:
        assert [s["output_equal"] for s in json.loads(done.stdout)["samples"]] == [True, False]
    else:
        assert "outputs differ" in done.stdout and "warm: first token" in done.stdout
        write_bundle(tmp_path, APP, reproducible=False)
        done = run_command(str(tmp_path / "app.bundle"), "--event", '{"letter": "b", "bundle_letter": "c"}', "-n", "1")
        assert done.exit_code == 0 and "outputs are not compared" in " ".join(done.stdout.split())


def ship(bundle: Path, name: str, text: str) -> None:
    """Put one more file into a bundle."""
    (bundle / name).write_text(text)
    stored = BundleFile(size=len(text), sha256=sample_artifacts.sha256_of(text.encode()))
    manifest = open_bundle(bundle)
    sealed = seal(msgspec.structs.replace(manifest, files={**manifest.files, name: stored}))
    (bundle / MANIFEST).write_bytes(encode_manifest(sealed))


@pytest.mark.usefixtures("stand_in")
def test_a_required_strategy_is_required_of_the_runs_from_the_bundle(tmp_path: Path) -> None:
    done = run_command(str(write_bundle(tmp_path, APP)), "--event", '{"letter": "b"}', "-n", "1", "--require", "script")
    assert isinstance(done.exception, TidalError) and done.exception.message.endswith("not by script")


@pytest.mark.usefixtures("stand_in")
def test_source_that_changed_since_is_named(tmp_path: Path) -> None:
    bundle = write_bundle(tmp_path, APP)
    ship(bundle, "code/other.py", "x = 1\n")
    (tmp_path / "project" / "other.py").write_text("x = 2\n")
    result = session.measure(open_subject(bundle), {"letter": "b"}, 1, ["warm"], lambda _: None)
    assert any("other.py changed since" in remark for remark in result.remarks)
    done = run_command(str(bundle), "--event", '{"letter": "b", "bundle_letter": "c"}', "-n", "1")
    assert isinstance(done.exception, CheckFailed)
    assert done.exception.hint == "other.py changed since the bundle was made: trace and compile it again"
    (tmp_path / "project" / "app.py").write_text(APP + "\n# other\n")
    with pytest.raises(TidalError, match="is not the one that the bundle was made from"):
        open_subject(bundle)


def test_verify_tells_of_a_project_that_changed_or_is_gone(tmp_path: Path) -> None:
    fails = "    return 1 / (event['n'] or '--eager' not in sys.orig_argv)\n"
    bundle = write_bundle(tmp_path, f"import sys\ndef handler(event, context):\n{fails}")
    source = tmp_path / "project" / "app.py"
    source.write_text(APP + "\n# other\n")
    told = "note    app.py changed in the project: compared with the code as it was compiled"
    assert told in tidalctl("verify", bundle, "--event", '{"n": 1}', cwd=tmp_path).ok().out
    source.unlink()
    done = tidalctl("verify", bundle, "--event", '{"n": 0}', cwd=tmp_path).one_error("the plain function is gone")
    assert "skipped event 0: the plain function is gone" in done.out and "DIFFERS" not in done.out
    with pytest.raises(TidalError, match="the plain function is gone") as caught:
        open_subject(bundle)
    assert caught.value.hint and caught.value.exit_code == 2


@pytest.mark.parametrize("content", ["", "[]", '{"root": 5}', '{"root": "relative"}'])
def test_a_provenance_that_says_nothing_is_refused(tmp_path: Path, content: str) -> None:
    bundle = write_bundle(tmp_path, APP)
    (bundle / PROVENANCE).write_text(content)
    with pytest.raises(TidalError):
        open_subject(bundle)


def test_the_parent_imports_no_torch_and_maps_none(tmp_path: Path) -> None:
    """With the real `tidalctl run` as the child, which answers by running init the ordinary way, and says so."""
    bundle = write_bundle(tmp_path, APP)
    script = f"""
        import sys, types, typer
        from pathlib import Path
        from tidalctl.commands.bench import CacheChoice, bench
        bench(types.SimpleNamespace(args=[]), Path({str(bundle)!r}), ['{{"letter": "b"}}'], 1, CacheChoice.WARM, False)
        assert not [name for name in sys.modules if name.partition(".")[0] in ("torch", "numpy", "transformers")]
        assert "libtorch" not in open("/proc/self/maps").read()
    """
    done = python(textwrap.dedent(script), cwd=tmp_path, env={"NO_COLOR": "1", "FORCE_COLOR": "1", "COLUMNS": "200"}).ok()
    assert done.err == ""  # progress is for terminals
    shown = re.sub(r"\x1b\[[\d;]*m", "", done.out)
    assert 'init ran the ordinary way: state["model"].foo: a lambda' in shown
    assert re.search(r"warm: first token [\d.]+ times (sooner|later) \(.* → .*, one run each\)\s*$", shown)
    assert not re.search(r"\x1b\[[\d;]*3\d", done.out), "colour in spite of NO_COLOR"
