"""Paths of the project in a state stand in a skeleton by their place, so that they lead into the copy that a bundle holds."""

import io
import sys
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
import torch

from tidalctl.artifacts.state.project_paths import project_path, project_roots
from tidalctl.artifacts.state.skeleton import SkeletonPickler, SkeletonUnpickler


def moved(state: Any, root: str, other: str) -> tuple[Any, bytes]:
    """A state as it is restored where the project lies in another folder, and its pickle."""
    file = io.BytesIO()
    pickler = SkeletonPickler(file, {}, whole=True, root=root)
    pickler.dump(state)
    unpickler = SkeletonUnpickler(io.BytesIO(file.getvalue()), pickler.storages.__getitem__, None, other)
    return unpickler.load(), file.getvalue()


def test_paths_lead_into_the_copy(tmp_path: Path) -> None:
    def state(root: Path) -> Any:
        file = root / "data" / "a.json"
        return {"text": str(file), "path": file, "pure": PurePosixPath(root), str(file): [{str(root)}, f"{root}/"], "w": None}

    found, pickled = moved(state(tmp_path / "home") | {"w": torch.ones(2)}, str(tmp_path / "home"), str(tmp_path / "copy"))
    assert found.pop("w").tolist() == [1, 1]
    assert found == {name: value for name, value in state(tmp_path / "copy").items() if name != "w"}
    assert str(tmp_path).encode() not in pickled


def test_a_path_by_a_link_is_the_projects_too(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    state = [tmp_path / "link" / "a", tmp_path / "real" / "a"]
    assert moved(state, str(tmp_path / "link"), "/copy")[0] == [Path("/copy/a"), Path("/copy/a")]


@pytest.mark.parametrize(
    "value",
    ["/home/apple/a", "see /home/app/a", "", b"/home/app/a", Path("app/a"), "/home/app/.venv/lib/python3/site-packages/x.py"],
)
def test_what_does_not_lie_in_the_project_stays(value: Any) -> None:
    assert moved([value], "/home/app", "/copy")[0] == [value]


def test_a_text_of_the_functions_own_class_stays() -> None:
    class Name(str):
        __slots__ = ()

    assert project_path(Name("/home/app/a"), project_roots("/home/app")) is None


def test_of_a_project_at_the_top_nothing_is_moved() -> None:
    assert project_path(sys.prefix, project_roots("/")) is None
