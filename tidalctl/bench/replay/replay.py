"""A replay: the same arrivals, for each way of serving in turn, over files that are in memory."""

import json
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from tidalctl.bench.page_cache import fill
from tidalctl.bench.processes import event_argument, run_eager
from tidalctl.bench.replay.arrivals import Arrivals
from tidalctl.bench.replay.driver import Say, drive
from tidalctl.bench.replay.host import HostServing
from tidalctl.bench.replay.instance import bundle_command, plain_command
from tidalctl.bench.replay.instance_pool import InstancePool
from tidalctl.bench.replay.samples import Replayed
from tidalctl.bench.replay.serving import Served, Serving, WayName
from tidalctl.bench.subject import comparable
from tidalctl.report.machine import describe_machine


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """How a replay goes. Times are seconds of the clock on the wall, but for `keep_warm_s`, which is in the arrivals' own time."""

    ways: tuple[WayName, ...]
    speed: float = 1.0
    keep_warm_s: float = 600.0
    slo_s: float = 2.0
    timeout_s: float = 120.0
    memory: int | None = None
    seed: int = 0


def replay(arrivals: Arrivals, functions: Mapping[str, Served], settings: Settings, say: Say) -> Replayed:
    """Drive each way of serving by the arrivals. Raises TidalError or FunctionError where a way can't begin.

    The plain function answers each mapping's event once before: what it gives is what all answers are compared with.
    """
    served = list({one.mapping: one for one in functions.values()}.values())
    say("the plain function, for its outputs")
    expected = {one.mapping: _plain_output(one) for one in served}
    ways, remarks = [], _remarks(served)
    for name in settings.ways:
        if not _fill(served):
            remarks.append(f"{name}: not all files were in memory at the beginning")
        serving = _serving(name, functions, settings)
        ways.append(drive(name, serving, arrivals.arrivals, settings.speed, functions, expected, say))
    return Replayed(
        machine=describe_machine(served[0].subject.manifest.fingerprint.torch),
        arrivals=_told(arrivals, settings),
        maps=tuple(_map(one, functions) for one in served),
        slo_s=settings.slo_s,
        keep_warm_s=settings.keep_warm_s,
        memory=settings.memory,
        ways=tuple(ways),
        remarks=tuple(remarks),
    )


def _serving(name: WayName, functions: Mapping[str, Served], settings: Settings) -> Serving:
    if name == "host":
        return HostServing(functions, settings.timeout_s, () if settings.memory is None else ("--memory", str(settings.memory)))
    command = plain_command if name == "plain" else bundle_command
    return InstancePool(functions, command, settings.keep_warm_s / settings.speed, settings.timeout_s, settings.memory)


def _plain_output(served: Served) -> str | None:
    with tempfile.TemporaryDirectory(prefix="tidalctl-replay-") as folder:
        run = run_eager(served.subject.plain, event_argument(json.dumps(served.request), Path(folder)))
    return comparable(run.output) if served.subject.manifest.reproducible else None


def _fill(served: Sequence[Served]) -> bool:
    """Read what the ways of serving read into memory. Return whether it is there then."""
    files = dict.fromkeys(path for one in served for path in (*one.subject.weights, *one.subject.read))
    return fill(list(files)).warm


def _told(arrivals: Arrivals, settings: Settings) -> dict[str, Any]:
    return {
        "source": arrivals.source,
        "functions": len(arrivals.functions),
        "functions_asked": len({arrival.function for arrival in arrivals.arrivals}),
        "requests": len(arrivals.arrivals),
        "seconds": arrivals.seconds,
        "rate": arrivals.rate,
        "speed": settings.speed,
        "offered_rate": arrivals.rate * settings.speed,
        "seed": settings.seed,
    }


def _map(served: Served, functions: Mapping[str, Served]) -> dict[str, Any]:
    manifest = served.subject.manifest
    return {
        "mapping": served.mapping,
        "bundle": served.subject.shown,
        "digest": manifest.digest,
        "function": f"{manifest.function.module}:{manifest.function.handler}",
        "functions": sum(one.mapping == served.mapping for one in functions.values()),
        "compared": manifest.reproducible,
    }


def _remarks(served: Sequence[Served]) -> list[str]:
    return [
        f"outputs of {one.subject.shown} are not compared: the plain function's own runs differ among themselves"
        for one in served
        if not one.subject.manifest.reproducible
    ]
