"""What stands before the application: whose requests are answered, and what every answer says."""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Collection

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

SHORTEST_TOKEN = 16
"""The fewest characters of a token."""

_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def is_loopback(address: str) -> bool:
    """Whether only programs on this machine reach the address."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


class Guard:
    """Refuses requests that are not meant for this server, and those without its token.

    A page on another site can make a browser send requests here, and if its own name suddenly means
    this machine (DNS rebinding), it could read the answers. It then names itself as ``Host``. So
    that must be ``localhost`` or an address of this machine, and, if the server can be reached from
    outside, an address, this machine's name, or the name that a proxy passes on. ``Origin``, where
    there is one, must be the same.

    Parameters
    ----------
    local: whether the server is bound to a loopback address.
    token: must be sent as ``Authorization: Bearer`` with every request below ``/api/``; None for a
        server that asks for none.
    name: a further name of this server; None if it has none.
    """

    def __init__(
        self, app: ASGIApp, local: bool, token: str | None, name: str | None = None
    ) -> None:
        self.app, self.local, self.token = app, local, token
        self.names = {"localhost"}
        if not local:
            self.names |= {socket.gethostname().lower(), socket.getfqdn().lower()}
        if name is not None:
            self.names.add(name.lower())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        refusal = self._refusal(scope["path"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, with_headers)

    def _refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._named(hosts[0]):
            return refused(421, "This server has another name; open it by its address.")
        origin = headers.get("origin")
        if origin is not None and origin.partition("://")[2] != hosts[0]:
            return refused(403, "This server answers its own page only.")
        if self.token is not None and path.startswith("/api/"):
            given = headers.get("authorization", "")
            if not hmac.compare_digest(given.encode(), f"Bearer {self.token}".encode()):
                return refused(401, "The token is missing or wrong.")
        return None

    def _named(self, host: str) -> bool:
        """Whether a ``Host`` can mean this server: addresses cannot be rebound, as names can."""
        name = host_name(host)
        if name is None or name in self.names:
            return name is not None
        try:
            return is_loopback(name) or not self.local
        except ValueError:  # another name
            return False


def host_name(host: str) -> str | None:
    """The name or address in a ``Host`` header, without its port; None if it is not one."""
    name, _, port = host.rpartition(":")
    if not name or host.endswith("]"):
        name, port = host, ""
    if port and not (port.isascii() and port.isdigit()):
        return None
    return name.removeprefix("[").removesuffix("]").lower() or None


def refused(status: int, sentence: str, headers: Collection[tuple[str, str]] = ()) -> JSONResponse:
    """A refusal: one sentence, as JSON."""
    return JSONResponse({"error": sentence}, status, dict(headers))
