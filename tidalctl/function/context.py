"""The `context` of `handler(event, context)`: an object as AWS Lambda's Python runtime gives it.

Nothing of it is random, so that two runs of one event can be compared: the request's id is derived from the event. Fields that
`--context` gives take the place of the defaults. What imports more of tidalctl does so late, since the plain arm of a bench loads this
module alone.
"""

import json
import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

TEXTS = (
    "aws_request_id",
    "function_name",
    "function_version",
    "invoked_function_arn",
    "memory_limit_in_mb",
    "log_group_name",
    "log_stream_name",
)
REMAINING = "remaining_time_in_millis"  # what get_remaining_time_in_millis() begins with
IDENTITY = ("cognito_identity_id", "cognito_identity_pool_id")
CLIENT = ("installation_id", "app_title", "app_version_name", "app_version_code", "app_package_name")
OF_A_REQUEST = ("aws_request_id", "log_stream_name")  # another one each time on AWS, too: no argument of init hangs on them
EXAMPLE = """for example: --context '{"function_name": "my-function"}'"""


class Context:
    """What a handler is told about its invocation. The remaining time counts from when this is made."""

    aws_request_id: str
    function_name: str
    function_version: str
    invoked_function_arn: str
    memory_limit_in_mb: str
    log_group_name: str
    log_stream_name: str
    identity: SimpleNamespace
    client_context: SimpleNamespace | None

    def __init__(self, fields: Mapping[str, Any]) -> None:
        for name in TEXTS:
            setattr(self, name, fields[name])
        identity, client_context = fields.get("identity") or {}, fields.get("client_context")
        self.identity = SimpleNamespace(**{name: identity.get(name) for name in IDENTITY})
        self.client_context = None
        if client_context is not None:
            client = client_context.get("client")
            self.client_context = SimpleNamespace(
                custom=client_context.get("custom"),
                env=client_context.get("env"),
                client=None if client is None else SimpleNamespace(**{name: client.get(name) for name in CLIENT}),
            )
        self._ends = time.monotonic() + fields[REMAINING] / 1000

    def get_remaining_time_in_millis(self) -> int:
        """Return the milliseconds until the invocation's time limit; 0 once it has passed. Nothing ends the handler then."""
        return max(0, round((self._ends - time.monotonic()) * 1000))


def context_fields(module: str, event: Any, given: str = "") -> dict[str, Any]:
    """Return all fields of the context of an event: those of the JSON text `given`, and defaults for the function in `module`."""
    stated = json.loads(given) if given else {}
    name = stated.get("function_name", module.replace(".", "-"))
    version = stated.get("function_version", "$LATEST")
    return {
        "aws_request_id": stated.get("aws_request_id") or _request_id(event),
        "function_name": name,
        "function_version": version,
        "invoked_function_arn": f"arn:aws:lambda:us-east-1:000000000000:function:{name}",
        "memory_limit_in_mb": "10240",
        "log_group_name": f"/aws/lambda/{name}",
        "log_stream_name": f"[{version}]",
        REMAINING: 900_000,
        **stated,
    }


def make_context(module: str, event: Any, given: str = "") -> Context:
    """Return the context of an event for the function in `module`. `given` is JSON text, as `parse_context` gives it."""
    return Context(context_fields(module, event, given))


def _request_id(event: Any) -> str:
    from uuid import UUID

    from tidalctl.artifacts.records import digest_json

    return str(UUID(digest_json(event)[:32]))


def parse_context(text: str) -> str:
    """Return the fields of `--context`, a file that holds JSON, or JSON, as JSON text. Raise TidalError where they are none."""
    from tidalctl.function.event import read_object

    fields, _ = read_object("--context", text, EXAMPLE)
    _check("", fields, {**dict.fromkeys(TEXTS, str), REMAINING: int, "identity": dict, "client_context": dict})
    _check("identity.", fields.get("identity") or {}, dict.fromkeys(IDENTITY, str))
    client_context = fields.get("client_context") or {}
    _check("client_context.", client_context, {"custom": dict, "env": dict, "client": dict})
    _check("client_context.client.", client_context.get("client") or {}, dict.fromkeys(CLIENT, str))
    return json.dumps(fields)


def _check(place: str, fields: Mapping[str, Any], kinds: Mapping[str, type]) -> None:
    """Raise TidalError for a field that a context has not, and for a value of another kind."""
    from tidalctl.artifacts.errors import TidalError

    for name, value in fields.items():
        if name not in kinds:
            raise TidalError(
                f"--context: a context has no {place}{name}", f"it has: {', '.join(place + kind for kind in kinds)}"
            )
        if type(value) is not kinds[name]:
            kind = {str: "a string", int: "a whole number", dict: "an object"}[kinds[name]]
            raise TidalError(f"--context: {place}{name} is {json.dumps(value)}, and not {kind}", f"give {kind}")


def context_argument(value: Any) -> dict[str, Any] | None:
    """Return what counts of a context that init is called with, as JSON; None where `value` is no context, ours or AWS's.

    What is new in each request (its id, the log stream, the remaining time) does not count.
    """
    if not hasattr(value, "get_remaining_time_in_millis"):
        return None
    identity, client_context = getattr(value, "identity", None), getattr(value, "client_context", None)
    client = getattr(client_context, "client", None)
    return {
        **{name: getattr(value, name, None) for name in TEXTS if name not in OF_A_REQUEST},
        "identity": [getattr(identity, name, None) for name in IDENTITY],
        "client_context": [getattr(client_context, name, None) for name in ("custom", "env")],
        "client": [getattr(client, name, None) for name in CLIENT],
    }
