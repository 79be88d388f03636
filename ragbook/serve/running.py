"""Opens a port and serves the application there until it is told to stop."""

from __future__ import annotations

import errno
import logging
import signal
import socket
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from ragbook.errors import InputError
from ragbook.serve.guard import SHORTEST_TOKEN, is_loopback
from ragbook.serve.line import Line

LINGER = 8
"""How many seconds those who are being answered get when the server stops."""
CONNECTIONS = 200
"""The most connections at a time."""


def open_port(host: str, port: int, token: str | None) -> socket.socket:
    """A socket that listens at the address; port 0 means any that is free.

    Raises
    ------
    InputError: there is no such address here, the port is taken or not for this user, or the
        address can be reached from other machines and there is no token, or a short one.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (OSError, UnicodeError):
        raise InputError(f"There is no address {host!r}; check --host.") from None
    if token is None and not is_loopback(str(address[0])):
        raise InputError(
            f"{host} can be reached from other machines; choose a token that all who ask must "
            "have, with --token or RAGBOOK_TOKEN."
        )
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii()):
        raise InputError(
            f"The token can be guessed; give it {SHORTEST_TOKEN} or more ASCII characters."
        )
    try:
        return socket.create_server(address[:2], family=family, backlog=128)
    except OSError as error:
        reasons = {
            errno.EADDRINUSE: f"Port {port} is in use; choose another with --port.",
            errno.EACCES: f"Port {port} is reserved; choose one above 1023 with --port.",
            errno.EPERM: f"Port {port} is reserved; choose one above 1023 with --port.",
            errno.EADDRNOTAVAIL: f"{host} is no address of this machine; check --host.",
        }
        if error.errno not in reasons:
            raise
        raise InputError(reasons[error.errno]) from None


def address_of(listening: socket.socket) -> str:
    """The address to open in a browser."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"


class Server(uvicorn.Server):
    """uvicorn's server, which also sends away those who wait when it is told to stop."""

    def __init__(self, app: ASGIApp, line: Line) -> None:
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
        super().__init__(
            uvicorn.Config(
                app,
                access_log=False,
                log_config=None,
                server_header=False,
                proxy_headers=False,
                ws="none",
                lifespan="off",
                limit_concurrency=CONNECTIONS,
                timeout_keep_alive=15,
                timeout_graceful_shutdown=LINGER,
            )
        )
        self.line = line

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop: called in the main thread, between two steps of the event loop."""
        self.line.close()
        super().handle_exit(sig, frame)


def run(app: ASGIApp, line: Line, listening: socket.socket) -> None:
    """Serve the application until SIGTERM, which ends it in order, or an interrupt, which is raised
    as `KeyboardInterrupt` afterwards."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is raised again when all has ended
    try:
        Server(app, line).run(sockets=[listening])
    finally:
        signal.signal(signal.SIGTERM, before)
