"""Environment variables that a state hangs on pin the bundle, whoever reads them, and none that only the handler reads does."""

import pytest
from conftest import Chain, tidalctl, write_project

pytest.importorskip("pydantic_settings")
pytest.importorskip("dotenv")

APP = """
import os
from pathlib import Path

import torch
from dotenv import load_dotenv
from pydantic_settings import BaseSettings

os.environ.setdefault("SCALE", "2")
load_dotenv(Path(__file__).parent / ".env")


class Settings(BaseSettings):
    seed: int = 0


def load():
    torch.manual_seed(Settings().seed)
    return torch.nn.Linear(4, 4), float(os.environ["SCALE"]) + float(os.environ["SHIFT"])


_state = None


def handler(event, context):
    global _state
    if _state is None:
        _state = load()
    net, scale = _state
    return [os.environ.get("GREETING", "none"), net(torch.ones(4) * event["x"])[0].item() * scale]
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Chain:
    made = Chain(tmp_path_factory.mktemp("variables"), [{"x": 1.0}], ["--init", "app:load"])
    write_project(made.project, {"app.py": APP, ".env": "SHIFT=1\n"})
    return made.make()


def test_what_pins_a_bundle_is_told(made: Chain) -> None:
    assert made.manifest["strategy"] == "snapshot"
    assert "pinned by SCALE (unset), SEED (unset), SHIFT (unset)" in made.said()
    shown = tidalctl("inspect", made.bundle, cwd=made.folder).ok()
    assert "SCALE (unset), SEED (unset), SHIFT (unset)" in shown.out


@pytest.mark.parametrize(
    ("name", "value", "strategy"),
    [
        ("SEED", "5", "eager"),
        ("seed", "6", "eager"),
        ("SCALE", "3", "eager"),
        ("SHIFT", "4", "eager"),
        ("GREETING", "hi", "snapshot"),
    ],
)
def test_another_value_is_told_and_answered_as_plainly(
    made: Chain, monkeypatch: pytest.MonkeyPatch, name: str, value: str, strategy: str
) -> None:
    monkeypatch.setenv(name, value)
    event = {"x": float(sum(map(ord, name)))}
    report = made.run(event)
    assert report["output"] == made.plain(event)
    assert report["strategy"] == strategy
    assert strategy == "snapshot" or (report["cause"] == "environment-differs" and name in report["fallback"])


def test_a_file_that_is_not_shipped_counts_where_it_is(made: Chain) -> None:
    file, event = made.project / ".env", {"x": 7.0}
    file.write_text("SHIFT=8\n")
    try:
        report = made.run(event)
        assert report["output"] == made.plain(event)
        assert report["cause"] == "file-differs" and ".env" in report["fallback"]
        file.unlink()
        done = made.start({"x": 1.0}, "--json").ok()
        assert done.report["strategy"] == "snapshot" and not done.err, "python-dotenv asks whether it is there"
    finally:
        file.write_text("SHIFT=1\n")


def test_a_variable_can_be_pinned_and_ignored(made: Chain, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("--pin-env", "GREETING", "--ignore-env", "SC*", "-o", "chosen.bundle", "--force")
    told = tidalctl("compile", made.trace, *options, cwd=made.folder).ok()
    assert "pinned by GREETING (unset), SEED (unset), SHIFT (unset)" in told.err
    monkeypatch.setenv("GREETING", "hi")
    run = tidalctl("run", "chosen.bundle", "--event", '{"x": 2.0}', "--json", cwd=made.folder).report
    assert (run["strategy"], run["cause"]) == ("eager", "environment-differs")
