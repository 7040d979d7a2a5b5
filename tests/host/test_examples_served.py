"""What the examples and the cases of dynamic inits answer over HTTP: in any order, several at once, as the plain function."""

import json
import random
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from conftest import chained, python, tidalctl
from dynamic_cases import Workshop, answers_plain, cases, needs_peft, open_workshop
from functions.test_shapes import CALL, EXAMPLES, SERVERS
from leaving import text_of
from named_states import NETS, THROUGH_COMMANDS
from support.http_host import HttpHost, Reply, http_host

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
EVENTS = 20  # of each function
PLAIN_TORCH = EXAMPLES.parent / "plain_torch"
# cases of dynamic inits that are served together: by snapshot, script, replay and init itself
PAIRS = (("lora_nested", "lora_merged"), ("lora", "by_hand"), ("dtype", "two_models"), ("prompts", "lora_named"))
SEVERAL = [kind for kind, case in THROUGH_COMMANDS.items() if case[3][0] == "snapshot"][:4]


class Asked(NamedTuple):
    """An event of a function, and what the plain one gives: `output`, or `raised`."""

    name: str
    event: Any
    plain: dict[str, Any]


def told(reply: Reply) -> dict[str, Any]:
    """Return what a reply says, as `Asked` has it."""
    if reply.status == 500:
        error = reply.json["error"]
        return {"raised": f"{error['type']}: {error['message']}"}
    assert reply.status == 200, reply
    return {"output": reply.pieces if "ndjson" in reply.headers["content-type"] else reply.json}


def ask_all(host: HttpHost, asked: list[Asked]) -> None:
    """Ask events in random order, four at a time."""
    random.Random(len(asked)).shuffle(asked)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda one: host.invoke(one.event, one.name), asked))
    for one, reply in zip(asked, replies, strict=True):
        assert text_of(told(reply)) == text_of(one.plain), (one.name, one.event, reply.headers)


def repeated(name: str, plain: dict[str, dict[str, Any]]) -> list[Asked]:
    """Return so many events of a function as are asked, of those whose plain answers there are."""
    texts = [*plain] * EVENTS
    return [Asked(name, json.loads(text), plain[text]) for text in texts[:EVENTS]]


def test_examples(tmp_path: Path) -> None:
    env = {"SM_MODEL_DIR": str(tmp_path / "model"), "PLAIN_TORCH_CACHE": str(tmp_path)}
    made = [tmp_path / "plain_torch.bundle"]
    tidalctl(
        "trace", PLAIN_TORCH / "app.py", "--event", PLAIN_TORCH / "event.json", "-o", "x.trace", cwd=tmp_path, env=env
    ).ok()
    tidalctl("compile", "x.trace", "-o", made[0], cwd=tmp_path, env=env).ok()
    events: list[dict[str, Any]] = [{"prompt": "Once", "max_new_tokens": 3}, {"prompt": "upon a time", "max_new_tokens": 4}]
    call = CALL.format("import app; answer = list(app.handler(event, None))")
    plain = {
        json.dumps(event): {"output": python(call, PLAIN_TORCH, json.dumps(event), cwd=tmp_path, env=env).report}
        for event in events
    }
    asked = repeated("plain_torch", plain)
    for shape, (target, options, server) in SERVERS.items():
        folder = tmp_path / shape
        shutil.copytree(EXAMPLES / shape, folder, ignore=shutil.ignore_patterns("__pycache__"))
        if shape == "sagemaker":
            script = "import runpy, sys; runpy.run_path(sys.argv[1], run_name='__main__')"
            python(script, folder / target, cwd=tmp_path, env=env).ok()
        words = ("--event", '{"text": "cold start"}', *options, "-o", "x.trace", "--force")
        tidalctl("trace", f"{shape}/{target}", *words, cwd=tmp_path, env=env).ok()
        made.append(tmp_path / f"{shape}.bundle")
        tidalctl("compile", "x.trace", "-o", made[-1], cwd=tmp_path, env=env).ok()
        call = CALL.format(server)
        texts = [json.dumps({"text": text}) for text in ("cold start", "another")]
        plain = {text: {"output": python(call, folder, text, cwd=tmp_path, env=env).report} for text in texts}
        asked += repeated(shape, plain)
    with http_host(tmp_path, *made, env=env) as host:
        assert all(ready["workers"] == "forked" for ready in host.told("ready", len(made)))
        ask_all(host, asked)


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    return open_workshop(tmp_path_factory.mktemp("dynamic"))


@needs_peft
@pytest.mark.parametrize("names", PAIRS)
def test_dynamic_cases(shop: Workshop, names: tuple[str, str]) -> None:
    asked: list[Asked] = []
    chosen = [cases(shop)[name] for name in names]
    for case in chosen:
        shop.make(case)
        events = [*case.traced, *case.unseen, *case.bad]
        plain = answers_plain(shop.app(case), events, shop.env, handler=case.handler)
        asked += [Asked(case.name, event, answer) for event, answer in zip(events, plain, strict=True)]
    with http_host(shop.folder, *[shop.bundle(case) for case in chosen], "--timeout", "5m", env=shop.env) as host:
        host.told("ready", 2)
        ask_all(host, asked)


@pytest.mark.parametrize("kind", SEVERAL)
def test_several_states(tmp_path: Path, kind: str) -> None:
    source, traced, others, _ = THROUGH_COMMANDS[kind]
    made = chained(tmp_path, NETS + source, *traced)
    plain = {json.dumps(event): {"output": made.plain(event)} for event in (*traced, *others)}
    with http_host(tmp_path, made.bundle) as host:
        host.told("ready")
        ask_all(host, repeated("app", plain))
