"""`ragbook.files`: files and folders that appear whole or not at all, their hashes, safe names."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.files import (
    file_records,
    is_bare_name,
    remove_unfinished,
    replace_file,
    replace_folder,
    sha256_of_file,
    whole_file,
    write_json,
    write_text,
    write_whole,
)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def folder(tmp_path):
    """A folder with the file `out` of the bytes `old`."""
    (tmp_path / "out").write_bytes(b"old")
    return tmp_path


def test_a_written_file_replaces_the_old_one_and_nothing_else_is_left(folder):
    write_whole(folder / "out", lambda file: file.write(b"new"))
    assert contents(folder) == {"out": b"new"}
    with whole_file(folder / "out") as unfinished:
        unfinished.write_bytes(b"newer")
    assert contents(folder) == {"out": b"newer"}


def test_text_and_json_have_the_bytes_that_are_expected(folder):
    write_text(folder / "out", "é\r\n\n")
    assert (folder / "out").read_bytes() == "é\r\n\n".encode()
    write_json(folder / "out", {"a": ["é"]})
    assert (folder / "out").read_bytes() == b'{\n  "a": [\n    "\\u00e9"\n  ]\n}\n'
    write_json(folder / "out", {"a": 1}, indent=None)
    assert (folder / "out").read_bytes() == b'{"a": 1}\n'


def test_the_old_file_stands_until_the_new_one_is_whole(folder):
    with whole_file(folder / "out") as unfinished:
        unfinished.write_bytes(b"new")
        assert (folder / "out").read_bytes() == b"old"
        assert unfinished.parent == folder, "a rename must stay on one disk"


@pytest.mark.parametrize("error", [OSError, ValueError, KeyboardInterrupt])
def test_a_writer_that_fails_leaves_nothing_and_keeps_the_old_file(folder, error):
    def fails(file):
        file.write(b"half")
        raise error

    for name in ("out", "new"):
        with pytest.raises(error):
            write_whole(folder / name, fails)
    with pytest.raises(TypeError):
        write_json(folder / "out", {"a": object()})
    with pytest.raises(FileNotFoundError), whole_file(folder / "out"):
        pass  # a writer that wrote nothing
    assert contents(folder) == {"out": b"old"}


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL")
def test_a_writer_that_is_killed_keeps_the_old_file_and_what_it_leaves_can_be_removed(folder):
    program = """
import os, signal, sys
from pathlib import Path
from ragbook.files import write_whole
def killed(file):
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
write_whole(Path(sys.argv[1]), killed)
"""
    done = subprocess.run([sys.executable, "-c", program, str(folder / "out")], check=False)
    assert done.returncode == -signal.SIGKILL
    assert (folder / "out").read_bytes() == b"old"
    assert sorted(contents(folder).values()) == [b"half", b"old"]
    write_text(folder / "out", "new")
    remove_unfinished(folder, "another")
    assert len(contents(folder)) == 2
    remove_unfinished(folder, "out")
    assert contents(folder) == {"out": b"new"}


def test_data_reach_the_disk_before_the_name_and_the_name_before_the_return(folder, monkeypatch):
    done: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor):
        done.append("folder" if os.path.samestat(os.fstat(descriptor), folder.stat()) else "file")
        fsync(descriptor)

    def noted_replace(old, new):
        done.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_whole(folder / "out", lambda file: file.write(b"new"))
    assert done == ["file", "rename"] + ["folder"] * (os.name != "nt")
    done.clear()
    replace_file(folder / "out", folder / "moved")
    assert done == ["file", "rename"] + ["folder"] * (os.name != "nt")


def test_threads_may_write_the_same_file_at_once(folder):
    texts = [str(number) * 100_000 for number in range(8)]
    threads = [threading.Thread(target=write_text, args=(folder / "out", t)) for t in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(contents(folder)) == ["out"]
    assert (folder / "out").read_text() in texts


def test_a_folder_replaces_the_old_one(tmp_path):
    finished, out, mine = (tmp_path / name for name in ("finished", "out", "replaced"))
    mine.mkdir()  # a user's own folder, of a name that comes to mind
    for text in ("first", "second"):
        (finished / "inner").mkdir(parents=True)
        (finished / "inner" / text).write_text(text)
        replace_folder(finished, out)
        assert contents(out / "inner") == {text: text.encode()}
        assert {path.name for path in tmp_path.iterdir()} == {"out", "replaced"}


def test_every_file_of_a_folder_reaches_the_disk_before_its_name(tmp_path, monkeypatch):
    finished, out = tmp_path / "finished", tmp_path / "out"
    finished.mkdir()
    for name in ("a", "b"):
        (finished / name).write_text(name)
    synced = set()

    def noted(descriptor):
        if not out.exists():
            synced.add(os.fstat(descriptor).st_ino)

    monkeypatch.setattr(os, "fsync", noted)
    replace_folder(finished, out)
    assert {(out / name).stat().st_ino for name in ("a", "b")} <= synced


@given(data=st.binary(max_size=3_000), repeats=st.sampled_from([1, 1_000]))
def test_hashes_and_sizes_are_those_of_the_bytes(tmp_path_factory, data, repeats):
    data *= repeats
    path = tmp_path_factory.mktemp("hash") / "file"
    path.write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    assert sha256_of_file(path) == digest
    assert file_records(path.parent, ["file"]) == {"file": {"sha256": digest, "bytes": len(data)}}


@pytest.mark.parametrize("name", ["a", "a.b", ".hidden", "A file: the first", "é", "...", "a..b"])
def test_bare_names(name):
    assert is_bare_name(name)


@pytest.mark.parametrize(
    "name", ["", ".", "..", "/", "/a", "a/", "a/b", "../a", "\\a", "a\\b", "..\\a", "C:a", "a\0b"]
)
def test_names_that_are_not_bare(name):
    assert not is_bare_name(name)


_PART = st.sampled_from(["..", ".", "a", "C:", "", "b.c"])


@given(parts=st.lists(_PART, min_size=2, max_size=4), separator=st.sampled_from("/\\"))
def test_a_name_with_a_separator_is_never_bare(parts, separator):
    assert not is_bare_name(separator.join(parts))


@given(name=st.text(max_size=8))
def test_a_bare_name_stays_in_its_folder(name):
    if is_bare_name(name):
        assert Path(os.path.normpath(Path("folder") / name)).parent == Path("folder")


def test_json_reads_back_as_it_was(folder):
    value = {"numbers": [1, 0.1, -1e300], "text": "\u2028 \"'", "nothing": None}
    write_json(folder / "out", value)
    assert json.loads((folder / "out").read_text(encoding="utf-8")) == value
