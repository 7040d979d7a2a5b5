"""Which strategy compile takes for a function whose state depends on the event, and what it says of it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from conftest import Chain, python, tidalctl
from safetensors.torch import save_file

MERGES = """
import torch
from safetensors.torch import load_file
import tidalctl


@tidalctl.init
def load(event):
    base = load_file("base.safetensors")
    if event.get("head"):
        base["head"] += 1
    adapter = load_file(event["adapter"] + "/adapter.safetensors")
    base["w"] += event["scale"] * (adapter["B"] @ adapter["A"])
    return base


def handler(event, context):
    return {name: tensor.double().sum().item() for name, tensor in load(event).items()}
"""

VARY = ("--vary", "adapter", "--vary", "scale")


def adapters(folder: Path) -> None:
    """In a folder: a base, and adapters a, b and c of ranks 2, 3 and 5."""
    generator = torch.Generator().manual_seed(0)
    save_file({name: torch.randn(8, 8, generator=generator) for name in ("w", "head")}, folder / "base.safetensors")
    for name, rank in (("a", 2), ("b", 3), ("c", 5)):
        (folder / name).mkdir()
        parts = {"A": torch.randn(rank, 8, generator=generator), "B": torch.randn(8, rank, generator=generator)}
        save_file(parts, folder / name / "adapter.safetensors")


def event(adapter: str, scale: float, **more: object) -> dict[str, object]:
    return {"adapter": adapter, "scale": scale, **more}


def plain(made: Chain, given: dict[str, object]) -> object:
    code = f"import sys, json; sys.path.insert(0, 'project'); import app; print(json.dumps(app.handler({given!r}, None)))"
    return json.loads(python(code, cwd=made.folder).out)


@pytest.mark.slow
def test_a_merge_is_a_script_that_runs_alone_answers_what_no_trace_saw_and_leaves_the_rest_to_init(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    adapters(tmp_path)
    made = chain(MERGES, event("a", 0.5), event("b", 2.0), options=VARY)
    assert made.manifest["strategy"] == "script" and made.manifest["dynamic"] == ["w"]
    for given in (event("a", 0.5), event("b", 2.0), event("a", -1.25), event("b", 3.0)):
        report = made.run(given)
        assert (report["strategy"], report["fallback"], report["output"]) == ("script", None, plain(made, given))
    code = "import runpy, sys; sys.argv[0] = 'app.bundle/dynamic_init.py'; runpy.run_path(sys.argv[0], run_name='__main__')"
    code = code.replace("sys.argv[0] =", f"sys.argv[1:] = [{json.dumps(json.dumps(event('b', 1.5)))}]; sys.argv[0] =")
    done = python(code, cwd=made.folder)
    digest = made.run(event("b", 1.5), "--state")["state"]["w"]
    assert done.code == 0 and done.out.split() == ["w", "float32", "[8,", "8]", digest]
    given = event("c", 1.0, head=True)
    report = made.run(given)
    assert report["output"] == plain(made, given)
    assert report["cause"] == "event-not-served" and 'event["head"]' in report["fallback"]


def test_with_one_event_compile_says_what_it_can_not_know_and_keeps_nothing_of_the_request(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    adapters(tmp_path)
    made = chain(MERGES, event("a", 0.5))
    assert made.manifest["strategy"] == "eager"
    assert "one traced event can't tell what depends on that" in made.said()


@pytest.mark.slow
def test_a_later_trace_demotes_what_it_disproves_and_one_of_another_function_does_not_fit(
    chain: Callable[..., Chain], tmp_path: Path
) -> None:
    adapters(tmp_path)
    made = chain(MERGES, event("a", 0.5), event("b", 2.0), options=VARY)
    assert made.manifest["dynamic"] == ["w"]
    later = json.dumps(event("c", 1.0, head=True))
    tidalctl("trace", "project/app.py", "--event", later, "-o", "later.trace", cwd=made.folder).ok()
    done = tidalctl("compile", "app.trace", "later.trace", "-o", "both.bundle", "--explain", cwd=made.folder).ok()
    manifest = json.loads((made.folder / "both.bundle" / "manifest.json").read_bytes())
    assert manifest["strategy"] != "script" or manifest["dynamic"] == ["head", "w"], done.err
    assert len(manifest["events"]) == 3
    for given in (event("a", 0.5), event("c", 1.0, head=True), event("b", 9.0)):
        report = tidalctl("run", "both.bundle", "--event", json.dumps(given), "--json", cwd=made.folder).report
        assert report["output"] == plain(made, given), given
    (made.project / "other.py").write_text(MERGES)
    tidalctl("trace", "project/other.py", "--event", json.dumps(event("a", 0.5)), cwd=made.folder).ok()
    done = tidalctl("compile", "app.trace", "other.trace", "-o", "none.bundle", cwd=made.folder)
    assert done.code == 2 and "another function" in done.err and not (made.folder / "none.bundle").exists()


@pytest.mark.slow
def test_two_calls_of_init_in_one_process_share_nothing(chain: Callable[..., Chain], tmp_path: Path) -> None:
    adapters(tmp_path)
    twice = MERGES.replace("    return {name", "    load(event)['head'].zero_()\n    return {name")
    made = chain(twice, event("a", 0.5), event("b", 2.0), options=VARY)
    report = made.run(event("a", 1.0))
    assert (report["strategy"], report["output"]) == ("script", plain(made, event("a", 1.0)))
