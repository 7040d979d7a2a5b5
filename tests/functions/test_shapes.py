"""Each example of a shape is traced, compiled and run as its page says, and answers as the shape's server would have it answer."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from conftest import python, tidalctl, write_project

from tidalctl.artifacts.errors import TidalError
from tidalctl.function.target import locate

EXAMPLES = Path(__file__).parents[2] / "examples" / "shapes"
# What calls the example as its server would, and prints the answer to the event in `event`.
SERVERS = {
    "at_import": ("app.py", (), "import app; answer = app.handler(event, None)"),
    "cog": ("predict.py", (), "import predict as p; it = p.Predictor(); it.setup(); answer = it.predict(**event)"),
    "litserve": (
        "server.py",
        (),
        "import server as s; it = s.Next(); it.setup('cpu'); answer = it.encode_response(it.predict(it.decode_request(event)))",
    ),
    "sagemaker": (
        "inference.py",
        (),
        "import inference as i; m = i.model_fn(os.environ['SM_MODEL_DIR']); t = 'application/json'; "
        "answer = json.loads(i.output_fn(i.predict_fn(i.input_fn(json.dumps(event), t), m), t))",
    ),
    "keywords": (
        "app.py:following",
        ("--shape", "keywords", "--init", "app:load"),
        "import app; answer = app.following(**event)",
    ),
    "async_handler": (
        "app.py",
        ("--init", "app:load"),
        "import app, asyncio\nasync def collect(): return [piece async for piece in app.handler(event, None)]\n"
        "answer = asyncio.run(collect())",
    ),
}
CALL = "import json, os, sys\nsys.path.insert(0, sys.argv[1])\nevent = json.loads(sys.argv[2])\n{}\nprint(json.dumps(answer))"


QUICK = ("cog",)  # the parts of the others are tested below


@pytest.mark.parametrize("shape", [pytest.param(shape, marks=() if shape in QUICK else pytest.mark.slow) for shape in SERVERS])
def test_an_example_is_served_from_a_snapshot_as_by_its_server(tmp_path: Path, shape: str) -> None:
    target, options, call = SERVERS[shape]
    shutil.copytree(EXAMPLES / shape, tmp_path / shape, ignore=shutil.ignore_patterns("__pycache__"))
    env = {"SM_MODEL_DIR": str(tmp_path / "model")}
    if shape == "sagemaker":
        python(
            "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')",
            tmp_path / shape / target,
            cwd=tmp_path,
            env=env,
        )
    traced = {"text": "cold start"}
    tidalctl("trace", f"{shape}/{target}", "--event", json.dumps(traced), *options, "-o", "x.trace", cwd=tmp_path, env=env).ok()
    tidalctl("compile", "x.trace", cwd=tmp_path, env=env).ok()
    for event in (traced, {"text": "another"}):
        expected = python(CALL.format(call), tmp_path / shape, json.dumps(event), cwd=tmp_path, env=env).report
        report = tidalctl("run", "x.bundle", "--event", json.dumps(event), "--json", cwd=tmp_path, env=env).report
        assert (report["output"], report["strategy"], report["fallback"]) == (expected, "snapshot", None)


SOURCES = {
    "a base class": ("import cog\nclass It(cog.BasePredictor):\n    pass", "", ("It", "cog", "app:It.setup")),
    "a handler comes first": (
        "class P:\n    def setup(self): ...\n    def predict(self): ...\ndef handler(e, c): ...",
        "",
        ("handler", "", ""),
    ),
    "a name chooses": (
        "class P:\n    def setup(self): ...\n    def predict(self): ...\ndef handler(e, c): ...",
        ":P",
        ("P", "cog", "app:P.setup"),
    ),
    "another base class": ("from litserve import LitAPI\nclass It(LitAPI): ...", ":It", ("It", "litserve", "app:It.setup")),
    "a script": (
        "def model_fn(model_dir): ...\ndef predict_fn(data, model): ...",
        "",
        ("model_fn", "sagemaker", "app:model_fn"),
    ),
    "a handler that is no def": (
        "class P:\n    def setup(self): ...\n    def predict(self): ...\nhandler = P()",
        "",
        ("handler", "", ""),
    ),
    "the class that nobody inherits from": (
        "from cog import BasePredictor\nclass Base(BasePredictor): ...\nclass Last(Base): ...\nclass Other: ...",
        "",
        ("Last", "cog", "app:Last.setup"),
    ),
    "by inherited methods": (
        "class Base:\n    def setup(self): ...\nclass P(Base):\n    def predict(self): ...",
        "",
        ("P", "cog", "app:P.setup"),
    ),
    "nothing of the kind": ("def run(event, context): ...", ":run", ("run", "", "")),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_the_shape_of_a_source_is(tmp_path: Path, kind: str) -> None:
    source, name, expected = SOURCES[kind]
    write_project(tmp_path, source)
    function, _ = locate(f"{tmp_path}/app.py{name}")
    assert (function.handler, function.shape, function.init) == expected


def test_an_init_that_is_named_stays_and_a_shape_that_is_not_there_is_told(tmp_path: Path) -> None:
    write_project(tmp_path, "class P:\n    def setup(self): ...\n    def predict(self): ...\n")
    function, _ = locate(f"{tmp_path}/app.py", ["app:load"])
    assert (function.shape, function.init) == ("cog", "app:load")
    function, _ = locate(f"{tmp_path}/app.py:P", shape="litserve")
    assert (function.shape, function.init) == ("litserve", "app:P.setup")
    with pytest.raises(TidalError, match="app:Q is not of the shape litserve"):
        locate(f"{tmp_path}/app.py:Q", shape="litserve")


def test_init_may_be_named_with_a_file_as_a_target_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_project(tmp_path, {"app.py": "", "pack/models.py": "", "pack/__init__.py": ""})
    monkeypatch.chdir(tmp_path)
    inits = ("pack/models.py:load", str(tmp_path / "app.py:load"), "pack/__init__.py:load", "pack.models:load")
    assert [locate("app.py", [init])[0].init for init in inits] == [
        "pack.models:load",
        "app:load",
        "pack:load",
        "pack.models:load",
    ]
    with pytest.raises(TidalError, match=r"no file pack/model\.py"):
        locate("app.py", ["pack/model.py:load"])


def handled(shape: str, name: str, module: Any, *events: dict[str, Any]) -> list[Any]:
    from tidalctl.function.shapes import shape_named

    handler = shape_named(shape).handler(module, name)
    return [handler(event, None) for event in events]


def test_cog_inputs_have_their_defaults_and_paths_are_paths() -> None:
    class Input:
        default = 3

    class P:
        made = 0

        def setup(self) -> None:
            P.made += 1

        def predict(self, path: "Path | None", n: int = Input()) -> list[Any]:  # type: ignore[assignment]
            return [isinstance(path, Path), n]

    module = type("module", (), {"P": P})
    assert handled("cog", "P", module, {"path": "a"}, {"path": "a", "n": 5}) == [[True, 3], [True, 5]]
    assert P.made == 1, "set up once"


def test_litserve_batches_of_one_and_streams() -> None:
    class Batched:
        max_batch_size = 4

        def setup(self, device: str) -> None:
            self.device = device

        def batch(self, given: list[Any]) -> list[Any]:
            return given

        def predict(self, given: list[Any]) -> list[Any]:
            return [one["x"] * 2 for one in given]

        def unbatch(self, answers: list[Any]) -> list[Any]:
            return answers

    class Streams:
        def setup(self, device: str) -> None: ...

        def predict(self, given: dict[str, Any]) -> Any:
            yield from range(given["x"])

        def encode_response(self, answers: Any) -> Any:
            for answer in answers:
                yield {"n": answer}

    module = type("module", (), {"Batched": Batched, "Streams": Streams})
    assert handled("litserve", "Batched", module, {"x": 2}) == [4]
    assert list(handled("litserve", "Streams", module, {"x": 2})[0]) == [{"n": 0}, {"n": 1}]


def test_sagemaker_functions_that_are_left_out_do_what_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SM_MODEL_DIR", "/models")

    class Plain:
        @staticmethod
        def model_fn(model_dir: str, context: Any) -> Any:
            return lambda data: [model_dir, data]

    class Transforms(Plain):
        @staticmethod
        def transform_fn(model: Any, data: str, content_type: str, accept: str) -> Any:
            return json.dumps(model(json.loads(data))), accept

    assert handled("sagemaker", "model_fn", Plain, {"x": 1}) == [["/models", {"x": 1}]]
    assert handled("sagemaker", "model_fn", Transforms, {"x": 1}) == [["/models", {"x": 1}]]
    request = {"body": [1, 2], "content_type": "application/json"}
    assert handled("sagemaker", "model_fn", Transforms, request, {"body": "[3]"}) == [["/models", [1, 2]], ["/models", [3]]]


REAL = {
    "cog": (
        "predict.py",
        (
            EXAMPLES / "cog" / "predict.py",
            "class Predictor:",
            "from cog import BasePredictor, Input\n\n\nclass Predictor(BasePredictor):",
        ),
        (
            'text: str = "cold start", top: int = 1',
            'text: str = Input(default="cold start"), top: int = Input(default=1, ge=1)',
        ),
        ({}, {"text": "another", "top": 3}),
    ),
    "litserve": (
        "server.py",
        (EXAMPLES / "litserve" / "server.py", "class Next:", "import litserve\n\n\nclass Next(litserve.LitAPI):"),
        ("", ""),
        ({"text": "cold start"}, {"text": "another"}),
    ),
    "sagemaker-inference": (
        "inference.py",
        (
            EXAMPLES / "sagemaker" / "inference.py",
            "import torch\n",
            "import torch\nfrom sagemaker_inference import decoder, encoder\n",
        ),
        (
            'torch.tensor(list(json.loads(request_body)["text"].encode()))',
            "torch.as_tensor(decoder.decode(request_body, content_type)).long()",
        ),
        ({"body": [1, 2, 3]}, {"body": [7, 8]}),
    ),
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("package", REAL)
def test_the_servers_own_classes_are_found_and_served(tmp_path: Path, package: str) -> None:
    """With the packages themselves, which are taken from PyPI."""
    target, (example, old, new), (before, after), events = REAL[package]
    constraints = Path(__file__).parents[2] / "constraints.txt"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--target", str(tmp_path / "site"), "-c", str(constraints), package]
    subprocess.run(pip, check=True, capture_output=True)
    source = example.read_text().replace(old, new).replace(before, after)
    write_project(tmp_path / "project", {target: source})
    env = {"SM_MODEL_DIR": str(tmp_path / "model"), "PYTHONPATH": str(tmp_path / "site")}
    if package == "sagemaker-inference":
        script = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
        python(script, tmp_path / "project" / target, cwd=tmp_path, env=env)
    tidalctl("trace", f"project/{target}", "--event", json.dumps(events[0]), "-o", "x.trace", cwd=tmp_path, env=env).ok()
    tidalctl("compile", "x.trace", cwd=tmp_path, env=env).ok()
    for event in events:
        report = tidalctl("run", "x.bundle", "--event", json.dumps(event), "--json", cwd=tmp_path, env=env).report
        plain = tidalctl("run", "x.bundle", "--event", json.dumps(event), "--json", "--eager", cwd=tmp_path, env=env).report
        assert (report["output"], report["strategy"]) == (plain["output"], "snapshot")
