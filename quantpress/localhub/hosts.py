"""Answers only requests that call this Hub by a name that it has.

A web page can give its own name the Hub's address (DNS rebinding), and then read the Hub as if the Hub were the page's
own server. Browsers send the page's name in the header ``Host``, so the Hub looks there. An IP address cannot be such
a name.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from ipaddress import ip_address

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from quantpress.localhub.context import error_response
from quantpress.localhub.errors import HubError

_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[0-9]{1,5})?", re.ASCII)


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class KnownHost:
    """Refuses a request whose ``Host`` is neither an IP address, nor ``localhost``, nor one of ``names``."""

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = {"localhost", *(name.lower() for name in names)}

    def _knows(self, header: str) -> bool:
        match = _HOST.fullmatch(header)
        if match is None:
            return False
        host = match[1] or match[2]
        return host.lower() in self._names or _is_address(host)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else "localhost"
        if self._knows(host):
            await self._app(scope, receive, send)
            return
        error = HubError(421, f"This Hub has no name {host[:100]!r}: call it by its address, or start it with --name")
        await error_response(Request(scope), error)(scope, receive, send)
