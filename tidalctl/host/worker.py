"""A worker: a process that has imported a function, and answers one event as a process of its own would, and ends.

It is a fork of a template process, or a process that was started ahead. A spare is one that is ready before there is an event.
"""

import os
import signal
import socket
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from tidalctl.host.global_generators import GlobalGenerators
from tidalctl.host.process_properties import die_with_parent, set_dumpable, take_over
from tidalctl.host.respond import respond
from tidalctl.host.warm_up import warm_up
from tidalctl.host.wire import Gone, receive, send
from tidalctl.runtime.launch import RunOptions, run
from tidalctl.runtime.process.exit import leave
from tidalctl.runtime.process.exit_code import exit_code_of
from tidalctl.runtime.process.frame_stack import with_frame_stack
from tidalctl.runtime.template import Template


def become_worker(parent: int) -> None:
    """Have a session of this process's own, in which it ends with its template process, which is `parent`."""
    die_with_parent(parent)
    set_dumpable(True)
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def serve_one(template: Template, generators: GlobalGenerators, orders: socket.socket, *, ahead: bool) -> NoReturn:
    """Answer the request that comes by `orders`, and end with the exit code that an ordinary start would have.

    With `ahead` it comes later, and everything is made ready for it until then. A request that has the worker kept is not the last.
    """
    if ahead:
        warm_up(template)
        send(orders, {"ready": True})
    again = False
    while True:
        try:
            request, streams = receive(orders)
        except Gone:  # no request comes any more
            if again:
                leave(0)
            os._exit(0)
        kept = bool(request.get("keep_alive_s"))
        if not kept:
            orders.close()
        if not again:
            generators.put_right()
        code = answer(template, request, streams, again=again)
        if code or not kept:
            leave(code)
        send(orders, {"again": True})
        again = True


def answer(template: Template, request: Mapping[str, Any], streams: list[int], *, again: bool, handed: str = "host") -> int:
    """Answer a request with its client's own properties. Return the exit code that an ordinary start would have.

    `again` says that this process has answered another one before; `handed` is the phase in which the request came here.
    """
    take_over(request, streams[:3])  # a request over HTTP has neither environment nor directory: the host's are the worker's
    template.timeline.restart(int(request["started_ns"]), int(request["entered_ns"]))
    template.timeline.add(handed, int(request["entered_ns"]), time.monotonic_ns())
    kind = str(request["start"])
    if request["verb"] == "run":
        options = RunOptions(**{**request["fields"], "argv": tuple(request["fields"].get("argv", ()))})
        work = lambda: run(options, template.timeline, template, kind)  # noqa: E731
    else:
        answers = socket.socket(fileno=streams[3])
        work = lambda: respond(template, request, kind, answers, again=again)  # noqa: E731
    return exit_code_of(lambda: with_frame_stack(work))
