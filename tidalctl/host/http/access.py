"""Who may ask: requests that a browser was tricked into, and those without the token, are refused before anything is read of them."""

import hmac
import ipaddress
import socket
from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from tidalctl.host.http.errors import refusal

OPEN_PATHS = ("/healthz",)  # a platform's probe has no token


class Access:
    """Refuses what may not ask, and passes on the rest.

    A request's Host must be an address, a name of this machine or one of `hosts`, and its Origin, where a browser sends one, the same
    as the Host. With a `token` each request must carry it, and its Host may be any.
    """

    def __init__(self, app: ASGIApp, token: str | None, hosts: Iterable[str] = ()) -> None:
        self._app = app
        self._token = token.encode() if token is not None else None
        self._hosts = {"localhost", socket.gethostname().lower(), *(host.lower() for host in hosts)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refused = self._refused(Headers(scope=scope), scope) if scope["type"] == "http" else None
        await (refused or self._app)(scope, receive, send)

    def _refused(self, headers: Headers, scope: Scope) -> Response | None:
        host = headers.get("host", "")
        reached_by_name = (scope.get("server") or ("", None))[1] is not None  # and not by a Unix socket
        if self._token is None and reached_by_name and not self._known(host):
            return refusal(403, "ForeignHost", f"the request is for {host[:80]!r}: see --allow-host")
        origin = headers.get("origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return refusal(403, "CrossSite", "the request comes from another site's page")
        if self._token is not None and scope["path"] not in OPEN_PATHS:
            given = headers.get("authorization", "").encode()
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                return refusal(
                    401, "Unauthorized", "send the token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )
        return None

    def _known(self, host: str) -> bool:
        name = urlsplit(f"//{host}").hostname or ""
        if name in self._hosts or "*" in self._hosts:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True
