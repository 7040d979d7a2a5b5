"""The routes of a host: invocations, functions, health and metrics."""

import json
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tidalctl.function.near_names import near_names
from tidalctl.host.http.answer import Answer, Serving
from tidalctl.host.http.errors import Refused, json_response
from tidalctl.host.served_function import ServedFunction

NDJSON, SSE = "application/x-ndjson", "text/event-stream"


class HostApp:
    """Answers HTTP requests from the functions of a front."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self._begun = False  # the first templates are made, and one of them is ready

    def routes(self) -> list[Route]:
        """Return the routes that are this host's own."""
        return [
            Route("/functions", self._functions),
            Route("/functions/{name}", self._function),
            Route("/functions/{name}/invocations", self._invoke, methods=["POST"]),
            Route("/healthz", self._health),
            Route("/metrics", self._metrics),
        ]

    def function(self, name: str) -> ServedFunction:
        """Return a function by its name. Raises Refused, with names that are near."""
        found = self.serving.front.functions.get(name)
        if found is None:
            near = near_names(name, self.serving.front.functions)
            meant = f"; did you mean: {', '.join(near)}" if near else ""
            raise Refused(404, "UnknownFunction", f"no function {name[:80]!r} is served{meant}")
        return found

    async def body(self, request: Request, empty: str = "") -> str:
        """Return the body of a request: the text of a JSON object, `empty` where there is none. Raises Refused."""
        size, parts = 0, []
        async for part in request.stream():
            size += len(part)
            if size > self.serving.options.max_body:
                raise Refused(
                    413, "TooLarge", f"the event is larger than {self.serving.options.max_body} bytes: see --max-body"
                )
            parts.append(part)
        try:
            text = b"".join(parts).decode("utf-8") or empty
            event = json.loads(text, parse_constant=_no_number)
        except (ValueError, RecursionError) as error:
            raise Refused(400, "NotJson", f"the event is not JSON: {error}") from None
        if not isinstance(event, dict):
            raise Refused(400, "NotAnObject", "the event is not a JSON object")
        return text

    async def _invoke(self, request: Request) -> Response:
        arrived = time.monotonic_ns()
        request_id = str(uuid.uuid4())
        try:
            if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
                raise Refused(415, "NotJson", "send the event with Content-Type: application/json")
            function = self.function(request.path_params["name"])
            event = await self.body(request)
            answer = Answer(self.serving, function, event, {}, request_id, arrived)
            await answer.begin(request)
        except Refused as refused:
            return self.refused(refused, request_id)
        except ClientDisconnect:
            return Response(status_code=499)
        headers = answer.headers()
        if not answer.streamed:
            async with answer:
                return await self._whole(answer, headers)
        return StreamedAnswer(answer, headers, SSE if SSE in request.headers.get("accept", "") else NDJSON)

    async def _whole(self, answer: Answer, headers: Mapping[str, str]) -> Response:
        try:
            (text,) = [text async for text in answer.pieces()]
        except Refused as refused:
            return self.refused(refused, answer.request_id)
        return Response(text, headers=dict(headers), media_type="application/json")

    def refused(self, refused: Refused, request_id: str) -> Response:
        """Return the response for what could not be answered."""
        self.serving.log(request_id, refused)
        told = refused.told(request_id, terse=self.serving.options.terse)
        return json_response(told, refused.status, {"Tidalctl-Request-Id": request_id, **refused.headers})

    async def _functions(self, _: Request) -> Response:
        return json_response({"schema": 1, "functions": self.serving.front.status()})

    async def _function(self, request: Request) -> Response:
        try:
            return json_response(self.function(request.path_params["name"]).status())
        except Refused as refused:
            return self.refused(refused, str(uuid.uuid4()))

    async def _health(self, _: Request) -> Response:
        """Say whether requests should come: not before the first templates are made, nor when the host is ending.

        In between it is ready: what is made again, or for the first time, is made since a request asks for it.
        """
        states = [status["state"] for status in self.serving.front.status()]
        self._begun = self._begun or ("starting" not in states and "ready" in states)
        ready = self._begun and not self.serving.draining
        return json_response({"status": "ready" if ready else "not ready"}, 200 if ready else 503)

    async def _metrics(self, _: Request) -> Response:
        return Response(self.serving.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


class StreamedAnswer(StreamingResponse):
    """A stream's pieces, each as it comes, as NDJSON or as server-sent events. The worker goes when the client does."""

    def __init__(self, answer: Answer, headers: Mapping[str, str], media_type: str) -> None:
        super().__init__(_lines(answer, sse=media_type == SSE), headers=headers, media_type=media_type)
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._answer:
            await super().__call__(scope, receive, send)


async def _lines(answer: Answer, *, sse: bool) -> AsyncIterator[str]:
    begin, end = ("data: ", "\n\n") if sse else ("", "\n")
    try:
        async for text in answer.pieces():
            yield f"{begin}{text}{end}"
    except Refused as refused:
        named = "event: error\n" if sse else ""
        yield f"{named}{begin}{answer.last_words(refused)}{end}"


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no JSON")


def make_app(host: HostApp, further: list[Route]) -> Starlette:
    """Return the application of a host, with further routes beside its own."""

    async def plain_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        kind = {404: "NotFound", 405: "MethodNotAllowed"}.get(error.status_code, "HttpError")
        return json_response({"error": {"type": kind, "message": str(error.detail)}}, error.status_code, error.headers)

    return Starlette(routes=[*host.routes(), *further], exception_handlers={HTTPException: plain_error})
