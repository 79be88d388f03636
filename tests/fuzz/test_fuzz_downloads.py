"""A server that answers with anything: the file that was meant, or one sentence."""

import hashlib
import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import download as module
from ragbook.corpus.download import download
from tests.fuzz.conftest import NASTY, damaged, fuzzed, right_or_told

DATA = bytes(range(256)) * 8
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
GOOD = b'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: 2048\r\nConnection: close\r\n\r\n'


class Liar:
    """Answers each connection with the next of `answers`, the last one again and again."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.answers = [b""]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:  # closed
                return
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            try:
                connection.settimeout(5)
                connection.recv(65_536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            finally:
                connection.close()


@pytest.fixture(scope="module")
def liar():
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "PAUSE", 0.0)
    patch.setattr(module, "ATTEMPTS", 2)
    patch.setattr(module, "LONGEST", 1 << 16)
    server = Liar()
    yield server
    server.socket.close()
    patch.undo()


statuses = st.sampled_from(
    [b"200 OK", b"206 Partial Content", b"204 No", b"301 Moved", b"304 Same", b"404 None",
     b"416 Range", b"500 Error", b"099 x", b"abc", b"2000 OK", b"200 \xff", b""]
)  # fmt: skip
values = st.sampled_from(
    ["abc", "²", "*/²", "-5", "0", str(len(DATA)), str(10**18), "9" * 5_000, "bytes */2048", "\xff",
     "bytes 0-2047/2048", "bytes 1-2047/2048", "bytes 1024-2047/2048", "bytes 1024-2047/*", '"1"',
     '"2"', 'W/"1"', "chunked", "gzip", "/other", "http://[::1/x", "file:///etc/passwd", ""]
)  # fmt: skip
names = st.sampled_from(
    ["Content-Length", "Content-Range", "ETag", "Last-Modified", "Transfer-Encoding", "Location",
     "Content-Encoding", "Connection", "X" * 300]
)  # fmt: skip


@st.composite
def answers(draw):
    """The bytes of one answer: a good one, a damaged one, or one of drawn parts."""
    kind = draw(st.sampled_from(["good", "cut", "damaged", "parts", "parts", "nasty"]))
    if kind == "good":
        return GOOD + DATA
    if kind == "cut":
        return GOOD + DATA[:1024]
    if kind == "damaged":
        return draw(damaged(GOOD)) + DATA
    if kind == "nasty":
        return b"".join(draw(st.lists(st.sampled_from(NASTY), max_size=4)))
    headers = draw(st.lists(st.tuples(names, values), max_size=4))
    lines = b"".join(f"{name}: {value}\r\n".encode("latin-1") for name, value in headers)
    body = draw(st.sampled_from([DATA, DATA[1024:], DATA[:1024], b"", DATA + b"x", DATA * 40]))
    return b"HTTP/1.1 " + draw(statuses) + b"\r\n" + lines + b"\r\n" + body


@fuzzed(60)
@given(st.lists(answers(), min_size=1, max_size=3), st.booleans())
def test_answers(liar, tmp_path_factory, given_answers, checked):
    folder = tmp_path_factory.mktemp("download")
    liar.answers = list(given_answers)
    url = f"http://127.0.0.1:{liar.socket.getsockname()[1]}/x.bin"
    found = right_or_told(
        lambda: download(url, folder, SHA256 if checked else None, progress=False)
    )
    if found is None:
        assert not (folder / "x.bin").exists()
    else:
        assert found == folder / "x.bin"
        assert not checked or found.read_bytes() == DATA
    assert sum(path.stat().st_size for path in folder.iterdir()) < 1 << 18
    liar.answers = [GOOD + DATA]  # a server that tells the truth again is enough
    if found is None and checked:
        again = right_or_told(lambda: download(url, folder, SHA256, progress=False))
        again = again or download(url, folder, SHA256, progress=False)
        assert again.read_bytes() == DATA


@fuzzed(120)
@given(
    st.lists(
        st.sampled_from(
            ["http://", "https://", "127.0.0.1", ":", "[", "]", "::1", "/", "//", "..", "%00",
             "%2F", "ß", "東", "a" * 64,
             ".", "@", "?", "#", " ", "\n", "\0", "\udcff", "%", "9" * 6,
             "x.tsv"]
        ),
        max_size=6,
    ).map("".join)
)  # fmt: skip
def test_addresses(liar, tmp_path_factory, rest):
    """None of them reaches a server: the port is closed, or the address is none."""
    patch = pytest.MonkeyPatch()
    patch.setenv("NO_PROXY", "*")
    patch.setattr(socket, "getaddrinfo", _nobody)
    try:
        folder = tmp_path_factory.mktemp("address")
        assert right_or_told(lambda: download(f"http://{rest}", folder, progress=False)) is None
    finally:
        patch.undo()


def _nobody(host, *_, **__):
    if isinstance(host, str):
        host.encode("idna")  # as the system's own function does
    raise socket.gaierror(-2, "Name or service not known")
