"""Async handlers and async generators: on one event loop a process, and on the caller's with load_bundle."""

import pytest
from conftest import Chain, chained, python

APP = """
import torch
import asyncio
import contextvars

kept = {}
request = contextvars.ContextVar("request", default="none")


def load():
    torch.manual_seed(0)
    return torch.nn.Linear(64, 64)


async def net():
    if not kept:
        kept["net"], kept["lock"], kept["loop"] = await asyncio.to_thread(load), asyncio.Lock(), asyncio.get_running_loop()
        kept["task"] = asyncio.create_task(asyncio.sleep(3600))  # nobody waits for it
    return kept["net"]


async def one(event):
    async with kept["lock"]:
        await asyncio.sleep(0)
        return (await asyncio.to_thread(kept["net"], torch.full((64,), event["x"]))).sum().item()


async def handler(event, context):
    await net()
    found = await asyncio.gather(*(one(event) for _ in range(3)))
    return [found, kept["loop"] is asyncio.get_running_loop(), kept["task"].done()]


async def stream(event, context):
    await net()
    request.set("mine")
    try:
        async with asyncio.timeout(60):
            for _ in range(3):
                yield await one(event)
            yield request.get()
    finally:
        await asyncio.sleep(0)


async def lazy(event, context):
    return stream(event, context)
"""
BUNDLE = """
import asyncio, json, sys
from tidalctl import load_bundle

async def serve():
    function = load_bundle(sys.argv[1])
    events = [{"x": 1.0}, {"x": 2.0}]
    answers = []
    for event in events:
        answers.append(await function(event) if sys.argv[2] == "handler" else [piece async for piece in function(event)])
    if sys.argv[2] == "stream":
        async for piece in function(events[0]):
            break  # the rest is dropped
    return [answers, function.start.strategy]

print(json.dumps(asyncio.run(serve())))
"""


@pytest.fixture(scope="module", params=[pytest.param("handler", marks=pytest.mark.slow), "stream"])
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Chain:
    folder = tmp_path_factory.mktemp(request.param)
    source = APP if request.param == "handler" else APP.replace("def handler", "def other").replace("def stream", "def handler")
    return chained(folder, source, {"x": 1.0}, {"x": 2.0}, options=("--init", "app:load"))


PLAIN = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
import app

async def answer(event):
    return await app.handler(event, None) if sys.argv[2] == "handler" else [p async for p in app.handler(event, None)]

loop = asyncio.new_event_loop()
print(json.dumps([loop.run_until_complete(answer({"x": x})) for x in (1.0, 2.0)]))
"""


def test_a_handler_is_awaited_and_a_generator_is_read_on_one_loop(made: Chain) -> None:
    kind = made.folder.name.removesuffix("0")
    expected = python(PLAIN, made.project, kind, cwd=made.project).report
    for event, answer in zip(made.events, expected, strict=True):
        report = made.run(event)
        assert (report["output"], report["strategy"], report["streamed"]) == (answer, "snapshot", kind == "stream")
    assert "destroyed" not in made.start(made.events[0]).ok().err


def test_load_bundle_gives_the_callers_loop_a_coroutine_or_an_async_generator(made: Chain) -> None:
    kind = made.folder.name.removesuffix("0")
    answers, strategy = python(BUNDLE, made.bundle, kind, cwd=made.folder).report
    assert (answers, strategy) == (python(PLAIN, made.project, kind, cwd=made.project).report, "snapshot")


def test_a_start_is_over_where_nobody_reads_what_an_async_handler_gives(made: Chain) -> None:
    script = """
import gc, sys
from tidalctl import load_bundle
function = load_bundle(sys.argv[1])
given = function({"x": 1.0})
before = gc.isenabled()
del given
print([before, gc.isenabled()])
"""
    assert "[False, True]" in python(script, made.bundle, cwd=made.folder).ok().out
