"""The arms of `bench --host`: a fork and a spare of a warm host, and a later call in one process that has answered before."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

from tidalctl.artifacts.errors import FunctionError
from tidalctl.bench.processes import Run
from tidalctl.bench.replay.host import HostServing
from tidalctl.bench.replay.instance import Instance, NoAnswer, bundle_command
from tidalctl.bench.replay.serving import Answer, Served
from tidalctl.bench.samples import Variant
from tidalctl.bench.subject import Subject
from tidalctl.function.context import context_fields

NAME = "bench"
TIMEOUT_S = 600.0


class Hosted:
    """Two hosts, one without spares, and a process that has called the function by `load_bundle`. To be used as a context.

    Times count from just before the request is sent, those of the later call from just before the process is told of its event; the
    last piece ends them. The process makes its state anew for each call, as the function does.
    """

    def __init__(self, subject: Subject, event: dict[str, Any]) -> None:
        context = context_fields(subject.plain.module, event, subject.plain.context)
        served = Served(subject=subject, mapping=0, request=event, context=context)
        self._request = json.dumps({"event": event, "context": context}).encode() + b"\n"
        self._hosts = {
            "fork": HostServing({NAME: served}, TIMEOUT_S, ("--spares", "0")),
            "spare": HostServing({NAME: served}, TIMEOUT_S, ("--spares", "1")),
        }
        self._process = Instance(bundle_command(served), str(Path(subject.plain.cwd)))
        self._open = contextlib.ExitStack()

    def __enter__(self) -> "Hosted":
        with contextlib.ExitStack() as opened:
            opened.callback(self._end_process)
            for host in self._hosts.values():
                opened.callback(host.close)
                host.open()
                host.answer(NAME)  # a host makes spares of what is in use
            self._open = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def _end_process(self) -> None:
        self._process.kill()
        self._process.reap()

    def run(self, variant: Variant) -> Run:
        """Have the event answered once. Raises FunctionError where it isn't, or was not as `variant` says."""
        if variant == "second":
            sent = time.monotonic_ns()
            try:
                told = self._process.ask(self._request, TIMEOUT_S)
            except NoAnswer as error:
                raise FunctionError(f"a later call in one process: {error}") from None
            answer = Answer(
                start="warm",
                first_ns=told.get("first_token_ns"),
                done_ns=told.get("done_ns", 0),
                output=told.get("output"),
                strategy=told.get("strategy"),
                cause=told.get("cause"),
                failed=told.get("failed"),
            )
        else:
            host = self._hosts[variant]
            if variant == "spare":
                host.wait_for_spare(NAME)
            sent = time.monotonic_ns()
            answer = host.answer(NAME)
            if variant == "spare":
                host.wait_for_spare(NAME)  # another one is being made, which would slow what comes next
        if answer.failed or answer.first_ns is None:
            raise FunctionError(
                f"the {variant} gave no answer: {answer.failed or 'no output'}", "bench an event with an output"
            )
        return Run(
            ttft_s=(answer.first_ns - sent) / 1e9,
            total_s=(answer.done_ns - sent) / 1e9,
            exit_s=0.0,
            phases={},
            output=answer.output,
            strategy=answer.strategy or "",
            fallback=answer.cause,
            ended_ns=answer.done_ns,
        )
