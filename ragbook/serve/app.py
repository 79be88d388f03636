"""The live page as an application for any ASGI server.

* ``/`` is the page;
* ``/api/about`` says what can be asked: methods, retrievers, defaults, limits;
* ``/api/ask`` answers a POST of :class:`ragbook.serve.asking.Ask` with lines of JSON, one for each
  event (:mod:`ragbook.serve.engine`), as soon as it is known;
* ``/health`` is ``{"status": "ok", "waiting": N}``.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import sys
import traceback
from collections.abc import AsyncIterator, Sequence
from functools import partial
from importlib import resources
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from ragbook.errors import InputError
from ragbook.evaluation.names import EVIDENCE, OWN_EVIDENCE
from ragbook.serve import asking
from ragbook.serve.asking import Ask, parse_ask
from ragbook.serve.engine import Engine
from ragbook.serve.guard import Guard, refused
from ragbook.serve.line import Line
from ragbook.version import __version__

SLOW = 10.0
"""The most seconds that a request may take to arrive."""
BUSY = "Too many people are asking right now; try again in a moment."

_FILES = {
    "/": ("ragbook.serve", "live.html", "text/html"),
    "/live.js": ("ragbook.serve", "live.js", "text/javascript"),
    "/answers.js": ("ragbook.explorer", "answers.js", "text/javascript"),
    "/explorer.css": ("ragbook.explorer", "explorer.css", "text/css"),
}


def make_app(
    engine: Engine,
    line: Line,
    *,
    about: dict[str, Any] | None = None,
    command: Sequence[str] = ("ragbook", "ask"),
    local: bool = True,
    token: str | None = None,
    name: str | None = None,
) -> Starlette:
    """The application.

    Parameters
    ----------
    about: what the page is told besides: ``passages``, what they are; ``examples``, questions to
        begin with.
    command: the beginning of the command line that gives the same answers.
    local, token, name: as in :class:`ragbook.serve.guard.Guard`.
    """

    async def told(_: Request) -> JSONResponse:
        return JSONResponse(_about(engine) | (about or {}))

    async def health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok", "waiting": len(line)})

    async def ask(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return refused(415, "A question is sent as application/json.")
        try:
            wanted = parse_ask(await asyncio.wait_for(_body(request), SLOW))
            engine.check(wanted)
        except InputError as error:
            return refused(400, str(error))
        except TimeoutError:
            return refused(408, "The question took too long to arrive.")
        except _TooLong:
            return refused(
                413, f"A question may have {asking.BODY:,} bytes, with all its settings."
            )
        if line.full:
            return refused(503, BUSY, [("Retry-After", "2")])
        return StreamingResponse(
            _lines(engine, line, wanted, command_line(engine, wanted, command)),
            media_type="application/x-ndjson",
        )

    routes = [Route(path, partial(_file, *file)) for path, file in _FILES.items()]
    routes += [
        Route("/api/about", told),
        Route("/api/ask", ask, methods=["POST"]),
        Route("/health", health),
    ]
    guard = Middleware(Guard, local=local, token=token, name=name)
    return Starlette(routes=routes, middleware=[guard])


async def _file(package: str, name: str, kind: str, _: Request) -> Response:
    return Response(resources.files(package).joinpath(name).read_bytes(), media_type=kind)


class _TooLong(Exception):
    """A body with more than `asking.BODY` bytes."""


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        async for piece in request.stream():
            body += piece
            if len(body) > asking.BODY:
                raise _TooLong
    except ClientDisconnect:
        raise InputError("The question did not arrive whole.") from None
    return bytes(body)


async def _lines(engine: Engine, line: Line, ask: Ask, command: str) -> AsyncIterator[bytes]:
    """The events of a question, one line of JSON each."""
    yield _json({"event": "begin", "command": command})
    try:
        async for event in line.events(lambda: engine.answers(ask)):
            yield _json(event)
    except InputError as error:
        yield _json({"event": "error", "sentence": str(error)})
    except Exception as error:
        traceback.print_exception(error, file=sys.stderr)
        yield _json({"event": "error", "sentence": "The server has failed; its messages say why."})


def _json(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _about(engine: Engine) -> dict[str, Any]:
    names = [method.name for method in engine.methods]
    return {
        "ragbook": __version__,
        "methods": names,
        "measures": {name: EVIDENCE.get(name, OWN_EVIDENCE) for name in names},
        "retrievers": list(engine.retrievers),
        "defaults": {
            name: getattr(engine.defaults, name)
            for name in ("k", "retriever", "beams", "free", "lam", "temperature")
        },
        "limits": {
            "k": asking.K,
            "beams": asking.BEAMS,
            "question": asking.QUESTION,
            "typed": asking.TYPED,
            "edited": asking.EDITED,
        },
    }


def command_line(engine: Engine, ask: Ask, command: Sequence[str]) -> str:
    """The command line that gives the same answers, as a POSIX shell reads it. What `ragbook ask`
    cannot do (strike out passages, edit them, weigh a typed answer) is not in it."""
    plain = engine.defaults
    words = [*command, "--k", str(ask.k or plain.k)]
    words += ["--retriever", ask.retriever or plain.retriever]
    beams = ask.beams or plain.beams
    words += ["--beams", str(beams)]
    if plain.free if ask.free is None else ask.free:
        words.append("--free")
    for option, value, default in (
        ("--lambda", ask.lam, plain.lam),
        ("--temperature", ask.temperature, plain.temperature),
    ):
        if value is not None and value != default:
            words += [option, f"{value:g}"]
    before = ["--"] if ask.question.startswith("-") else []
    return shlex.join([*words, *before, ask.question])
