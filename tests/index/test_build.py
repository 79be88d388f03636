import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ragbook.corpus import Corpus, Passage
from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index, verify
from ragbook.index.passages import spool
from tests.fakes import HashEncoder, animals
from tests.kills import kills_of

ROOT = Path(__file__).parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_manifest_says_what_was_built(tmp_path):
    corpus, encoder = animals(), HashEncoder()
    index = build_index(corpus, tmp_path / "index", encoder, progress=False)
    manifest = index.manifest
    assert manifest["corpus"] == {"name": "animals", "passages": 23, "sha256": corpus.sha256}
    assert manifest["encoder"] == {
        "id": "fake/hash",
        "sha256": encoder.sha256,
        "pooling": "mean",
        "dimension": 64,
        "similarity": "cosine",
        "metric": "inner_product",
    }
    assert manifest["index"] == {"type": "IndexFlatIP", "parameters": {}}
    assert set(manifest["files"]) == {"passages.arrow", "faiss.index"}
    for name, record in manifest["files"].items():
        assert record["bytes"] == (tmp_path / "index" / name).stat().st_size
    assert list(index.corpus) == list(corpus)
    assert [path.name for path in tmp_path.iterdir()] == ["index"], "a working folder is left over"


def test_same_inputs_same_bytes(tmp_path):
    build_index(animals(), tmp_path / "a", HashEncoder(), progress=False)
    build_index(animals(), tmp_path / "b", HashEncoder(), progress=False)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")


def test_standing_index_of_same_inputs_is_returned_without_encoding(tmp_path):
    build_index(animals(), tmp_path / "index", HashEncoder(), progress=False)
    encoder = HashEncoder()
    index = build_index(animals(), tmp_path / "index", encoder, progress=False)
    assert encoder.encoded == 0
    assert len(index) == 23


def test_a_metric_that_cannot_be_indexed_is_refused(tmp_path):
    encoder = HashEncoder()
    vars(encoder).update(metric="l1")
    with pytest.raises(InputError, match=r"compares by l1.*inner_product or l2"):
        build_index(animals(), tmp_path / "index", encoder, progress=False)


@pytest.mark.parametrize(
    ("corpus", "encoder", "names"),
    [
        (animals(24, "zoo"), HashEncoder(), ["another corpus", "'animals'"]),
        (animals(), HashEncoder("fake/other"), ["fake/hash", "fake/other"]),
    ],
)
def test_standing_index_of_other_inputs_is_refused_or_replaced(tmp_path, corpus, encoder, names):
    out = tmp_path / "index"
    build_index(animals(), out, HashEncoder(), progress=False)
    before = contents(out)
    with pytest.raises(InputError, match="--overwrite") as caught:
        build_index(corpus, out, encoder, progress=False)
    assert all(name in str(caught.value) for name in names)
    assert contents(out) == before
    index = build_index(corpus, out, encoder, progress=False, overwrite=True)
    assert index.corpus.sha256 == corpus.sha256
    assert index.manifest["encoder"]["id"] == encoder.id
    assert verify(out) == []


def test_a_folder_that_is_no_index_is_never_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "manifest.json").write_text("{}")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "web", "file"):
        with pytest.raises(InputError, match="not a passage index"):
            build_index(animals(), tmp_path / name, HashEncoder(), progress=False, overwrite=True)
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"
    assert (tmp_path / "web" / "manifest.json").exists()


def test_a_folder_with_more_than_an_index_is_never_replaced(tmp_path):
    out = tmp_path / "index"
    build_index(animals(), out, HashEncoder(), progress=False)
    (out / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        build_index(animals(4), out, HashEncoder(), progress=False, overwrite=True)
    assert len(build_index(animals(), out, HashEncoder(), progress=False)) == 23


def test_a_folder_with_files_of_the_same_names_is_never_replaced(tmp_path):
    """Without the mark of an index: a manifest of this kind, or passages as this project writes."""
    out = tmp_path / "web"
    out.mkdir()
    (out / "manifest.json").write_text('{"name": "web app"}')
    (out / "vectors.index").write_bytes(b"theirs")
    (out / "passages.arrow").write_bytes(b"theirs")
    with pytest.raises(InputError, match="not a passage index"):
        build_index(animals(), out, HashEncoder(), progress=False, overwrite=True)
    assert (out / "vectors.index").read_bytes() == b"theirs"


@pytest.mark.parametrize("state", [None, "{}", "[1]", "not JSON"])
def test_anothers_folder_where_it_would_be_built_is_not_touched(tmp_path, state):
    theirs = tmp_path / ".index.building"
    (theirs / "shards").mkdir(parents=True)
    (theirs / "shards" / "photo.jpg").write_bytes(b"theirs")
    if state is not None:
        (theirs / "state.json").write_text(state)
    with pytest.raises(InputError, match=r"\.index\.building.*not made by ragbook"):
        build_index(animals(), tmp_path / "index", HashEncoder(), progress=False)
    assert (theirs / "shards" / "photo.jpg").read_bytes() == b"theirs"
    assert {path.name for path in tmp_path.iterdir()} == {".index.building"}


def test_a_build_of_before_there_was_a_mark_is_taken_up(tmp_path):
    out = tmp_path / "index"
    stopped_build(out, animals(), StoppingEncoder(3))
    (tmp_path / ".index.building" / "ragbook-build").unlink()
    encoder = HashEncoder()
    build_index(animals(), out, encoder, progress=False, shard_passages=5)
    assert encoder.encoded == 23 - 15


def test_passages_are_not_kept_in_anothers_folder(tmp_path):
    theirs = tmp_path / ".index.passages"
    theirs.mkdir()
    (theirs / "notes.txt").write_text("theirs")
    with pytest.raises(InputError, match="not made by ragbook"):
        spool(theirs, "animals", "1", animals())
    assert (theirs / "notes.txt").read_text() == "theirs"
    (theirs / "notes.txt").unlink()
    (theirs / "passages.arrow").write_bytes(b"half")  # as a killed build of before left it
    stored = spool(theirs, "animals", "1", animals())
    assert list(stored) == list(animals())
    assert spool(theirs, "animals", "1", []).sha256 == stored.sha256  # not read again


def test_an_empty_folder_is_filled(tmp_path):
    (tmp_path / "index").mkdir()
    assert len(build_index(animals(), tmp_path / "index", HashEncoder(), progress=False)) == 23


def test_damaged_index_is_refused_and_rebuilt_with_overwrite(tmp_path):
    out = tmp_path / "index"
    build_index(animals(), out, HashEncoder(), progress=False)
    whole = contents(out)
    (out / "faiss.index").write_bytes(b"short")
    with pytest.raises(InputError, match="--overwrite"):
        build_index(animals(), out, HashEncoder(), progress=False)
    build_index(animals(), out, HashEncoder(), progress=False, overwrite=True)
    assert contents(out) == whole


def test_empty_corpus_is_refused(tmp_path):
    with pytest.raises(InputError, match="no passages"):
        build_index(Corpus("void", []), tmp_path / "index", HashEncoder(), progress=False)
    assert not any(tmp_path.iterdir())


def test_vectors_that_are_not_finite_are_refused(tmp_path):
    class Broken(HashEncoder):
        def encode_passages(self, passages, batch_size=64):
            vectors = super().encode_passages(passages, batch_size)
            vectors[-1, 0] = np.nan
            return vectors

    with pytest.raises(InputError, match="not finite"):
        build_index(animals(), tmp_path / "index", Broken(), progress=False)
    assert not (tmp_path / "index").exists()


def test_very_long_passages_and_empty_titles(tmp_path):
    passages = [Passage("a", "", "word " * 50_000), Passage("b\t\n", "B", "Ünï\0cödé 🦦")]
    corpus = Corpus("odd", passages)
    index = build_index(corpus, tmp_path / "index", HashEncoder(), progress=False)
    assert list(index.corpus) == list(corpus)
    assert verify(tmp_path / "index") == []


class _Stopped(Exception):
    pass


class StoppingEncoder(HashEncoder):
    """Fails at its n-th shard."""

    def __init__(self, shards: int, name: str = "fake/hash") -> None:
        super().__init__(name)
        self.shards = shards

    def encode_passages(self, passages, batch_size=64):
        if self.shards == 0:
            raise _Stopped
        self.shards -= 1
        return super().encode_passages(passages, batch_size)


def stopped_build(out: Path, corpus: Corpus, encoder: HashEncoder) -> None:
    with pytest.raises(_Stopped):
        build_index(corpus, out, encoder, progress=False, shard_passages=5)
    assert not out.exists()


def test_stopped_build_goes_on_where_it_was(tmp_path):
    out = tmp_path / "index"
    stopped_build(out, animals(), StoppingEncoder(3))
    encoder = HashEncoder()
    build_index(animals(), out, encoder, progress=False, shard_passages=5)
    assert encoder.encoded == 23 - 15
    build_index(animals(), tmp_path / "reference", HashEncoder(), progress=False)
    assert contents(out) == contents(tmp_path / "reference")


@pytest.mark.parametrize(
    ("corpus", "name"), [(animals(23, "animals"), "fake/other"), (animals(22), "fake/hash")]
)
def test_stopped_build_of_other_inputs_starts_over(tmp_path, corpus, name):
    out = tmp_path / "index"
    stopped_build(out, corpus, StoppingEncoder(3, name))
    encoder = HashEncoder()
    build_index(animals(), out, encoder, progress=False, shard_passages=5)
    assert encoder.encoded == 23
    build_index(animals(), tmp_path / "reference", HashEncoder(), progress=False)
    assert contents(out) == contents(tmp_path / "reference")


def test_shard_that_a_power_cut_emptied_is_encoded_again(tmp_path):
    out = tmp_path / "index"
    stopped_build(out, animals(), StoppingEncoder(3))
    (tmp_path / ".index.building" / "shards" / "00001.npy").write_bytes(b"")
    encoder = HashEncoder()
    build_index(animals(), out, encoder, progress=False, shard_passages=5)
    assert encoder.encoded == 23 - 10
    assert verify(out) == []


def test_working_folder_half_cleared(tmp_path):
    out = tmp_path / "index"
    stopped_build(out, animals(), StoppingEncoder(3))
    shutil.rmtree(tmp_path / ".index.building" / "shards")
    build_index(animals(), out, HashEncoder(), progress=False, shard_passages=5)
    assert verify(out) == []


@pytest.mark.skipif(sys.platform == "win32", reason="no lock there")
def test_two_builds_at_once(tmp_path):
    class Nested(HashEncoder):
        def encode_passages(self, passages, batch_size=64):
            with pytest.raises(InputError, match="Another process is building"):
                build_index(animals(), tmp_path / "index", HashEncoder(), progress=False)
            return super().encode_passages(passages, batch_size)

    build_index(animals(), tmp_path / "index", Nested(), progress=False)
    assert verify(tmp_path / "index") == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="forks")
@pytest.mark.parametrize("options", [[], ["--overwrite"], ["--approximate"]])
def test_killed_at_every_file_operation(options):
    kills, said = kills_of("index/killed_builds.py", *options, timeout=300)
    assert not said
    assert kills > 30, "the build was killed at too few points to mean anything"


BUILD = """
import sys
from pathlib import Path
from ragbook.index import build_index
from tests.fakes import HashEncoder, animals
encoder = HashEncoder(pause=0.02)
print("ready", flush=True)
build_index(animals(203), Path(sys.argv[1]), encoder, progress=False, shard_passages=10)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_killed_at_random_times(tmp_path):
    out, reference = tmp_path / "index", tmp_path / "reference"
    build_index(animals(203), reference, HashEncoder(), progress=False)
    command = [sys.executable, "-c", BUILD, str(out)]
    clock = random.Random(0)
    kills = 0
    for _ in range(20):
        process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()  # "ready": the imports are done
        time.sleep(clock.uniform(0.05, 0.3))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        process.stdout.close()
        if out.exists():
            assert verify(out) == []
            break
        with pytest.raises(InputError):
            PassageIndex.open(out)
    assert kills >= 2
    build_index(animals(203), out, HashEncoder(), progress=False, shard_passages=10)
    assert contents(out) == contents(reference)
    assert not (tmp_path / ".index.building").exists()
