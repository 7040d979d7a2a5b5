"""The fixed part of a bundle's dynamic_init.py, as a module: what it finds in events and files, and what of them is digested."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from script_cases import json_rest

from tidalctl.artifacts.bundle.manifest import Guard
from tidalctl.compiler.script import support
from tidalctl.compiler.script.writer import conditions_source
from tidalctl.function.event_probe import digest_value

EQUAL = {"lang": support.digest(["en"]), "extra": support.digest({"absent": True})}


def test_digests_are_those_that_a_trace_holds() -> None:
    for value in ([1, 2.5, None, "ü\ud800"], {"absent": True}, {"b": [], "a": {}}):
        assert support.digest(value) == digest_value(value)


@pytest.mark.parametrize(
    ("event", "mismatch"),
    [
        ({"lang": "en", "scale": 2}, None),
        ({"lang": "en", "scale": 2.5, "more": 1}, None),
        ([], "the event is not a JSON object"),
        ({"lang": "de", "scale": 2}, 'event["lang"] is not the traced one'),
        ({"lang": "en", "scale": 2, "extra": None}, 'event["extra"] is not the traced one'),
        ({"scale": 2, "extra": 1}, 'event["lang"], event["extra"] are not the traced ones'),
        ({"lang": "en"}, 'event["scale"] is missing'),
        ({"lang": "en", "scale": True}, 'event["scale"] is not a number'),
    ],
)
def test_events_are_compared_by_the_fields_that_init_read(event: Any, mismatch: str | None) -> None:
    assert (support.event_mismatch(event, EQUAL) or support.type_mismatch(event, {"scale": "number"})) == mismatch


def test_no_field_that_init_read_fits_any_event() -> None:
    assert support.event_mismatch([1], {}) is None


@pytest.mark.parametrize(
    ("arguments", "code", "out", "err"),
    [
        (['{"a": 1}'], 0, "made\n", ""),
        (['{"a": 2}'], 1, "init makes its state: not this\n", ""),
        (['{"a": 3}'], 1, "init makes its state: spoiled\n", ""),
        ([], 2, "", "usage: "),
        (["{}", "{}"], 2, "", "usage: "),
        (["{"], 2, "", "not JSON"),
    ],
)
def test_alone_it_answers_or_says_why_not(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, out: str, err: str
) -> None:
    def answer(event: Any) -> list[str]:
        if event["a"] == 3:
            raise ValueError("spoiled")
        return ["made"]

    assert support.run_alone(arguments, lambda event: "not this" if event["a"] == 2 else None, answer) == code
    said = capsys.readouterr()
    assert said.out == out and err in said.err


def test_the_digest_of_json_covers_all_but_free_numbers() -> None:
    traced = json_rest({"r": 1, "b": [2, 1]}, "r")
    assert json_rest({"r": 7, "b": [2, 1]}, "r") == traced
    for other in ({"b": [2, 1], "r": 1}, {"r": 1, "b": [1, 2]}, {"r": 1, "b": [2, 1], "c": 0}, {"b": [2, 1]}):
        assert json_rest(other, "r") != traced


def test_a_header_gives_dtypes_and_shapes_and_its_digest_covers_metadata_and_order(tmp_path: Path) -> None:
    path, tensors = tmp_path / "a.safetensors", {"b": torch.ones(2, 3), "a": torch.ones(4, dtype=torch.int8)}
    save_file(tensors, path, {"format": "pt"})
    header = support.read_header(path)
    assert {key: (stored.dtype, stored.shape) for key, stored in header.items()} == {"a": ("I8", (4,)), "b": ("F32", (2, 3))}
    traced = support.content_digest(path, "safetensors")
    save_file({key: tensor * 2 for key, tensor in tensors.items()}, path, {"format": "pt"})
    assert support.content_digest(path, "safetensors") == traced
    save_file(tensors, path, {"format": "np"})
    assert support.content_digest(path, "safetensors") != traced
    save_file({"a": tensors["b"], "b": tensors["a"]}, path, {"format": "pt"})
    assert support.content_digest(path, "safetensors") != traced


def test_the_digest_of_a_torch_file_covers_all_but_what_tensors_hold(tmp_path: Path) -> None:
    one = torch.ones(2, 3)

    def digest(value: Any) -> str:
        torch.save(value, tmp_path / "x.pt")
        return support.content_digest(tmp_path / "x.pt", "torch")

    traced = digest({"a": one, "b": one.t(), "c": 1})
    other = torch.zeros(2, 3)
    assert digest({"a": other, "b": other.t(), "c": 1}) == traced
    for value in (
        {"a": one, "b": other.t(), "c": 1},  # which do not share memory
        {"b": one.t(), "a": one, "c": 1},
        {"a": one, "b": one.t(), "c": 2},
        {"a": one.half(), "b": one.t(), "c": 1},
    ):
        assert digest(value) != traced


def test_a_torch_file_holds_a_tensor_at_a_dotted_path() -> None:
    tensor = torch.ones(1)
    for loaded, key in (
        (tensor, "state"),
        ({"a.b": tensor}, "a.b"),
        ({"a": {"b": tensor}}, "a.b"),
        ({"a": [0, {"b.c": tensor}]}, "a.1.b.c"),
        ({"a": 1, "a.b": {"c": tensor}}, "a.b.c"),
    ):
        assert support.tensor_at(loaded, key) is tensor
    with pytest.raises(KeyError):
        support.tensor_at({"a": {"b": 1}}, "a.b")


def test_any_other_file_must_be_as_traced_and_a_file_must_be_one(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("traced")
    file = {"kind": "other", "rest": (support.content_digest(path, "other"),), "free": {}}
    assert support.file_mismatch(str(path), file, "words", {}) is None
    path.write_text("other")
    assert support.file_mismatch(str(path), file, "words", {}) == f"{path} is none of the traced ones"
    assert support.file_mismatch(str(tmp_path), file, "words", {}) == f"there is no file {tmp_path}"


def test_numbers_agree_in_value_and_type() -> None:
    assert support.disagreement([(1,), (2, 2, 2), (0.5, 0.5)]) is None
    assert support.disagreement([(1, 1.0)]) == "numbers that were equal in the traces are not: 1, 1.0"
    assert "ZeroDivisionError" in str(support.disagreement((1 / n,) for n in (1, 0)))


def test_paths_are_texts_each_given_once() -> None:
    paths = {"a": "x", "b": "y", "c": "x"}
    assert support.path_list(lambda event: dict(paths), {}) == ["x", "y"]
    with pytest.raises(TypeError):
        support.path_list(lambda event: {"a": 1}, {})
    with pytest.raises(LookupError):
        support.path_list(lambda event: {"a": event[0]}, [])


def test_a_bundle_without_a_program_has_the_part_about_events_alone() -> None:
    whole = Path(support.__file__).read_text(encoding="utf-8")
    text = conditions_source("app:handler", "load", "snapshot", Guard(static=True))
    part = whole.partition("\n\n# ---- files:")[0]
    assert part in text and "def run_alone(" in part and "def content_digest(" not in text
    given = json.dumps({"a": 1})
    done = subprocess.run([sys.executable, "-I", "-", given], input=text, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the snapshot is its state\n", "")
