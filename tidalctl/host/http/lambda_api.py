"""AWS Lambda's invoke call, so that its clients work: boto3's `lambda` client with an `endpoint_url`, say.

Of a handler that yields, the answer is the list of its pieces.
"""

import base64
import json
import time
import uuid
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from tidalctl.host.http.answer import Answer
from tidalctl.host.http.app import HostApp
from tidalctl.host.http.errors import Refused, json_response

PATH = "/2015-03-31/functions/{name}/invocations"
VERSION = "$LATEST"
# what AWS calls a status of ours
TYPES = {
    400: "InvalidRequestContentException",
    404: "ResourceNotFoundException",
    413: "RequestTooLargeException",
    503: "TooManyRequestsException",
}


class LambdaApi:
    """The route of AWS Lambda's invoke call."""

    def __init__(self, host: HostApp) -> None:
        self._host = host

    def routes(self) -> list[Route]:
        """Return the routes of this interface."""
        return [Route(PATH, self._invoke, methods=["POST"])]

    async def _invoke(self, request: Request) -> Response:
        arrived = time.monotonic_ns()
        request_id = str(uuid.uuid4())
        kind = request.headers.get("x-amz-invocation-type", "RequestResponse")
        try:
            function = self._host.function(function_name(request.path_params["name"]))
            event = await self._host.body(request, empty="{}")
            if kind == "DryRun":
                return Response(status_code=204, headers=_headers(request_id))
            if kind != "RequestResponse":
                raise Refused(400, "InvalidParameterValueException", f"the invocation type {kind[:40]!r} is not served")
            answer = Answer(self._host.serving, function, event, _client_context(request), request_id, arrived)
            await answer.begin(request)
            async with answer:
                pieces = [text async for text in answer.pieces()]
        except Refused as refused:
            return self._refused(refused, request_id)
        except ClientDisconnect:
            return Response(status_code=499)
        text = f"[{', '.join(pieces)}]" if answer.streamed else pieces[0]
        return Response(text, headers={**_headers(request_id), **answer.headers()}, media_type="application/json")

    def _refused(self, refused: Refused, request_id: str) -> Response:
        self._host.serving.log(request_id, refused)
        terse = self._host.serving.options.terse
        if refused.status in (500, 502, 504):  # the function failed, and the call did not
            told: dict[str, Any] = {"errorType": refused.kind}
            if not terse:
                told = {"errorMessage": refused.message, **told, "requestId": request_id}
            if "traceback" in refused.more:
                told["stackTrace"] = refused.more["traceback"]
            return json_response(told, 200, {**_headers(request_id), **refused.headers, "X-Amz-Function-Error": "Unhandled"})
        kind = TYPES.get(refused.status, refused.kind)
        status = 429 if refused.status == 503 else refused.status
        told = {"Type": "User", **({} if terse else {"Message": refused.message})}
        return json_response(told, status, {**_headers(request_id), **refused.headers, "x-amzn-ErrorType": kind})


def function_name(text: str) -> str:
    """Return a function's name from what AWS takes for one: a name, an ARN, or either with a version after it."""
    parts = text.split(":")
    return parts[6] if len(parts) > 6 else parts[2] if len(parts) == 3 else parts[0]


def _headers(request_id: str) -> dict[str, str]:
    return {"x-amzn-RequestId": request_id, "X-Amz-Executed-Version": VERSION}


def _client_context(request: Request) -> dict[str, Any]:
    given = request.headers.get("x-amz-client-context")
    if given is None:
        return {}
    try:
        found = json.loads(base64.b64decode(given, validate=True))
    except ValueError as error:
        raise Refused(400, "InvalidRequestContentException", f"X-Amz-Client-Context is no JSON in base64: {error}") from None
    if not isinstance(found, dict):
        raise Refused(400, "InvalidRequestContentException", "X-Amz-Client-Context is no JSON object")
    parts = {part: found.get(part) for part in ("custom", "env", "client")}
    if not all(value is None or isinstance(value, dict) for value in parts.values()):
        raise Refused(400, "InvalidRequestContentException", "the parts of X-Amz-Client-Context are no objects")
    return {"client_context": parts}
