"""Downloads from a server of this machine that can cut, refuse and change its mind."""

import hashlib
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest

from ragbook.corpus import download as module
from ragbook.corpus import load_corpus
from ragbook.corpus.building import build_passages
from ragbook.corpus.download import check, download
from ragbook.corpus.sources import open_source
from ragbook.errors import InputError

DATA = bytes(range(256)) * 4_000
SHA256 = f"sha256:{hashlib.sha256(DATA).hexdigest()}"


class Server(ThreadingHTTPServer):
    """Serves `data` under any name, in at most `cut` bytes a connection."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data, self.etag = DATA, '"1"'
        self.cut = len(DATA)
        self.ranges, self.lengths = True, True
        self.status = 200
        self.endless = False
        self.lies: dict[str, str | None] = {}  # headers of a whole answer
        self.later: dict[str, str | None] = {}  # headers of a part
        self.asked: list[str | None] = []  # the Range of every request

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/files/some%20data.bin?raw=1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.status != 200:
            self.send_error(server.status)
            return
        first = 0
        if wanted and server.ranges and self.headers.get("If-Range") == server.etag:
            first = int(wanted.removeprefix("bytes=").removesuffix("-"))
        if first and first >= len(server.data):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(server.data)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        rest = server.data[first:]
        self.send_response(206 if first else 200)
        sent = {"ETag": server.etag, "Content-Length": str(len(rest)) if server.lengths else None}
        if first:
            last = len(server.data) - 1
            sent["Content-Range"] = f"bytes {first}-{last}/{len(server.data)}"
        lies = server.later if first else server.lies
        for name, value in (sent | lies).items():
            if value is not None:
                self.send_header(name, value)
        self.end_headers()
        with suppress(ConnectionError):  # the client may have seen enough
            self.wfile.write(rest[: server.cut])
            while server.endless:
                self.wfile.write(rest)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_whole_and_not_twice(server, tmp_path):
    path = download(server.url, tmp_path / "new", SHA256)
    assert path.name == "some data.bin"
    assert path.read_bytes() == DATA
    assert download(server.url, tmp_path / "new", SHA256) == path
    assert server.asked == [None]
    assert list(path.parent.iterdir()) == [path]


def test_cut_connections_are_gone_on_from(server, tmp_path):
    server.cut = 300_000
    assert download(server.url, tmp_path, SHA256).read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]


def test_a_server_that_stops_for_good_leaves_what_there_is(server, tmp_path, monkeypatch):
    server.cut = 300_000
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with pytest.raises(InputError, match=r"300,000 bytes are kept.*goes on"):
        download(server.url, tmp_path, SHA256)
    server.cut = len(DATA)
    assert download(server.url, tmp_path, SHA256).read_bytes() == DATA
    assert server.asked == [None, "bytes=300000-"]


def test_two_versions_are_never_joined(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.cut = 300_000
    with pytest.raises(InputError):
        download(server.url, tmp_path)
    server.data, server.etag, server.cut = DATA[::-1], '"2"', len(DATA)
    assert download(server.url, tmp_path).read_bytes() == DATA[::-1]


def test_a_server_without_ranges(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    server.cut, server.ranges = 300_000, False
    with pytest.raises(InputError):
        download(server.url, tmp_path)
    server.cut = len(DATA)
    assert download(server.url, tmp_path, SHA256).read_bytes() == DATA


def test_killed_between_the_last_byte_and_the_renaming(server, tmp_path):
    (tmp_path / "some data.bin.part").write_bytes(DATA)
    (tmp_path / "some data.bin.part.json").write_text(
        f'{{"url": "{server.url}", "version": "\\"1\\""}}'
    )
    assert download(server.url, tmp_path, SHA256).read_bytes() == DATA
    assert server.asked == [f"bytes={len(DATA)}-"]


def test_a_wrong_checksum(server, tmp_path):
    with pytest.raises(InputError, match="damaged or not the file"):
        download(server.url, tmp_path, f"sha256:{'0' * 64}")
    assert list(tmp_path.iterdir()) == []
    path = download(server.url, tmp_path, f"sha1:{hashlib.sha1(DATA).hexdigest().upper()}")
    path.write_bytes(b"changed")
    with pytest.raises(InputError, match="damaged"):
        download(server.url, tmp_path, SHA256)


@pytest.mark.parametrize("wrong", ["", "sha256", "sha256:12", "crc32:00000000", "shake_128:00"])
def test_what_is_no_checksum(tmp_path, wrong):
    with pytest.raises(InputError, match="not a checksum"):
        check(tmp_path / "x", wrong)


def test_refusals_are_told(server, tmp_path, monkeypatch):
    server.status = 404
    with pytest.raises(InputError, match="404"):
        download(server.url, tmp_path)
    assert len(server.asked) == 1
    server.status = 503
    with pytest.raises(InputError, match="503"):
        download(server.url, tmp_path)
    assert len(server.asked) == 1 + module.ATTEMPTS
    with pytest.raises(InputError, match="name of a file"):
        download("http://127.0.0.1/", tmp_path)
    with pytest.raises(InputError, match=r"cannot be fetched.*refused"):
        download("http://127.0.0.1:9/x.bin", tmp_path)


@pytest.mark.parametrize("length", ["abc", "²", "-1", "1_0", "1" * 5_000, "12, 13", "+5"])
def test_a_length_that_is_none(server, tmp_path, length):
    server.lies = {"Content-Length": length}
    with pytest.raises(InputError, match="cannot be fetched"):
        download(server.url, tmp_path)
    server.lies = {}
    assert download(server.url, tmp_path, SHA256).read_bytes() == DATA


@pytest.mark.parametrize(
    "later",
    [
        {"Content-Range": None},
        {"Content-Range": "bytes 1-1023999/1024000"},
        {"Content-Range": "bytes 0-1023999/1024000"},
        {"Content-Range": "bytes ٣٠٠٠٠٠-1023999/1024000"},
        {"Content-Range": "bytes */²"},
        {"Content-Range": "nonsense"},
        {"Content-Range": "bytes 300000-400000/*"},  # of a file of any length
        {"ETag": '"2"'},
        {"ETag": None, "Last-Modified": "Sun, 29 Nov 2026 00:00:00 GMT"},
    ],
)
def test_parts_that_do_not_go_on_are_not_joined(server, tmp_path, later):
    """A 206 from another place, or of another version: the file is fetched anew."""
    server.cut = 300_000
    server.later = {key: value and value.encode().decode("latin-1") for key, value in later.items()}
    with pytest.raises(InputError, match="cannot be fetched"):
        download(server.url, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    server.cut = len(DATA)
    assert download(server.url, tmp_path, SHA256).read_bytes() == DATA


def test_a_file_that_is_said_to_be_complete_and_is_another(server, tmp_path):
    (tmp_path / "some data.bin.part").write_bytes(DATA[::-1])
    note = f'{{"url": "{server.url}", "version": "\\"0\\""}}'
    (tmp_path / "some data.bin.part.json").write_text(note)
    assert download(server.url, tmp_path).read_bytes() == DATA


def test_a_body_without_end(server, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "LONGEST", 3 * len(DATA))
    server.lengths, server.endless = False, True
    with pytest.raises(InputError, match=r"sends more bytes .* another address"):
        download(server.url, tmp_path)
    assert not list(tmp_path.glob("*.bin"))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 1_000
    monkeypatch.setattr(module, "ROOM", 1 << 62)  # as if the disk were full
    with pytest.raises(InputError, match="make room"):
        download(server.url, tmp_path)


def test_a_length_that_no_disk_holds(server, tmp_path):
    server.lies = {"Content-Length": str(10**17)}
    with pytest.raises(InputError, match="make room"):
        download(server.url, tmp_path)


@pytest.mark.parametrize(
    "path", ["Straße.tsv", "東京/データ.tsv", "a b+c.tsv", "Stra%C3%9Fe.tsv", "%E4.tsv"]
)
def test_paths_in_all_languages(server, tmp_path, path):
    url = server.url.partition("/files/")[0] + f"/{path}"
    found = download(url, tmp_path, SHA256)
    assert found.read_bytes() == DATA
    assert found.name == unquote(path.rpartition("/")[2])


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/%00",
        "http://127.0.0.1/a%2Fb",
        "http://127.0.0.1/..",
        "http://[::1/x",
        "http://127.0.0.1:99999999/x",
        "http://127.0.0.1:x/x",
        f"http://{'a' * 64}.test/x",
        f"http://{'ß' * 64}.test/x",
        "http:///x",
        "http://a..test/x",
        "http://127.0.0.1/\n",
        "http://127.0.0.1/\udcff",
        f"http://127.0.0.1/{'x' * 300}",
    ],
)
def test_addresses_that_are_none(tmp_path, monkeypatch, url):
    monkeypatch.setattr(module, "PAUSE", 0.0)
    with pytest.raises(InputError) as caught:
        open_source(url, tmp_path / "cache")
    assert "Traceback" not in str(caught.value)
    assert not list(tmp_path.rglob("*.tsv"))


def test_a_corpus_from_an_address(server, tmp_path):
    server.data = b"id\ttext\ttitle\n1\tIt flows north.\tRhine\n"
    url = server.url.replace("some%20data.bin", "psgs.tsv")
    out = tmp_path / "p.jsonl"
    assert build_passages(open_source(url, tmp_path / "cache"), out) == 1
    assert load_corpus(out)[0].title == "Rhine"
    server.data = server.data.replace(b"Rhine", b"Tagus")
    other = url.replace("/files/", "/others/")  # the same name at another place
    build_passages(open_source(other, tmp_path / "cache"), out)
    assert load_corpus(out)[0].title == "Tagus"
