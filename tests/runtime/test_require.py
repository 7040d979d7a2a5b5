"""A fallback is never green by accident: `--require`, `verify --here`, and what `load_bundle` tells of its first start."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch
from conftest import Chain, Done, forked, python, tidalctl
from sample_artifacts import fingerprint, sha256_of, write_bundle

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.manifest import PACK, PROVENANCE, BundleFile, Fallback, decode_manifest, encode_manifest, seal
from tidalctl.artifacts.bundle.provenance import changed_sources
from tidalctl.artifacts.cause import Cause, Reason
from tidalctl.artifacts.errors import StateNotUsed
from tidalctl.artifacts.fingerprint import cpu_flags
from tidalctl.artifacts.remedy import remedy
from tidalctl.runtime.load_bundle import load_bundle
from tidalctl.runtime.requirement import Requirement

PINNED = {"DECODER_WAIT": ""}  # unset in the trace, and as good as unset for the function
EVENT = {"prompt": [3, 1, 4], "max_new_tokens": 2}
CALL = "    state = load(event)\n"
CATCHES = """    torch.set_default_dtype(torch.float64)
    try:
        state = load(event)
    except Exception:  # as users write it; what is tested is that it hides nothing
        yield "an answer without a model"
        return
"""


@pytest.fixture(scope="module")
def other(decoder: Chain, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The decoder's bundle with a handler that changes a setting before it calls init, and says nothing of what that raises."""
    bundle = Path(shutil.copytree(decoder.bundle, tmp_path_factory.mktemp("other") / "app.bundle"))
    manifest = decode_manifest((bundle / MANIFEST).read_bytes(), bundle)
    code = (bundle / "code" / "app.py").read_text().replace(CALL, CATCHES)
    assert CATCHES in code
    (bundle / "code" / "app.py").write_text(code)
    (bundle / PACK).unlink()
    files = {name: stored for name, stored in manifest.files.items() if name != PACK}
    files["code/app.py"] = BundleFile(size=len(code.encode()), sha256=sha256_of(code.encode()))
    changed = seal(msgspec.structs.replace(manifest, files=files, pack=""))
    (bundle / MANIFEST).write_bytes(encode_manifest(changed))
    return bundle


Start = Callable[..., Done]


@pytest.fixture
def start(decoder: Chain) -> Start:
    """Answer the event, in a fork of this process: only for what is refused before the function computes."""

    def run(bundle: Path, *options: str, **env: str) -> Done:
        return forked("run", bundle, "--event", json.dumps(EVENT), *options, cwd=decoder.folder, env=env)

    return run


def test_what_is_known_before_the_import_is_refused_there(decoder: Chain, start: Start) -> None:
    done = start(decoder.bundle, "--require", "snapshot", "--json", **PINNED)
    done.one_error("DECODER_WAIT", "(environment-differs)", "set it as it was in the trace", code=1)
    assert done.out == ""
    start(decoder.bundle, "--require=replay").one_error("(strategy-differs)", "by snapshot, not by replay", code=1)
    start(decoder.bundle, "--require", "snapshot", "--eager").one_error("(eager-asked-for)", "leave --eager out", code=1)
    start(decoder.bundle, "--require", "eager").one_error("'eager' is not one of")
    start(decoder.bundle, "--require", "snapshot", "--", "--x").one_error("(arguments-differ)", code=1)


def test_what_shows_where_init_is_called_is_refused_there_though_the_function_catches_it(other: Path, start: Start) -> None:
    told = start(other, "--require", "snapshot")
    told.one_error("torch's default dtype", "(setting-differs)", code=1)
    assert told.out == "", "an answer without the state was printed"


def test_a_start_that_never_calls_init_has_not_used_the_state(tmp_path: Path, start: Start) -> None:
    here = fingerprint(cpu_capability=torch.backends.cpu.get_cpu_capability(), cpu_flags=cpu_flags())
    write_bundle(tmp_path / "app.bundle", strategy="replay", fingerprint=here)
    done = start(tmp_path / "app.bundle", "--require", "replay")
    assert done.one_error("(init-not-called)", "app:load", code=1).out == ""
    assert json.loads(start(tmp_path / "app.bundle").ok().out) == EVENT


def test_a_bundle_without_the_strategy_names_what_kept_it_from_it(tmp_path: Path) -> None:
    lost = (Fallback(part="state", strategy="replay", cause="init looks at values", code="values-read"),)
    manifest = write_bundle(tmp_path / "app.bundle", strategy="replay", fallbacks=lost)
    with pytest.raises(StateNotUsed, match=r"by replay, not by snapshot: init looks at values \(values-read\)") as caught:
        Requirement(manifest, "snapshot").check(None)
    assert (caught.value.code, caught.value.exit_code) == ("strategy-differs", 1)
    Requirement(manifest, "replay").check(None)
    Requirement(manifest, None).check(Cause.CALL_DIFFERS.of(init="app:load"))
    eager = write_bundle(tmp_path / "eager.bundle")
    reason = Reason(code=eager.fallbacks[0].code, text=eager.fallbacks[0].cause)
    with pytest.raises(StateNotUsed, match=r"a lambda \(not-picklable\)") as caught:
        load_bundle(tmp_path / "eager.bundle", require="snapshot")
    assert caught.value.hint == remedy(reason) and "docs/troubleshooting.md#not-picklable" in caught.value.hint


# --- verify --here


def test_verify_tells_all_that_differs_here_and_what_a_start_compares_besides(decoder: Chain) -> None:
    fine = forked("verify", decoder.bundle, "--here", cwd=decoder.folder).ok()
    assert "ok      here: a start uses the bundle's state (snapshot)" in fine.out
    assert all(
        condition in fine.out for condition in ("torch's settings (", "the working directory", "where app:load is called")
    )
    other = {**PINNED, "ATEN_CPU_CAPABILITY": "default"}
    done = tidalctl("verify", decoder.bundle, "--here", "--json", "--", "--x", cwd=decoder.folder, env=other)
    done.one_error("would run init here", "and 2 more", code=1)
    found = json.loads(done.out)
    assert [reason["code"] for reason in found["here"]["mismatches"]] == [
        "arguments-differ",
        "environment-differs",
        "cpu-differs",
    ]
    assert found["ok"] is False and len(found["differences"]) == 3


def test_verify_tells_of_another_python_and_of_what_keeps_a_bundle_eager(tmp_path: Path) -> None:
    write_bundle(tmp_path / "app.bundle", fingerprint=fingerprint(python="2.7.1"))
    done = forked("verify", "app.bundle", "--here", cwd=tmp_path).one_error("can't start here", "Python 2.7", code=1)
    assert "here: the bundle was made for Python 2.7" in done.out and "a lambda (not-picklable)" in done.out
    forked("verify", "app.bundle", "--", "--x", cwd=tmp_path).one_error("nothing runs it")


# --- load_bundle

FIRST = """
import json, logging, sys, tidalctl
from tidalctl.artifacts.errors import StateNotUsed
logging.basicConfig(level=logging.INFO, format="%(name)s %(levelname)s %(message)s", stream=sys.stdout)
try:
    print(tidalctl.load_bundle(sys.argv[1], require="replay"))
except StateNotUsed as error:
    print("refused", error.code)
starts = []
function = tidalctl.load_bundle(sys.argv[1], on_start=starts.append)
before = function.start
answers = ["".join(function(json.loads(sys.argv[2]))) for _ in range(2)]
start = function.start
cause = start.cause and start.cause.code
print(json.dumps([before, answers[0] == answers[1], start.strategy, cause, start.phases, starts == [start]]))
"""


@pytest.mark.parametrize(
    ("env", "level", "strategy", "cause"),
    [({}, "INFO", "snapshot", None), (PINNED, "WARNING", "eager", "environment-differs")],
    ids=["used", "fallback"],
)
def test_load_bundle_tells_of_its_first_start_once(
    decoder: Chain, env: dict[str, str], level: str, strategy: str, cause: str | None
) -> None:
    done = python(FIRST, decoder.bundle, json.dumps(EVENT), cwd=decoder.folder, env=env)
    before, same, *seen, phases, called_once = done.report
    assert (before, same, seen, called_once) == (None, True, [strategy, cause], True)
    assert {"start", "imports", "compute"} <= phases.keys() and (("init" in phases) == (strategy == "eager"))
    lines = [line for line in done.out.splitlines() if line.startswith("tidalctl ")]
    assert len(lines) == 1 and lines[0].startswith(f"tidalctl {level} ") and str(decoder.bundle) in lines[0]
    assert f"({cause})" in lines[0] if cause else "by snapshot" in lines[0]
    assert f"refused {cause or 'strategy-differs'}" in done.out


# --- what a start says of itself


def test_a_changed_project_is_told_and_unused_weights_are_not_counted(decoder: Chain, spoiled: Path, tmp_path: Path) -> None:
    project = Path(shutil.copytree(decoder.project, tmp_path / "changed"))
    (project / "app.py").write_text(
        (project / "app.py").read_text().replace("WIDTH = 96", "WIDTH = 97")
    )  # its size is the same
    body: dict[str, Any] = json.loads((spoiled / PROVENANCE).read_bytes())
    (spoiled / PROVENANCE).write_text(json.dumps(body | {"root": "../changed"}))
    page = tmp_path / "start.html"
    done = tidalctl("run", spoiled, "--event", json.dumps(EVENT), "--report", page, cwd=tmp_path, env=PINNED).ok()
    assert done.lines("note:") == ["note: app.py changed in the project: the bundle runs the code as it was compiled"]
    assert "no weights from the bundle, 18" in done.err and "checked)" not in done.err
    assert "none from the bundle" in page.read_text()


def test_a_source_has_changed_if_its_size_differs_or_it_is_newer_and_not_the_same(tmp_path: Path) -> None:
    manifest = write_bundle(tmp_path / "app.bundle", "x = 1\n")
    source = tmp_path / "app.py"

    def changed(text: str, compiled: str) -> list[str]:
        source.write_text(text)
        return changed_sources(manifest, tmp_path, compiled)

    long_ago, later = "2020-01-01T00:00:00+00:00", "2100-01-01T00:00:00+00:00"
    assert changed("x = 1\n", long_ago) == []
    assert changed("x = 2\n", long_ago) == ["app.py"] == changed("x = 12\n", later)
    assert changed("x = 2\n", later) == [] == changed("x = 12\n", "no time")
    source.unlink()
    assert changed_sources(manifest, tmp_path, long_ago) == []
