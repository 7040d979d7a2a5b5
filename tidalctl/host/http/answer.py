"""The answer to one event: begun with its first piece, ended with its last, or with what went wrong."""

import asyncio
import json
import math
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from typing import Any, NamedTuple

from starlette.requests import ClientDisconnect, Request

from tidalctl.host.front import Front
from tidalctl.host.http.errors import Refused
from tidalctl.host.http.invocation import Invocation, WorkerEnded
from tidalctl.host.http.limits import Limits, QueueFull
from tidalctl.host.http.metrics import Metrics
from tidalctl.host.kept_template import NotServed
from tidalctl.host.served_function import ServedFunction


class ServeOptions(NamedTuple):
    """What holds for all requests.

    `keep_alive_s`: for how long a worker that has answered stays. `terse`: errors tell their type and the request's id alone. `debug`:
    they carry tracebacks.
    """

    timeout_s: float = 60.0
    keep_alive_s: float = 0.0
    max_body: int = 6 * 2**20
    debug: bool = False
    terse: bool = False


class Serving:
    """What all answers of a host share. Nothing is begun any more when it is `draining`."""

    def __init__(self, front: Front, limits: Limits, options: ServeOptions) -> None:
        self.front, self.limits, self.options = front, limits, options
        self.metrics = Metrics(front, limits)
        self.draining = False

    def log(self, request_id: str, refused: Refused) -> None:
        """Say on standard error what became of a request that failed: a client may have been told its id alone."""
        if refused.status >= 500:
            print(f"request {request_id}: {refused.status} {refused.kind}: {refused.message}", file=sys.stderr, flush=True)


class Answer:
    """One event's answer, as it comes from a worker.

    `first` is the worker's first message, which says how it was started.
    """

    def __init__(
        self, serving: Serving, function: ServedFunction, event: str, context: dict[str, Any], request_id: str, arrived_ns: int
    ) -> None:
        self.request_id = request_id
        self._serving, self._function, self._event, self._arrived_ns = serving, function, event, arrived_ns
        self._context = context
        self.first: dict[str, Any] = {}
        self._open = AsyncExitStack()
        self._invocation: Invocation | None = None
        self._ends = arrived_ns / 1e9 + serving.options.timeout_s
        self._noted = False

    @property
    def streamed(self) -> bool:
        """Whether the handler gives a stream, of which nothing need have come."""
        return bool(self.first.get("streamed", True))

    def headers(self) -> dict[str, str]:
        """Return what the answer's headers say of its start."""
        told = {
            "Start": self.first.get("start"),
            "TTFT": self.first.get("ttft_s") and f"{self.first['ttft_s']:.6f}",
            "Strategy": self.first.get("strategy"),
            "Cause": self.first.get("cause"),
            "Request-Id": self.request_id,
        }
        return {f"Tidalctl-{name}": str(value) for name, value in told.items() if value}

    async def begin(self, request: Request) -> None:
        """Have a worker begin. Returns when its first piece is there. Raises Refused, or ClientDisconnect."""
        try:
            self.first = await self._while_there(request, self._begin)
        except BaseException as error:  # raised again
            self._note(_outcome(error))
            await self._open.aclose()
            raise

    async def _begin(self) -> dict[str, Any]:
        if self._serving.draining:
            raise Refused(503, "Draining", "the host is ending", {"Retry-After": "1"})
        try:
            async with asyncio.timeout(self._left()):
                await self._open.enter_async_context(self._serving.limits.turn())
                remaining = {"aws_request_id": self.request_id, "remaining_time_in_millis": math.floor(self._left() * 1000)}
                context = {**remaining, **self._context}
                invocation = Invocation(
                    self._serving.front,
                    self._function,
                    self._event,
                    context,
                    self._arrived_ns,
                    self._serving.options.keep_alive_s,
                )
                self._invocation = await self._open.enter_async_context(invocation)
        except QueueFull:
            raise Refused(503, "QueueFull", "too many events wait: see --queue", {"Retry-After": "1"}) from None
        except TimeoutError:
            raise self._too_late() from None
        except NotServed as refused:
            raise self._not_served(refused) from None
        return await self._next()

    async def _while_there(self, request: Request, work: Callable[[], Awaitable[dict[str, Any]]]) -> dict[str, Any]:
        """Do the work while the client is there. Raises ClientDisconnect where it goes."""
        working = asyncio.ensure_future(work())
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait((working, gone), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientDisconnect
            return working.result()
        finally:
            for task in (working, gone):
                task.cancel()
            with suppress(asyncio.CancelledError, Refused):
                await working

    async def _next(self) -> dict[str, Any]:
        assert self._invocation is not None
        try:
            async with asyncio.timeout(self._left()):
                message = await self._invocation.next()
        except TimeoutError:
            raise self._too_late() from None
        except WorkerEnded as ended:
            raise Refused(502, "WorkerEnded", f"the function's process {ended}") from None
        except NotServed as refused:
            raise self._not_served(refused) from None
        if "error" in message:
            self.first = self.first or message
            error = message["error"]
            more = {"traceback": error["traceback"]} if self._serving.options.debug else {}
            raise Refused(500, error["type"], error["message"], self.headers(), **more)
        return message

    def _left(self) -> float:
        return max(0.0, self._ends - time.monotonic())

    def _too_late(self) -> Refused:
        return Refused(504, "Timeout", f"no whole answer after {self._serving.options.timeout_s:g} s: see --timeout")

    def _not_served(self, refused: NotServed) -> Refused:
        headers = {"Retry-After": f"{math.ceil(self._function.retry_s)}", "Tidalctl-Cause": refused.code}
        return Refused(503, "NotServed", f"{refused.text} ({refused.code})", headers)

    async def pieces(self) -> AsyncIterator[str]:
        """Yield the JSON text of each piece. Raises Refused where the answer ends before its end."""
        message = self.first
        try:
            while "done" not in message:
                yield message["piece"]
                message = await self._next()
            self._note("ok")
        except BaseException as error:  # raised again
            self._note(_outcome(error))
            raise

    async def __aenter__(self) -> "Answer":
        return self

    async def __aexit__(self, *_: object) -> None:
        self._note("cancelled")
        await self._open.aclose()

    def _note(self, outcome: str) -> None:
        if not self._noted:
            self._noted = True
            start = str(self.first.get("start", "none"))
            self._serving.metrics.note(self._function.name, start, outcome, self.first.get("ttft_s"))

    def last_words(self, refused: Refused) -> str:
        """Return the JSON text that ends a stream which could not be ended otherwise."""
        self._serving.log(self.request_id, refused)
        return json.dumps(refused.told(self.request_id, terse=self._serving.options.terse), ensure_ascii=False)


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


def _outcome(error: BaseException) -> str:
    if isinstance(error, Refused):
        known = {500: "error", 502: "ended", 504: "timeout", 503: "not_served"}
        return "queue_full" if error.kind == "QueueFull" else known.get(error.status, "error")
    return "cancelled"
