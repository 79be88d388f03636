"""`ragbook serve`: the live page, and the server that it needs."""

from __future__ import annotations

import argparse
import os
import re
from typing import TYPE_CHECKING, Any

from ragbook.cli.checks import check_reading, given_options
from ragbook.cli.options import (
    add_encoder,
    add_k,
    add_passages,
    add_reading,
    add_reranker,
    at_least,
    names,
    some_of,
)
from ragbook.cli.parsers import add_command
from ragbook.cli.parts import load_methods, make_retrievers, method_names, open_passages
from ragbook.cli.status import OK
from ragbook.errors import InputError

if TYPE_CHECKING:
    from ragbook.corpus import Corpus

RETRIEVERS = ["dense", "bm25", "hybrid"]
_ON_THE_PAGE = ("k", "retriever", "beams", "free", "lam", "temperature")
_OWN = ("methods", "host", "port", "token", "name", "waiting")


def serve(arguments: argparse.Namespace) -> int:
    """`ragbook serve`: a page on which every method answers, until it is stopped."""
    from ragbook.serve import asking, running
    from ragbook.serve.app import make_app
    from ragbook.serve.asking import Ask
    from ragbook.serve.engine import Engine
    from ragbook.serve.guard import is_loopback
    from ragbook.serve.line import Line

    for option, most in (("k", asking.K), ("beams", asking.BEAMS)):
        if (given := getattr(arguments, option)) > most:
            raise InputError(
                f"--{option} {given} is more than the page allows; choose {most} or less."
            )
    if arguments.reranker is not None and arguments.rerank < asking.K:
        raise InputError(
            f"--rerank {arguments.rerank} reads fewer passages than the {asking.K} that the page "
            "may ask for; rerank at least as many."
        )
    chosen = method_names(arguments.methods, arguments.reader)
    check_reading(arguments, chosen, given_options(arguments))
    token = arguments.token or os.environ.get("RAGBOOK_TOKEN") or None
    name = arguments.name or _named_by_environment()
    with running.open_port(arguments.host, arguments.port, token) as listening:
        corpus, index = open_passages(arguments)
        made, _ = make_retrievers(arguments, arguments.retriever, corpus, index)
        engine = Engine(
            dict(zip(arguments.retriever, made, strict=True)),
            lambda retriever: load_methods(arguments, chosen, retriever, corpus, []),
            arguments.k,
        )
        examples = _examples(corpus)
        for _ in engine.answers(Ask(examples[0] if examples else corpus[0].text[:100] or "What?")):
            pass  # the first question takes longer than the others: it shall not be a person's
        line = Line(arguments.waiting)
        app = make_app(
            engine,
            line,
            about={"passages": f"{len(corpus):,} passages of {corpus.name}", "examples": examples},
            command=["ragbook", "ask", *_shared_options(arguments)],
            local=is_loopback(listening.getsockname()[0]),
            token=token,
            name=name,
        )
        print(f"open {running.address_of(listening)} in a browser; Ctrl-C stops", flush=True)
        running.run(app, line, listening)
    return OK


def _examples(corpus: Corpus) -> list[str]:
    """A question of each kind, of a bundled corpus's own; none for another corpus."""
    from ragbook.corpus import load_questions, miniwiki

    if corpus.name not in miniwiki.NAMES:
        return []
    questions = load_questions(corpus.name, "test")
    return list({question.kind: question.text for question in reversed(questions)}.values())


def _shared_options(arguments: argparse.Namespace) -> list[str]:
    """The options that `ragbook ask` must be given too, beside those that the page sets."""
    words: list[str] = []
    options = {action.dest: action for action in arguments.parser._actions}
    for name in given_options(arguments):
        if name in _OWN or name in _ON_THE_PAGE:
            continue
        value = getattr(arguments, name)
        words.append(options[name].option_strings[-1])
        if name == "columns":
            words.append(",".join(f"{part}={own}" for part, own in value.items()))
        elif value is not True:
            words.append(str(value))
    return words


def add_commands(top: Any) -> None:
    """Add `serve`."""
    command = add_command(
        top, "serve", serve, "open a page on which every method answers what is asked"
    )
    add_passages(command)
    command.add_argument(
        "--retriever",
        type=some_of(RETRIEVERS),
        default=RETRIEVERS,
        metavar="A,B",
        help="those that the page offers, the first one chosen at first (default: "
        f"{','.join(RETRIEVERS)})",
    )
    command.set_defaults(run_file=None, score_scale=None)
    add_reranker(command)
    add_encoder(command, "(default: the index's, or minilm)")
    command.add_argument(
        "--methods", type=names, metavar="A,B", help="those that answer (default: all)"
    )
    add_k(command)
    add_reading(command)
    command.add_argument(
        "--host",
        default="127.0.0.1",
        metavar="ADDRESS",
        help="where it listens; an address that other machines reach needs --token (default: "
        "127.0.0.1)",
    )
    command.add_argument(
        "--port",
        type=_port,
        default=8080,
        metavar="N",
        help="0 means any that is free (default: 8080)",
    )
    command.add_argument(
        "--token",
        metavar="TEXT",
        help="what everyone who asks must have, added to the page's address as #token=TEXT "
        "(default: RAGBOOK_TOKEN, which other users of the machine do not see)",
    )
    command.add_argument(
        "--name",
        type=_name,
        metavar="NAME",
        help="under which a proxy makes the page known, such as ask.example.org, as requests for "
        "unknown names are refused (default: RAGBOOK_NAME)",
    )
    command.add_argument(
        "--waiting",
        type=at_least(0),
        default=32,
        metavar="N",
        help="how many questions may wait for the one that is being answered (default: 32)",
    )


def _name(text: str) -> str:
    """A host's name, without scheme, port and path."""
    if not re.fullmatch(r"[A-Za-z0-9.-]+", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no host's name, such as ask.example.org")
    return text


def _named_by_environment() -> str | None:
    """The name in RAGBOOK_NAME; None without one."""
    name = os.environ.get("RAGBOOK_NAME") or None
    try:
        return name and _name(name)
    except argparse.ArgumentTypeError as error:
        raise InputError(f"RAGBOOK_NAME: {error}.") from None


def _port(text: str) -> int:
    """A port's number."""
    value = at_least(0)(text)
    if value > 65535:
        raise argparse.ArgumentTypeError(f"it must be 65535 or less, not {value}")
    return value
