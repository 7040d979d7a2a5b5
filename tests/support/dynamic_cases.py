"""What the tests of dynamic init share: models and adapters made once, and a function's answers, plain and from its bundle.

Each function of examples/adapters is a `Case`: the two events that are traced, the events that are asked, and those that no one can
serve. Answers come from one fresh process each, which answers all events in turn.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import Done, tidalctl

EXAMPLES = Path(__file__).parents[2] / "examples" / "adapters"
NEEDED = ("transformers", "peft", "tokenizers")
needs_peft = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in NEEDED), reason="needs the demo's packages: make test installs them"
)
ANSWERS = """
import json, sys, traceback
request = json.load(sys.stdin)
if "bundle" in request:
    import tidalctl
    function = tidalctl.load_bundle(request["bundle"])
    template = function.template
else:
    import importlib
    sys.path.insert(0, request["folder"])
    handler = getattr(importlib.import_module(request["module"]), request["handler"])
    function, template = lambda event: handler(event, None), None
answers = []
for event in request["events"]:
    try:
        output = function(event)
        answer = {"output": list(output) if hasattr(output, "__next__") else output}
    except Exception as error:  # what it raises is the answer that is compared
        answer = {"raised": "".join(traceback.format_exception_only(error)).strip()}
    if template:
        answer["fallback"] = template.fallback and template.fallback.text
    answers.append(answer)
print("\\n" + json.dumps(answers))
"""
MAKE_ADAPTERS = """
import json, sys
from pathlib import Path
root, odd = sys.argv[1], json.loads(sys.argv[2])
sys.path.insert(0, root)
import make_adapters, torch
sys.argv[1:] = [f"{root}/adapters", "-n", "20", "--base", odd[0][0]]
make_adapters.main()
for base, name, targets, rank, more in odd:
    shapes = make_adapters.shapes_of(Path(base), {}, targets)
    make_adapters.make_adapter(Path(root, "adapters", name), shapes, rank, 8, len(name), **more)
"""
Answer = dict[str, Any]
Event = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A function of examples/adapters. `odd` are events unlike the traced ones, and `bad` those that the function raises for."""

    name: str
    traced: list[Event]
    unseen: list[Event]
    strategies: tuple[str, ...]
    vary: tuple[str, ...] = ()
    odd: list[Event] = field(default_factory=list)
    bad: list[Event] = field(default_factory=list)
    handler: str = "handler"
    init: str = ""

    @property
    def asked(self) -> list[Event]:
        """All events, in the order in which a process is asked them: what fails and what is odd before what is never traced."""
        return [*self.traced, *self.bad, *self.odd, *self.unseen]


@dataclass
class Workshop:
    """A folder with the examples as a user's project, its adapters inside, and the models beside it."""

    folder: Path
    env: dict[str, str] = field(default_factory=dict)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def adapter(self, name: str) -> str:
        return f"{self.project}/adapters/{name}"

    def script(self, script: str, *arguments: object) -> Done:
        done = subprocess.run(
            [sys.executable, "-P", "-c", script, *map(str, arguments)],
            capture_output=True, text=True, cwd=self.folder, env={**os.environ, **self.env}, timeout=300, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr).ok()

    def app(self, case: Case) -> Path:
        return self.project / f"{case.name}.py"

    def bundle(self, case: Case) -> Path:
        return self.folder / f"{case.name}.bundle"

    def make(self, case: Case, timeout: float = 300) -> Done:
        """Trace the case on its events and compile it. Returns what compile said."""
        events = [word for event in case.traced for word in ("--event", json.dumps(event))]
        events += [word for field in case.vary for word in ("--vary", field)]
        target, trace = f"project/{case.name}.py:{case.handler}", f"{case.name}.trace"
        named = ("--init", case.init) if case.init else ()
        tidalctl("trace", target, *events, *named, "-o", trace, "--force", cwd=self.folder, env=self.env, timeout=timeout).ok()
        options = ("-o", self.bundle(case), "--force")
        return tidalctl("compile", trace, *options, cwd=self.folder, env=self.env, timeout=timeout).ok()

    def manifest(self, case: Case) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.bundle(case) / "manifest.json").read_bytes())
        return found

    def run(self, case: Case, event: Event, *options: str, timeout: float = 120) -> Done:
        words = ("run", self.bundle(case), "--event", json.dumps(event), *options)
        return tidalctl(*words, cwd=self.folder, env=self.env, timeout=timeout)


def open_workshop(folder: Path) -> Workshop:
    """Copy the examples, and make two random models and 20 adapters of two ranks, some odd ones, and some that fit no model."""
    shop = Workshop(folder)
    shutil.copytree(EXAMPLES, shop.project, ignore=shutil.ignore_patterns("__pycache__", "models"))
    tiny, wide = str(shop.models / "tiny"), str(shop.models / "wide")
    shop.env = {"ADAPTERS_BASE": tiny, "ADAPTERS_MODELS": str(shop.models), "HF_HUB_OFFLINE": "1"}
    shop.script("import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')",
                shop.project / "make_models.py", shop.models)  # fmt: skip
    usual, other = ["q_proj", "v_proj", "down_proj"], ["q_proj", "o_proj"]
    odd = [
        (tiny, "rank-16", usual, 16, {}),
        (tiny, "rank-1", usual, 1, {}),
        (tiny, "targets", other, 4, {}),
        (tiny, "rslora", usual, 4, {"use_rslora": True, "lora_dropout": 0.1}),
        (wide, "wide", usual, 4, {}),
    ]
    shop.script(MAKE_ADAPTERS, shop.project, json.dumps(odd))
    liar = shutil.copytree(shop.adapter("00"), shop.adapter("liar"))
    config = json.loads((Path(liar) / "adapter_config.json").read_text())
    (Path(liar) / "adapter_config.json").write_text(json.dumps({**config, "r": 8}))
    return shop


def ask_about(index: int) -> Event:
    """A prompt and a length. Events that share them must still be answered differently, where the state differs."""
    words = ("Bonjour", "ein Wort", "tell me a story", "x", "\N{LATIN CAPITAL LETTER O WITH STROKE}stfold", "1 + 1 =")
    return {"prompt": f"{words[index % len(words)]} {index}", "max_new_tokens": 2 + index % 3}


def cases(shop: Workshop) -> dict[str, Case]:
    """The functions whose state depends on the event, 20 events each of which the trace sees two, or one where the base is static."""

    def adapted(index: int, **more: Any) -> Event:
        return {"adapter": shop.adapter(f"{index:02}"), **more, **ask_about(index // 4)}

    def strange(name: str, **more: Any) -> Event:
        return {"adapter": shop.adapter(name), **more, **ask_about(7)}

    peft = {
        "traced": [adapted(0), adapted(1)],
        "unseen": [adapted(index) for index in range(2, 20)],
        "odd": [strange(name) for name in ("rank-16", "rank-1", "targets", "rslora")],
        "bad": [strange("missing"), strange("wide"), strange("liar"), ask_about(0)],
        "vary": ("adapter",),
    }
    nested: dict[str, Any] = {"traced": peft["traced"][:1], "unseen": [*peft["traced"][1:], *peft["unseen"]]}
    scales = (0.25, 1.0, -0.75, 0.0, 1e-3, 3.5, 2.0, 0.1, 1 / 3)
    dtypes, styles = ("float32", "bfloat16", "float16"), ("plain", "question", "poet", "translate")
    devices: tuple[Event, ...] = ({}, {"device": "cpu"})
    return {
        case.name: case
        for case in (
            Case("lora_nested", strategies=("snapshot",), **(peft | nested)),
            Case("lora_named", strategies=("snapshot",), init="basemodel:load_base", **(peft | nested)),
            Case("lora", strategies=("replay",), **peft),
            Case("lora_merged", strategies=("script",), **peft),
            Case(
                "by_hand",
                traced=[adapted(0, scale=0.5), adapted(1, scale=1.75)],
                unseen=[adapted(index, scale=scales[index % len(scales)]) for index in range(2, 20)],
                odd=[strange(name, scale=0.5) for name in ("rank-16", "targets")] + [adapted(4, scale=True)],
                bad=[
                    strange("missing", scale=1.0),
                    strange("wide", scale=1.0),
                    adapted(3, scale="a lot"),
                    adapted(3, scale=None),
                    {**adapted(3), "adapter": None, "scale": 1.0},
                ],
                strategies=("script",),
                vary=("adapter", "scale"),
            ),
            Case(
                "dtype",
                traced=[{"dtype": dtype, **ask_about(0)} for dtype in ("float32", "bfloat16")],
                unseen=[{"dtype": dtypes[i % 3], **devices[i % 2], **ask_about(1 + i // 4)} for i in range(2, 20)],
                bad=[{"dtype": "float31", **ask_about(0)}, {"dtype": "float32", "device": "abacus", **ask_about(0)}],
                strategies=("replay",),
            ),
            Case(
                "prompts",
                traced=[{"style": style, **ask_about(0)} for style in styles[:2]],
                unseen=[{"style": styles[index % 4], **ask_about(1 + index // 4)} for index in range(2, 20)],
                bad=[{"style": "rude", **ask_about(0)}],
                strategies=("replay",),
            ),
            Case(
                "two_models",
                traced=[{"model": model, **ask_about(0)} for model in ("fast", "good")],
                unseen=[{"model": ("fast", "good")[index % 2], **ask_about(1 + index // 2)} for index in range(2, 20)],
                bad=[{"model": "huge", **ask_about(0)}],
                strategies=("eager",),  # nothing tells that the models are not the request's
            ),
        )
    }


def answers_plain(
    app: Path, events: list[Event], env: dict[str, str], *, handler: str = "handler", timeout: float = 300
) -> list[Answer]:
    """What a function gives for each event in one fresh process, imported as `python app.py` would: `output`, or `raised`."""
    return _answers({"folder": str(app.parent), "module": app.stem, "handler": handler}, events, env, timeout)


def answers_bundle(bundle: Path, events: list[Event], env: dict[str, str], *, timeout: float = 300) -> list[Answer]:
    """What its bundle gives, likewise, with why init ran, as `fallback`."""
    return _answers({"bundle": str(bundle)}, events, env, timeout)


def _answers(request: dict[str, Any], events: list[Event], env: dict[str, str], timeout: float) -> list[Answer]:
    done = subprocess.run(
        [sys.executable, "-P", "-c", ANSWERS],
        input=json.dumps({**request, "events": events}), capture_output=True, text=True,
        cwd=Path(request.get("folder") or request["bundle"]).parent, env={**os.environ, **env}, timeout=timeout, check=False,
    )  # fmt: skip
    found: list[Answer] = json.loads(Done(done.returncode, done.stdout, done.stderr).ok().out.strip().splitlines()[-1])
    return found


def results(answers: list[Answer]) -> list[Answer]:
    """What a caller sees of them: output or exception, without what the template adds."""
    return [{name: answer[name] for name in ("output", "raised") if name in answer} for answer in answers]


def adapter_needles(adapter: Path, base: Path, scales: list[float]) -> dict[str, list[bytes]]:
    """64 bytes at a time of an adapter's tensors, of the change that it makes, and of the weights with it, by what they are of."""
    import torch
    from safetensors.torch import load_file

    tensors, weights = load_file(adapter / "adapter_model.safetensors"), load_file(base / "model.safetensors")
    found: dict[str, torch.Tensor] = dict(tensors)
    for key, a in tensors.items():
        if ".lora_A." in key:
            b = tensors[key.replace(".lora_A.", ".lora_B.")]
            weight = weights[key.removeprefix("base_model.model.").replace(".lora_A.", ".")]
            for scale in scales:
                for how, delta in (("(B @ A) * s", b @ a * scale), ("s * B @ A", scale * b @ a)):
                    found |= {f"{key}: {how}": delta, f"{key}: W + {how}": weight + delta}
    return {what: chunks(tensor.contiguous().numpy().tobytes()) for what, tensor in found.items()}


def chunks(data: bytes, length: int = 64) -> list[bytes]:
    return [data[at : at + length] for at in range(0, len(data) - length + 1, length)]
