"""A bundle that is spoiled or deleted while a host serves it: answers are those of the bundle that was opened, or an error."""

import shutil
from pathlib import Path

import pytest
from conftest import chained
from support.http_host import http_host

FILES = {
    "app.py": """
import tidalctl
import torch

@tidalctl.init(static=True)
def load():
    torch.manual_seed(1)
    return torch.nn.Linear(4, 4)

def handler(event, context):
    if event.get("late"):
        import helper
        return [load().weight.sum().item(), helper.NAME]
    return load().weight.sum().item()
""",
    "helper.py": "NAME = 'of then'\n",
}


@pytest.mark.slow
def test_answers_are_of_the_bundle_that_was_opened_or_an_error(tmp_path: Path) -> None:
    made = chained(tmp_path, FILES, {})
    with http_host(tmp_path, made.bundle) as host:
        host.told("ready")
        first = host.invoke({}).json
        assert host.invoke({"late": True}).json == [first, "of then"]
        (helper,) = made.bundle.glob("code/**/helper.py")
        helper.write_text("NAME = 'of now!'\n")
        late = host.invoke({"late": True})
        assert (late.status, late.json["error"]["type"]) == (500, "Corrupt")
        (made.bundle / "skeleton.pickle").write_bytes(b"no skeleton")
        assert host.invoke({}).json == first
        shutil.rmtree(made.bundle)
        for _ in range(2):
            assert host.invoke({}).json == first
            host.spare_ready()
