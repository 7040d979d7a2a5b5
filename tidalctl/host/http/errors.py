"""What a request is told that can't be answered: a status, and a JSON object whose `error` has a type and a message."""

import json
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response


class Refused(Exception):
    """A request that can't be answered. `kind` is the error's type."""

    def __init__(self, status: int, kind: str, message: str, headers: Mapping[str, str] | None = None, **more: Any) -> None:
        self.status, self.kind, self.message = status, kind, message
        self.headers, self.more = dict(headers or {}), more
        super().__init__(message)

    def told(self, request_id: str, *, terse: bool) -> dict[str, Any]:
        """Return what the client is told. A `terse` host tells the type and the request's id alone."""
        if terse:
            return {"error": {"type": self.kind, "request_id": request_id}}
        return {"error": {"type": self.kind, "message": self.message, **self.more, "request_id": request_id}}


def refusal(status: int, kind: str, message: str, headers: Mapping[str, str] | None = None) -> Response:
    """Return the response to a request of which nothing was read."""
    error = {"error": {"type": kind, "message": message}, "message": message}  # the latter for clients of AWS
    return json_response(error, status, {**(headers or {}), "x-amzn-ErrorType": kind})


def json_response(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a response with a JSON body."""
    return Response(json.dumps(body, ensure_ascii=False), status, headers=dict(headers or {}), media_type="application/json")
