"""A worker's side of a request that came over HTTP: pieces and how it ended, as messages on a socket.

A message is a line of JSON: {"piece": …} with the JSON text of a piece (the first one says how it was started, too), then
{"done": true} or {"error": …}. Where none of these comes, the process ended.
"""

import json
import os
import socket
import traceback
from collections.abc import Mapping
from contextlib import closing
from typing import Any

from tidalctl.artifacts.errors import TidalError
from tidalctl.runtime.answer import answer_pieces
from tidalctl.runtime.template import Template


def respond(template: Template, request: Mapping[str, Any], kind: str, answers: socket.socket, *, again: bool = False) -> int:
    """Answer the request's event. Returns the exit code of the worker. `again`: this process has answered another one before."""
    first = True
    with answers:
        try:
            event = json.loads(request["event"])
            with closing(answer_pieces(template, event, json.dumps(request["context"]), again=again)) as pieces:
                for piece in pieces:
                    message: dict[str, Any] = {"piece": piece.text}
                    if first:
                        message |= {"streamed": piece.streamed, **started(template, kind)}
                        first = False
                    _tell(answers, message)
        except TidalError as error:
            raised = error.__cause__
            told = {
                "type": type(raised or error).__name__,
                "message": str(raised) if raised is not None else error.message,
                "traceback": traceback.format_exception(raised) if raised is not None else [],
            }
            _tell(answers, {"error": told, **started(template, kind)})
            raise
        finally:
            template.over()
        _tell(answers, {"done": True, **(started(template, kind) if first else {})})
    return 0


def started(template: Template, kind: str) -> dict[str, Any]:
    """Return how this event was started, as far as it is known."""
    fallback = template.fallback
    return {
        "start": kind,
        "pid": os.getpid(),
        "ttft_s": template.timeline.since_start("first token"),
        "strategy": template.strategy,
        "cause": fallback.code if fallback else None,
    }


def _tell(answers: socket.socket, message: Mapping[str, Any]) -> None:
    answers.sendall(json.dumps(message).encode() + b"\n")
