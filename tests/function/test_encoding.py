"""Outputs that are not JSON: each kind is told with its path and a remedy, or converted by the table in docs/handler.md."""

import collections
import dataclasses
import datetime
import decimal
import enum
import json
import re
import subprocess
import sys
import types
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import pytest
import torch

from tidalctl.artifacts.errors import FunctionError
from tidalctl.function.encoding import encoded
from tidalctl.function.outputs import answer_of, json_text

PAGE = Path(__file__).parents[2] / "docs" / "handler.md"
DAY = datetime.datetime(2024, 1, 2, 3, 4, 5)


@dataclasses.dataclass
class Prediction:
    label: str
    score: Any


class Color(enum.Enum):
    RED = "red"


class Answer(pydantic.BaseModel):
    text: str
    at: datetime.date


# by the rows of the page's table: values, what is said of each, and what each becomes
KINDS: dict[str, list[tuple[Any, str, Any]]] = {
    "torch tensor": [
        (torch.tensor(0.5), "a float32 tensor", 0.5),
        (torch.ones(1, 2, dtype=torch.bfloat16, requires_grad=True), "a bfloat16 tensor", [[1.0, 1.0]]),
    ],
    "NumPy array": [
        (np.ones((2, 1), dtype=np.float16), "a NumPy array of float16", [[1.0], [1.0]]),
        (np.array([np.datetime64(DAY)]), "a NumPy array of datetime64", ["2024-01-02T03:04:05"]),
    ],
    "NumPy scalar": [
        (np.float32(0.5), "a NumPy scalar (float32)", 0.5),
        (np.True_, "a NumPy scalar (bool)", True),
        (np.datetime64(DAY, "ns"), "a NumPy scalar (datetime64[ns])", "2024-01-02T03:04:05"),
    ],
    "pydantic model": [(Answer(text="a", at=DAY.date()), "a pydantic model (Answer)", {"text": "a", "at": "2024-01-02"})],
    "dataclass": [(Prediction("a", np.int64(3)), "a dataclass (Prediction)", {"label": "a", "score": 3})],
    "enumeration's member": [(Color.RED, "an enumeration's member (Color)", "red")],
    "bytes, bytearray, memoryview": [
        (b"\xff\x00", "a bytes", "/wA="),
        (bytearray(b"a"), "a bytearray", "YQ=="),
        (memoryview(b"a"), "a memoryview", "YQ=="),
    ],
    "datetime, date, time": [
        (DAY, "a datetime.datetime", "2024-01-02T03:04:05"),
        (DAY.date(), "a datetime.date", "2024-01-02"),
        (DAY.time(), "a datetime.time", "03:04:05"),
    ],
    "timedelta": [(datetime.timedelta(minutes=1), "a datetime.timedelta", 60.0)],
    "Decimal, UUID, path": [
        (decimal.Decimal("0.10"), "a decimal.Decimal", "0.10"),
        (uuid.UUID(int=1), "an uuid.UUID", "00000000-0000-0000-0000-000000000001"),
        (Path("a/b"), "a pathlib.PosixPath", "a/b"),
    ],
    "complex number": [(1 + 2j, "a complex", [1.0, 2.0])],
    "set": [
        ({11, 2, "a", 0.5}, "a set", [0.5, 2, 11, "a"]),
        (frozenset({(2, "b"), (1, "c")}), "a frozenset", [[1, "c"], [2, "b"]]),
    ],
    "other mapping": [(types.MappingProxyType({"a": 1}), "a mappingproxy", {"a": 1})],
    "other sequence": [(range(3), "a range", [0, 1, 2]), (collections.deque([1]), "a collections.deque", [1])],
}
CASES = [pytest.param(*case, id=f"{row}: {case[1]}") for row, cases in KINDS.items() for case in cases]


@pytest.mark.parametrize(("value", "words", "becomes"), CASES)
def test_a_value_that_is_not_json_is_told_with_its_path_and_remedy_or_converted(value: Any, words: str, becomes: Any) -> None:
    output = {"predictions": [{"score": value, "top 5": value}]}
    with pytest.raises(FunctionError) as caught:
        json_text(output)
    assert f"predictions[0].score: {words}" in caught.value.message
    assert caught.value.hint is not None and caught.value.hint.endswith("or trace with --encode, which converts it")
    made = encoded(output)
    assert made == {"predictions": [{"score": becomes, "top 5": becomes}]}
    assert json_text(made) == json_text(encoded(output)), "the same text each time"


def test_the_page_lists_what_is_converted() -> None:
    table = PAGE.read_text().partition("| value |")[2].partition("\n\n")[0]
    assert re.findall(r"^\| ([^|-]+?) \|", table, flags=re.MULTILINE) == list(KINDS)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (torch.tensor(float("nan")), "NaN"),
        ([1.0, float("-inf")], "[1]: an infinity"),
        ({"a": ["\ud800"]}, "a[0]: a string with half a character"),
        ({"a": object()}, "a: an object"),
        ({("a", 1): 2}, "a dict with a tuple as a key"),
        (torch.ones(2).to_sparse(), "a float32 tensor, which can't be converted"),
        (np.longdouble(1), "which can't be converted"),
    ],
    ids=["nan", "infinity", "surrogate", "object", "key", "sparse", "long double"],
)
def test_what_json_can_not_hold_is_an_error_when_converted_too(value: Any, told: str) -> None:
    with pytest.raises(FunctionError, match=re.escape(told)) as caught:
        answer_of(value, None, encode=True)
    assert "--encode" not in str(caught.value.hint)


def test_a_list_that_holds_itself_and_a_piece_of_a_stream_are_named() -> None:
    loop: list[Any] = [1]
    loop.append(loop)
    with pytest.raises(FunctionError, match=re.escape("[1]: a list that holds itself")):
        json_text(loop)
    with pytest.raises(FunctionError, match=re.escape("JSON: piece 3: a float32 tensor")):
        json_text(torch.ones(1), 3)


def test_keys_are_converted_where_json_has_such_keys() -> None:
    counts = {np.int64(3): 1, None: 2, "a b": {1, 2}}
    with pytest.raises(FunctionError, match=re.escape("a dict with a NumPy scalar (int64) as a key")):
        json_text(counts)
    assert json.loads(json_text(encoded(counts))) == {"3": 1, "null": 2, "a b": [1, 2]}


def test_json_is_left_as_it_is_and_no_library_is_imported() -> None:
    value = {"a": [1, 2.5, None, True, "ü"], "b": (1, enum.IntEnum("N", "ONE").ONE)}
    assert json_text(encoded(value)) == json_text(value)
    script = "import sys; from tidalctl.function.encoding import encoded; encoded({1, (2,)}); print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert not {"'torch'", "'numpy'", "'pydantic'"} & set(re.findall(r"'\w+'", done.stdout))
