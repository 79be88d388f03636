"""The server: who is answered, how much may be asked, who waits, and how it ends."""

import asyncio
import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
from starlette.testclient import TestClient
from transformers import BertConfig, BertForSequenceClassification

from ragbook import cli
from ragbook.models.cross_encoder import load_cross_encoder
from ragbook.models.embedded import minilm_tokenizer
from ragbook.serve import asking, running
from ragbook.serve.app import command_line, make_app
from ragbook.serve.asking import Ask
from ragbook.serve.engine import Engine
from ragbook.serve.guard import Guard, host_name
from ragbook.serve.line import Line
from tests.models.test_cross_encoder import small, spread
from tests.serve.conftest import FORWARDS, PASSAGES, Slow, load, serving

ROOT = Path(__file__).resolve().parents[2]
QUESTION = {"question": "Which river passes Vienna?"}
TOKEN = "a token of this test"


def client(engine, base="http://localhost:8080", **how) -> TestClient:
    return TestClient(make_app(engine, Line(4), **how), base_url=base)


def lines(response) -> list[dict]:
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


async def listen(line, work, until="end"):
    """The kinds of events up to one kind."""
    kinds = []
    async for event in line.events(work):
        kinds.append((event["event"], event.get("ahead")))
        if event["event"] == until:
            break
    return kinds


# --- the line -------------------------------------------------------------------------------------


def test_people_are_answered_in_turn_and_told_their_place():
    async def scene():
        line, slow = Line(2), Slow()
        people = []
        for _ in range(3):
            people.append(asyncio.create_task(listen(line, lambda: slow.answers(1))))
            await asyncio.sleep(0.05)
        assert len(line) == 3
        assert line.full
        assert await listen(line, lambda: slow.answers(1)) == [("busy", None)]
        assert len(slow.begun) == 1  # one at a time
        slow.go.set()
        told = await asyncio.gather(*people)
        places = [[event for event in each if event[0] == "place"] for each in told]
        assert places == [[], [("place", 1)], [("place", 2), ("place", 1)]]
        assert [each[-1][0] for each in told] == ["end"] * 3
        await asyncio.sleep(0.1)
        assert len(line) == 0

    asyncio.run(scene())


def test_who_leaves_gives_up_place_and_work():
    async def scene():
        line, slow = Line(3), Slow()
        first = asyncio.create_task(listen(line, lambda: slow.answers("first")))
        await asyncio.sleep(0.1)
        second = asyncio.create_task(listen(line, lambda: slow.answers("second")))
        third = asyncio.create_task(listen(line, lambda: slow.answers("third")))
        await asyncio.sleep(0.1)
        second.cancel()
        await asyncio.sleep(0.05)
        assert len(line) == 2
        first.cancel()
        await asyncio.sleep(0.3)
        assert slow.stopped == ["first"]  # its work has stopped, though nobody let it go on
        assert slow.begun == ["first", "third"]
        slow.go.set()
        assert (await third)[-1] == ("end", None)

    asyncio.run(scene())


def test_a_line_that_closes_sends_away_who_waits():
    async def scene():
        line, slow = Line(3), Slow()
        first = asyncio.create_task(listen(line, lambda: slow.answers(1)))
        await asyncio.sleep(0.05)
        second = asyncio.create_task(listen(line, lambda: slow.answers(1), "stopping"))
        await asyncio.sleep(0.05)
        line.close()
        assert (await second)[-1] == ("stopping", None)
        assert await listen(line, lambda: slow.answers(1)) == [("busy", None)]
        slow.go.set()
        assert (await first)[-1] == ("end", None)

    asyncio.run(scene())


def test_an_error_of_the_work_reaches_who_asked_and_frees_the_line():
    def broken():
        yield {"event": "one"}
        raise ZeroDivisionError

    async def scene():
        line = Line(0)
        with pytest.raises(ZeroDivisionError):
            await listen(line, broken)
        await asyncio.sleep(0.05)
        assert len(line) == 0

    asyncio.run(scene())


# --- asking ---------------------------------------------------------------------------------------


def test_an_answer_is_a_line_for_each_event(engine):
    events = lines(client(engine).post("/api/ask", json=QUESTION))
    assert [event["event"] for event in events[:2]] == ["begin", "passages"]
    assert events[-1]["event"] == "end"
    alone = [e["text"] for e in engine.answers(Ask(QUESTION["question"])) if e["event"] == "answer"]
    assert [e["text"] for e in events if e["event"] == "answer"] == alone


def test_about_says_what_can_be_asked(engine):
    about = client(engine, about={"passages": "four"}).get("/api/about").json()
    assert about["methods"] == [method.name for method in engine.methods]
    assert about["retrievers"] == ["forwards", "backwards"]
    assert about["defaults"]["k"] == 3
    assert about["limits"]["k"] == asking.K
    assert about["measures"]["fid"] == "attention"
    assert about["passages"] == "four"


def test_answers_come_before_the_last_one_is_there(engine):
    """Not all at once at the end, as a buffer between would send them."""

    class Waiting(Engine):
        go = threading.Event()

        def answers(self, ask):
            yield {"event": "first"}
            assert self.go.wait(20)
            yield {"event": "end"}

    slow = Waiting({"forwards": FORWARDS}, load)
    with serving(slow) as (address, _):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("POST", "/api/ask", json.dumps(QUESTION), JSON)
        response = connection.getresponse()
        assert json.loads(response.readline())["event"] == "begin"
        assert json.loads(response.readline())["event"] == "first"
        slow.go.set()
        assert json.loads(response.readline())["event"] == "end"


JSON = {"Content-Type": "application/json"}


def test_who_closes_the_connection_stops_the_work():
    slow = Slow()
    engine = Engine({"forwards": FORWARDS}, load)
    engine.answers = slow.answers  # type: ignore[method-assign]
    with serving(engine) as (address, line):
        connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        connection.request("POST", "/api/ask", json.dumps(QUESTION), JSON)
        connection.getresponse().readline()
        connection.close()
        end = time.monotonic() + 20
        while (not slow.stopped or len(line)) and time.monotonic() < end:
            time.sleep(0.02)
        assert len(slow.stopped) == 1
        assert len(line) == 0


def test_a_full_line_is_a_503_that_says_when_to_come_again():
    slow = Slow()
    engine = Engine({"forwards": FORWARDS}, load)
    engine.answers = slow.answers  # type: ignore[method-assign]
    with serving(engine, waiting=0) as (address, _):
        first = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        first.request("POST", "/api/ask", json.dumps(QUESTION), JSON)
        response = first.getresponse()
        response.readline()
        second = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        second.request("POST", "/api/ask", json.dumps(QUESTION), JSON)
        busy = second.getresponse()
        assert (busy.status, busy.headers["Retry-After"]) == (503, "2")
        assert "try again" in json.loads(busy.read())["error"]
        third = http.client.HTTPConnection(urlsplit(address).netloc, timeout=20)
        third.request("GET", "/health")
        assert json.loads(third.getresponse().read()) == {"status": "ok", "waiting": 1}
        slow.go.set()
        response.read()


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (json.dumps(QUESTION), {"Content-Type": "text/plain"}, 415),
        (json.dumps(QUESTION), {"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ("{", JSON, 400),
        (json.dumps(QUESTION | {"k": 1000}), JSON, 400),
        (json.dumps(QUESTION | {"retriever": "oracle"}), JSON, 400),
        (json.dumps({"question": "a" * asking.BODY}), JSON, 413),
        (json.dumps(QUESTION), JSON | {"Origin": "http://evil.example"}, 403),
        (json.dumps(QUESTION), JSON | {"Origin": "null"}, 403),
        (json.dumps(QUESTION), JSON | {"Host": "evil.example"}, 421),
        (json.dumps(QUESTION), JSON | {"Host": "127.0.0.1.evil.example:8080"}, 421),
        (json.dumps(QUESTION), JSON | {"Host": "192.0.2.1:8080"}, 421),
        (json.dumps(QUESTION), JSON | {"Origin": "http://localhost:8080"}, 200),
        (json.dumps(QUESTION), JSON | {"Host": "[::1]:8080"}, 200),
        (json.dumps(QUESTION), JSON | {"Host": "127.0.0.1"}, 200),
    ],
)
def test_what_is_refused(engine, body, headers, status):
    response = client(engine).post("/api/ask", content=body, headers=headers)
    assert response.status_code == status, response.text
    if status != 200:
        assert response.json()["error"].endswith(".")


def test_every_answer_forbids_what_the_page_does_not_need(engine):
    for path in ("/", "/live.js", "/answers.js", "/explorer.css", "/api/about", "/health", "/none"):
        headers = client(engine).get(path).headers
        policy = dict(one.split(" ", 1) for one in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert "unsafe" not in headers["content-security-policy"]
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
    page = client(engine).get("/").text
    assert "<style" not in page
    assert "style=" not in page
    assert "http" not in page.replace('http-equiv="', "")


def test_a_token_is_asked_for_where_there_is_one(engine):
    other = client(engine, "http://192.0.2.1", local=False, token=TOKEN)
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": TOKEN}):
        assert other.post("/api/ask", json=QUESTION, headers=headers).status_code == 401
        assert other.get("/api/about", headers=headers).status_code == 401
    assert other.get("/").status_code == 200  # the page, which asks for the token
    assert other.get("/health").status_code == 200
    own = {"Authorization": f"Bearer {TOKEN}"}
    assert lines(other.post("/api/ask", json=QUESTION, headers=own))[-1]["event"] == "end"


@pytest.mark.parametrize(
    ("local", "host", "named"),
    [
        (True, "localhost:1", True),
        (True, "LOCALHOST", True),
        (True, "127.8.9.1:80", True),
        (True, "0.0.0.0", False),
        (True, "", False),
        (True, "localhost.evil.example", False),
        (True, "localhost:80:80", False),
        (True, "localhost:x", False),
        (False, "192.0.2.7:8080", True),
        (False, "evil.example", False),
        (False, socket.gethostname(), True),
    ],
)
def test_a_host_is_an_address_or_this_machines_name(local, host, named):
    assert Guard(None, local, None)._named(host) is named  # type: ignore[arg-type]
    assert host_name("[::1]:80") == "::1"


def test_a_proxys_name_for_the_server_is_taken_and_no_other():
    guard = Guard(None, False, None, "Ask.example.org")  # type: ignore[arg-type]
    assert guard._named("ask.example.org")
    assert guard._named("ASK.example.org:443")
    assert not guard._named("example.org")
    assert not guard._named("ask.example.org.evil.example")


def test_the_command_line_is_the_one_that_asks_the_same(engine):
    from ragbook.cli.parser import new_parser

    ask = Ask(
        "--What's “this”; rm -rf $HOME?", k=7, retriever="backwards", lam=0.25, beams=4, free=True
    )
    text = command_line(engine, ask, ["ragbook", "ask", "--reader", "my readers"])
    words = subprocess.run(
        ["sh", "-c", f"printf '%s\\0' {text}"], capture_output=True, text=True, check=True
    ).stdout.split("\0")[1:-1]
    at = words.index("backwards")
    arguments = new_parser().parse_args([*words[:at], "bm25", *words[at + 1 :]])
    assert arguments.question == ask.question
    assert (arguments.k, arguments.lam, arguments.beams, arguments.free) == (7, 0.25, 4, True)
    assert arguments.reader == "my readers"
    assert arguments.temperature is None


# --- beginning and ending -------------------------------------------------------------------------


def refused(capsys, *arguments) -> str:
    capsys.readouterr()
    assert cli.main(["serve", *map(str, arguments)]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    said = [line for line in error.splitlines() if not line.startswith("without realm: ")]
    assert len(said) == 1, error
    return error


def test_what_cannot_be_served_is_refused_in_one_sentence(capsys, monkeypatch):
    monkeypatch.delenv("RAGBOOK_TOKEN", raising=False)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert f"Port {port} is in use" in refused(capsys, "--port", port)
    assert "choose a token" in refused(capsys, "--host", "0.0.0.0")
    assert "choose a token" in refused(capsys, "--host", "::")
    assert "can be guessed" in refused(capsys, "--host", "0.0.0.0", "--token", "short")
    assert "no address" in refused(capsys, "--host", "no.such.host.invalid")
    assert "no address of this machine" in refused(capsys, "--host", "192.0.2.1", "--token", TOKEN)
    assert "65535" in refused(capsys, "--port", 65536)
    assert "--k 21" in refused(capsys, "--k", 21)
    assert "--beams 9" in refused(capsys, "--beams", 9)
    assert "nope" in refused(capsys, "--reader", "nope")
    assert "none of dense, bm25, hybrid" in refused(capsys, "--retriever", "oracle")
    assert "nowhere" in refused(capsys, "--index", "nowhere", "--port", 0)
    assert "no method 'nope'" in refused(capsys, "--methods", "fid,nope", "--port", 0)
    assert "--rerank 19" in refused(capsys, "--reranker", "own", "--rerank", 19, "--port", 0)
    assert "no reranker 'nowhere'" in refused(capsys, "--reranker", "nowhere", "--port", 0)


def test_a_token_of_the_environment_counts(capsys, monkeypatch):
    monkeypatch.setenv("RAGBOOK_TOKEN", "short")
    assert "can be guessed" in refused(capsys, "--host", "0.0.0.0")
    with running.open_port("0.0.0.0", 0, TOKEN) as listening:
        assert running.address_of(listening).startswith("http://0.0.0.0:")


@contextlib.contextmanager
def started(command: list[str], environment: dict[str, str]):
    """A server's process, which a failed test does not wait for."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_sigterm_ends_it_in_order(tmp_path):
    """Who is being answered gets the answer, the status is 0, and nothing is said."""
    script = """
import time
from ragbook.serve import running
from ragbook.serve.app import make_app
from ragbook.serve.line import Line
class Engine:
    methods, retrievers = [], {}
    class defaults:
        k, retriever, beams, free, lam, temperature = 1, "", 1, False, None, None
    def check(self, ask): pass
    def answers(self, ask):
        yield {"event": "first"}
        time.sleep(0.2)
        yield {"event": "end"}
line = Line(2)
listening = running.open_port("127.0.0.1", 0, None)
print(running.address_of(listening), flush=True)
running.run(make_app(Engine(), line), line, listening)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with started([sys.executable, "-c", script], environment) as process:
        assert process.stdout is not None
        where = urlsplit(process.stdout.readline().strip()).netloc
        connections = [http.client.HTTPConnection(where, timeout=20) for _ in range(2)]
        for connection in connections:
            connection.request("POST", "/api/ask", json.dumps(QUESTION), JSON)
        answered, waiting = (connection.getresponse() for connection in connections)
        assert [json.loads(answered.readline())["event"] for _ in range(2)] == ["begin", "first"]
        assert [json.loads(waiting.readline())["event"] for _ in range(2)] == ["begin", "place"]
        process.send_signal(signal.SIGTERM)
        assert json.loads(answered.readline())["event"] == "end"
        assert json.loads(waiting.readline())["event"] == "stopping"
        _, error = process.communicate(timeout=30)
    assert process.returncode == 0
    assert error == ""


def test_the_command_serves_ones_own_passages(tmp_path):
    """As a user starts it, with some methods and a reranker: the address on standard output, the
    options of `ask` in what is copied, status 0 after SIGTERM."""
    corpus = tmp_path / "my rivers.jsonl"
    corpus.write_text(
        "".join(json.dumps({"id": p.id, "title": p.title, "text": p.text}) + "\n" for p in PASSAGES)
    )
    reranker = tmp_path / "reranker"
    spread(BertForSequenceClassification(BertConfig(**small(1)))).save_pretrained(reranker)
    minilm_tokenizer().save_pretrained(reranker)
    given = ["--corpus", str(corpus), "--retriever", "bm25", "--k", "2", "--same-weights"]
    given += ["--methods", "realm,fid,closed-book", "--reranker", str(reranker)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ragbook", "serve", *given, "--port", "0"]
    with started(command, environment) as process:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said.startswith("open http://127.0.0.1:"), said
        connection = http.client.HTTPConnection(urlsplit(said.split()[1]).netloc, timeout=100)
        connection.request("GET", "/api/about")
        about = json.loads(connection.getresponse().read())
        assert about["passages"] == "4 passages of my rivers"
        assert (about["examples"], about["retrievers"]) == ([], ["bm25"])
        assert (about["defaults"]["k"], about["methods"]) == (
            2,
            ["closed-book", "realm", "fid"],
        )
        connection.request("POST", "/api/ask", json.dumps(QUESTION), JSON)
        events = [json.loads(line) for line in connection.getresponse().read().splitlines()]
        assert [event["event"] for event in events].count("answer") == 3
        scores = load_cross_encoder(str(reranker)).scores(QUESTION["question"], list(PASSAGES))
        best = [PASSAGES[at].id for at in np.argsort(-scores)[:2]]
        assert [passage["id"] for passage in events[1]["passages"]] == best
        assert shlex.split(events[0]["command"]) == [
            "ragbook", "ask", "--corpus", str(corpus), "--reranker", str(reranker),
            "--same-weights", "--k", "2", "--retriever", "bm25", "--beams", "2",
            QUESTION["question"],
        ]  # fmt: skip
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=60)
    assert (process.returncode, error) == (0, "")
