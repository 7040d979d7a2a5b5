"""`tidalctl inspect` and `tidalctl verify`: what they show of a trace and a bundle, and what they find wrong with one."""

import json
import os
from pathlib import Path
from typing import Any

import msgspec
import pytest
import typer
from conftest import tidalctl
from sample_artifacts import EVENT, sample_records, write_bundle, write_trace
from typer.testing import CliRunner

from tidalctl.artifacts.bundle import MANIFEST
from tidalctl.artifacts.bundle.directory import open_bundle
from tidalctl.artifacts.bundle.manifest import SCHEMA, encode_manifest, seal
from tidalctl.artifacts.errors import CheckFailed, Corrupt, NewerSchema, NotAnArtifact, TidalError
from tidalctl.artifacts.trace import records as tr
from tidalctl.commands.inspect import inspect
from tidalctl.commands.verify import compare_event, verify
from tidalctl.function.output_comparison import first_difference
from tidalctl.report.terminal import MAX_ROWS, count_text, printable, seconds_text, size_text

app = typer.Typer(rich_markup_mode=None)
app.command("inspect")(inspect)
app.command("verify")(verify)


def call(*arguments: object, columns: int | None = 80) -> str:
    """What a verb printed. An error that it raised is raised here."""
    code, output = call_failing(*arguments, columns=columns)
    assert code is None
    return output


def call_failing(*arguments: object, columns: int | None = 80) -> tuple[TidalError | None, str]:
    environment = {"COLUMNS": str(columns) if columns else None}
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], env=environment)
    if result.exception is not None and not isinstance(result.exception, TidalError):
        raise result.exception
    return result.exception, result.stdout


@pytest.fixture
def trace_file(tmp_path: Path) -> Path:
    write_trace(tmp_path / "app.trace", sample_records())
    return tmp_path / "app.trace"


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    write_bundle(tmp_path / "app.bundle")
    return tmp_path / "app.bundle"


# inspect


def test_json_of_a_trace_holds_every_record(trace_file: Path) -> None:
    document = json.loads(call("inspect", trace_file, "--json"))
    assert (document["schema"], document["kind"], document["complete"], document["failure"]) == (1, "trace", True, None)
    assert document["function"] == {
        "module": "app",
        "handler": "handler",
        "source": "app.py",
        "inits": ["app:load"],
        "static": False,
        "encode": False,
        "shape": "",
    }
    assert [weight["index"] for weight in document["weights"]] == [1, 0, 2]
    assert [bool(weight["first_uses"]) for weight in document["weights"]] == [True, True, False]
    assert document["weights"][0]["written"] == [{"weight": 1, "event": 0, "operator": "aten.add_"}]
    assert [(module["name"], module["ran"]) for module in document["imports"]] == [
        ("heavy", False),
        ("heavy.core", True),
        ("heavy.late", False),
        ("os", None),
    ]
    assert document["late_imports"] == ["heavy.late"]
    assert document["invocations"][0]["first_launch_tax_s"] == 0.25
    assert document["kernels"][0]["operator"] == "aten.linear"
    assert document["environment"]["distributions"] == {"heavy": "1.0"}
    for key in ("events", "init", "files", "cost", "argv", "root"):
        assert document[key]


def test_a_trace_is_shown_on_80_columns(trace_file: Path) -> None:
    shown = call("inspect", trace_file)
    assert max(map(len, shown.splitlines())) <= 80
    for words in (
        "complete, 21 records",
        "app:handler in app.py",
        "imports: 4 modules, 2.63 s; 2 ran nothing in the handler, 1.62 s",
        "weights in access order: 2 weights, 128 B",
        "weights never used: 1 weight, 64 B",
        "kernels: 1 signature, 12 launches, 250 ms",
        "heavy.late",
        "aten.embedding",
        "plan",
    ):
        assert words in shown
    assert shown.index("model.embedding") < shown.index("model.head") < shown.index("model.spare")


def test_what_goes_into_a_pipe_is_not_cut(tmp_path: Path) -> None:
    records = sample_records()
    name = "model." + "deep." * 60 + "weight"
    records[7] = msgspec.structs.replace(records[7], names=(name,))
    write_trace(tmp_path / "app.trace", records)
    assert name not in call("inspect", tmp_path / "app.trace", columns=80)
    shown = call("inspect", tmp_path / "app.trace", columns=None)
    assert name in shown
    assert all(len(line) < 1000 and line == line.rstrip() for line in shown.splitlines())


def test_long_tables_end_with_how_many_more_there_are(tmp_path: Path) -> None:
    records = sample_records()
    module = tr.Import(name="m", file="/lib/m.py", self_s=0.1, total_s=0.1, phase="import")
    records[1:1] = [msgspec.structs.replace(module, name=f"m{number}") for number in range(260 + MAX_ROWS - 4)]
    write_trace(tmp_path / "app.trace", records)
    assert "… and 260 more, --json has all" in call("inspect", tmp_path / "app.trace")
    assert len(json.loads(call("inspect", tmp_path / "app.trace", "--json"))["imports"]) == 260 + MAX_ROWS


def test_an_incomplete_trace_says_so_and_why(tmp_path: Path) -> None:
    failure = tr.Failure(phase="init", message="FileNotFoundError: no model")
    write_trace(tmp_path / "app.trace", [*sample_records()[:6], failure], complete=False)
    shown = call("inspect", tmp_path / "app.trace")
    assert "incomplete" in shown
    assert "in init: FileNotFoundError: no model" in shown
    document = json.loads(call("inspect", tmp_path / "app.trace", "--json"))
    assert (document["complete"], document["failure"]["phase"], document["environment"]) == (False, "init", None)
    write_trace(tmp_path / "app.trace", sample_records()[:1], complete=False)
    assert "incomplete, 1 record" in call("inspect", tmp_path / "app.trace")


def test_json_of_a_bundle_holds_the_whole_manifest(bundle: Path) -> None:
    manifest = open_bundle(bundle)
    document = json.loads(call("inspect", bundle, "--json"))
    assert (document["schema"], document["kind"], document["digest"]) == (1, "bundle", manifest.digest)
    assert [weight["name"] for weight in document["weights"]] == [weight.name for weight in manifest.weights]
    assert {file["name"] for file in document["files"]} == manifest.files.keys()
    assert [(module["name"], module["ran"]) for module in document["modules"]] == [
        ("app", True),
        ("heavy", False),
        ("heavy.core", True),
    ]
    assert document["prewarm"][0]["operator"] == "aten.linear"
    assert document["dynamic_init"]["text"].startswith("def serves")
    assert document["fallbacks"][0]["cause"] == 'state["model"].foo: a lambda'
    assert document.keys() >= set(manifest.__struct_fields__) - {"format"}


def test_a_bundle_is_shown_on_80_columns(bundle: Path) -> None:
    shown = call("inspect", bundle)
    assert max(map(len, shown.splitlines())) <= 80
    for words in ("in 4 files", "embedding", "gguf.dequantize", "a lambda", "prewarm: 1 kernel", "def serves(event):", "plan"):
        assert words in shown


def test_nothing_in_an_artifact_can_drive_the_terminal(tmp_path: Path) -> None:
    nasty = "evil\x1b[2J\x07[bold]\r\u202e:boom:"
    records = sample_records()
    records[7] = msgspec.structs.replace(records[7], names=(nasty,))
    records[0] = msgspec.structs.replace(records[0], root=nasty)
    write_trace(tmp_path / "app.trace", records)
    shown = call("inspect", tmp_path / "app.trace", columns=300)
    assert "evil\\x1b[2J\\x07[bold]\\r\\u202e:boom:" in shown
    assert not any(c in shown for c in "\x1b\x07\r\u202e")


def test_inspect_refuses_what_was_damaged(bundle: Path, trace_file: Path) -> None:
    (bundle / "prewarm.json").write_bytes((bundle / "prewarm.json").read_bytes().replace(b"linear", b"LINEAR"))
    assert isinstance(call_failing("inspect", bundle)[0], Corrupt)
    trace_file.write_bytes(trace_file.read_bytes().replace(b"heavy.late", b"heavy.LATE"))
    assert isinstance(call_failing("inspect", trace_file)[0], Corrupt)
    trace_file.write_bytes(b"not a trace")
    assert isinstance(call_failing("inspect", trace_file)[0], NotAnArtifact)


# verify


def test_a_bundle_as_it_was_written_passes(bundle: Path) -> None:
    shown = call("verify", bundle)
    assert "DIFFERS" not in shown
    assert "weights.safetensors: 3 weights" in shown
    document = json.loads(call("verify", bundle, "--json"))
    assert (document["schema"], document["ok"], document["differences"], document["events"]) == (1, True, [], [])
    assert all(check["ok"] for check in document["checks"])


def _verify(bundle: Path) -> dict[str, str]:
    """The differences that verify found, by file."""
    error, shown = call_failing("verify", bundle, "--json")
    assert isinstance(error, CheckFailed) and error.exit_code == 1
    document = json.loads(shown)
    assert not document["ok"] and document["differences"]
    return {found["where"]: found["what"] for found in document["differences"]}


def test_all_differences_are_told_not_just_the_first(bundle: Path) -> None:
    (bundle / "code/app.py").write_bytes(b"evil")
    (bundle / "prewarm.json").unlink()
    (bundle / "dynamic_init.py").write_bytes((bundle / "dynamic_init.py").read_bytes()[:-1] + b"#")
    (bundle / "code/planted.py").write_bytes(b"")
    found = _verify(bundle)
    assert found.keys() == {"code/app.py", "prewarm.json", "dynamic_init.py", "code/planted.py"}
    assert found["prewarm.json"] == "is missing"
    assert found["code/planted.py"] == "is not in the manifest"
    error, shown = call_failing("verify", bundle)
    assert error is not None and "4 differences" in error.message
    assert all(name in shown for name in found)


def test_a_flipped_bit_in_a_weight_is_told_by_the_weights_name(bundle: Path) -> None:
    file, weight = bundle / "weights.safetensors", open_bundle(bundle).weights[2]
    data = bytearray(file.read_bytes())
    data[weight.offset + 5] ^= 1
    file.write_bytes(data)
    assert (
        _verify(bundle)["weights.safetensors"] == f"weight {weight.name} is not what compile wrote (its sha256 and xxh3 differ)"
    )
    file.write_bytes(data[:20])
    assert "header" in _verify(bundle)["weights.safetensors"]


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"offset": 0}, "bytes at"),
        ({"name": "model.other"}, "does not name"),
        ({"shape": (4, 5)}, "another dtype or shape"),
        ({"dtype": "float16"}, "another dtype or shape"),
        ({"address": 8}, "not 8 bytes behind a multiple of 64"),
        ({"address": 64}, "not 64 bytes behind"),
    ],
)
def test_a_manifest_that_disagrees_with_the_weights_header_is_told(bundle: Path, changed: dict[str, Any], what: str) -> None:
    manifest = open_bundle(bundle)
    weights = (msgspec.structs.replace(manifest.weights[0], **changed), *manifest.weights[1:])
    (bundle / MANIFEST).write_bytes(encode_manifest(seal(msgspec.structs.replace(manifest, weights=weights))))
    error, shown = call_failing("verify", bundle)
    assert isinstance(error, CheckFailed) and what in shown
    (bundle / MANIFEST).write_bytes(encode_manifest(seal(msgspec.structs.replace(manifest, weights=manifest.weights[::-1]))))
    assert "another order" in _verify(bundle)["weights.safetensors"]


def test_a_manifest_of_other_bytes_is_told_though_it_says_the_same(bundle: Path) -> None:
    (bundle / MANIFEST).write_bytes((bundle / MANIFEST).read_bytes().rstrip())
    assert "other bytes" in _verify(bundle)[MANIFEST]


def test_a_damaged_manifest_is_a_difference_and_no_bundle_is_a_usage_error(bundle: Path, tmp_path: Path) -> None:
    data = (bundle / MANIFEST).read_bytes()
    (bundle / MANIFEST).write_bytes(data.replace(b"eager", b"EAGER"))
    assert "digest differs" in _verify(bundle)[MANIFEST]
    (bundle / MANIFEST).write_bytes(data.replace(f'"schema": {SCHEMA}'.encode(), b'"schema": 77'))
    assert isinstance(call_failing("verify", bundle)[0], NewerSchema)
    (bundle / MANIFEST).unlink()
    for path in (bundle, tmp_path / "nothing", Path(__file__)):
        error, _ = call_failing("verify", path)
        assert isinstance(error, NotAnArtifact) and error.exit_code == 2
    write_bundle(bundle, reproducible=False)
    error, _ = call_failing("verify", bundle, "--event", "[1]")
    assert error is not None and error.exit_code == 2
    assert "outputs are not compared" in call("verify", bundle, "--event", "{}")


def test_an_event_is_answered_as_the_plain_function_answers_it(tmp_path: Path) -> None:
    write_bundle(
        tmp_path / "app.bundle", "def handler(event, context):\n    print('no line end', end='')\n    yield event['prompt']\n"
    )
    document = json.loads(call("verify", tmp_path / "app.bundle", "--event", json.dumps(EVENT), "--json"))
    (run,) = document["events"]
    assert (run["compared"], run["equal"], document["ok"]) == (True, True, True)
    assert run["runs"]["bundle"]["output"] == [EVENT["prompt"]]


def test_an_answer_that_differs_from_the_plain_functions_fails(tmp_path: Path) -> None:
    code = "import sys\ndef handler(event, context):\n    return {'plain': ['--eager' in sys.orig_argv, 1]}\n"
    manifest = write_bundle(tmp_path / "app.bundle", code)
    run = compare_event(tmp_path / "app.bundle", manifest, "{}")
    assert run.equal is False
    assert run.what == "output['plain'][0] is false from the bundle, true from the plain function"


def test_where_the_plain_function_fails_too_nobody_is_sent_to_compile_again(tmp_path: Path) -> None:
    write_bundle(tmp_path / "app.bundle", "def handler(event, context):\n    raise KeyError('prompt')\n")
    done = tidalctl("verify", "app.bundle", "--event", "{}", cwd=tmp_path)
    done.one_error("both raise the same: KeyError: 'prompt'", "with the same error: compare an event that it answers", code=1)
    assert "failed  event 0: both raise the same: KeyError: 'prompt'" in done.out and "DIFFERS" not in done.out


def test_nothing_is_run_from_a_bundle_whose_files_differ(tmp_path: Path) -> None:
    write_bundle(tmp_path / "app.bundle")
    (tmp_path / "app.bundle/code/app.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    error, shown = call_failing("verify", tmp_path / "app.bundle", "--event", "{}")
    assert isinstance(error, CheckFailed)
    assert "skipped" in shown
    assert not os.path.exists(tmp_path / "ran")


def test_the_first_difference_names_its_place() -> None:
    assert first_difference([1, {"a": [2, 3]}], [1, {"a": [2, 4]}]).startswith("output[1]['a'][1] is 3 ")
    assert first_difference({"a": 1}, {"b": 1}).startswith("output is ")


# the words of the terminal


def test_sizes_and_times_have_three_digits_and_counts_and_names_read_well() -> None:
    sizes = {0: "0 B", 999: "999 B", 1000: "1.00 kB", 999_600: "1.00 MB", 269_060_552: "269 MB", 1e19: "10000 PB"}
    assert [size_text(nbytes) for nbytes in sizes] == list(sizes.values())
    times = {18.63: "18.6 s", 0.9996: "1.00 s", 0.012: "12.0 ms", 3.4e-4: "340 µs", -0.25: "-250 ms", 125: "125 s", 0: "0 s"}
    assert [seconds_text(seconds) for seconds in times] == list(times.values())
    assert seconds_text(None) == seconds_text(float("nan")) == "–"
    assert (count_text(1, "weight"), count_text(2400, "launch", "launches")) == ("1 weight", "2,400 launches")
    assert printable("wéight 🌊") == "wéight 🌊"
    assert printable("a\nb\ud800") == "a\\nb\\ud800"
