"""A secret that was not shipped is in no file of the bundle either: compile says where it is, and writes nothing."""

import datetime
import pickle
from collections import OrderedDict, deque
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Chain, tidalctl, write_project

from tidalctl.artifacts.errors import CheckFailed
from tidalctl.compiler.code.pickle_paths import path_in_skeleton
from tidalctl.compiler.code.secret_values import refuse_secrets

KEEPS = """
import os
from pathlib import Path
import torch

KEY = (Path(__file__).parent / ".env").read_text().partition("=")[2].strip()

def load():
    return {"net": torch.ones(2), "client": {"api_key": KEY}}

_state = None

def handler(event, context):
    global _state
    if _state is None:
        _state = load()
    return _state["net"].sum().item()
"""


def test_a_key_in_the_state_is_an_error_that_names_its_place(tmp_path: Path) -> None:
    made = Chain(tmp_path, [{}], ["--init", "app:load"])
    write_project(made.project, {"app.py": KEEPS, ".env": "API_KEY=sk-0123456789abcdef\n"})
    tidalctl("trace", "project/app.py", "--event", "{}", "--init", "app:load", cwd=tmp_path).ok()
    done = tidalctl("compile", "app.trace", cwd=tmp_path)
    done.one_error("""skeleton.pickle, state["client"]["api_key"], holds a value of .env""", "--include .env", code=1)
    assert "sk-0123" not in done.err and not made.bundle.exists()


@pytest.mark.parametrize(
    ("secret", "content"),
    [
        (".env", "# comment\nTOKEN='0123456789'\n"),
        ("credentials.json", '{"account": {"password": "0123456789"}}'),
        ("id_rsa", "-----BEGIN OPENSSH PRIVATE KEY-----\n0123456789\n-----END OPENSSH PRIVATE KEY-----\n"),
    ],
)
def test_values_are_found_in_any_file(tmp_path: Path, secret: str, content: str) -> None:
    write_project(tmp_path, {f"root/{secret}": content, "bundle/code/app.py": "import os\nKEY = '0123456789'\n"})
    with pytest.raises(CheckFailed, match=rf"code/app.py:2 holds a value of {secret}"):
        refuse_secrets(tmp_path / "bundle", tmp_path / "root", [secret], {})


def test_variables_with_secret_names_count_and_short_values_do_not(tmp_path: Path) -> None:
    write_project(tmp_path, {"bundle/weights.bin": "…0123456789…", "bundle/empty": "", "root/.env": "A=012\nB=/x/y/z/0\n"})
    harmless = {"TOKENIZERS": "0123456789", "AWS_TOKEN_FILE": "/0123456789", "API_KEY": "012345"}
    refuse_secrets(tmp_path / "bundle", tmp_path / "root", [".env"], harmless)
    with pytest.raises(CheckFailed, match="the environment variable MY_API_KEY"):
        refuse_secrets(tmp_path / "bundle", tmp_path / "root", [".env"], {"MY_API_KEY": "0123456789"})


class Client:
    """Holds a key in one of several ways."""

    def __init__(self, **held: Any) -> None:
        vars(self).update(held)


@dataclass
class Slotted:
    __slots__ = ("inner",)
    inner: Any


@pytest.mark.parametrize(
    ("state", "path"),
    [
        (Client(api_key="0123456789"), "state.api_key"),
        ([1, {"a": (Client(options={"x": {b"<0123456789>"}}),)}], 'state[1]["a"][0].options["x"]'),
        (OrderedDict(first=deque([Slotted("0123456789")])), 'state["first"][0].inner'),
        (partial(Client, token="0123456789"), 'state["token"]'),
        ({"0123456789": None}, "state"),
        (datetime.timezone(datetime.timedelta(0), "0123456789"), "state"),
        (Client(other="012345678"), None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_path_to_a_value_in_a_skeleton(state: Any, path: str | None) -> None:
    skeleton = {"state": state, "bound": [], "filled": [(("app", "Net", "cache"), [0])], "noted": {}}
    assert path_in_skeleton(pickle.dumps(skeleton, protocol=5), b"0123456789") == path


def test_the_path_to_a_value_in_a_global() -> None:
    skeleton = {"state": None, "bound": [(("app", "", "CLIENT"), {"key": "0123456789"})], "filled": []}
    assert path_in_skeleton(pickle.dumps(skeleton, protocol=5), b"0123456789") == 'app.CLIENT["key"]'
