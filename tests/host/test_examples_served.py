"""What the examples and the cases of dynamic inits answer over HTTP: in any order, several at once, as the plain function."""

import json
import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from compiled_examples import Asked, compiled_examples, repeated
from conftest import chained
from dynamic_cases import Workshop, answers_plain, cases, needs_peft, open_workshop
from leaving import text_of
from named_states import NETS, THROUGH_COMMANDS
from support.http_host import HttpHost, Reply, http_host

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
# cases of dynamic inits that are served together: by snapshot, script, replay and init itself
PAIRS = (("lora_nested", "lora_merged"), ("lora", "by_hand"), ("dtype", "two_models"), ("prompts", "lora_named"))
SEVERAL = [kind for kind, case in THROUGH_COMMANDS.items() if case[3][0] == "snapshot"][:4]


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


def test_examples(tmp_path: Path) -> None:
    made, asked, env = compiled_examples(tmp_path)
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
