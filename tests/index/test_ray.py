"""Encoding and serving by Ray, on a cluster of two workers on this machine."""

import logging
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("ray", reason="ray is not installed (pip install ragbook[ray])")
pytest.importorskip("ray.data", reason="Ray Data is not installed (pip install ragbook[ray])")

import ray  # pyright: ignore[reportMissingImports]

from ragbook.corpus import Question
from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index
from ragbook.index.parts import Part
from ragbook.index.ray import serving as ray_serving
from ragbook.index.ray.serving import serve_index
from ragbook.retrieval import DenseRetriever
from tests.fakes import HashEncoder, animals

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(scope="module", autouse=True)
def cluster():
    from ray.cluster_utils import Cluster  # pyright: ignore[reportMissingImports]

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    memory = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **memory})
    for _ in range(2):
        cluster.add_node(num_cpus=2, object_store_memory=80 * 2**20)
    environment = {"PYTHONPATH": ROOT, "OMP_NUM_THREADS": "1"}
    ray.init(
        address=cluster.address,
        log_to_driver=False,
        logging_level=logging.ERROR,
        runtime_env={"env_vars": environment},
    )
    yield cluster
    ray.shutdown()
    cluster.shutdown()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


class DyingEncoder(HashEncoder):
    """Kills the process that it is in, once, at the shard with a certain passage."""

    def __init__(self, note: Path) -> None:
        super().__init__()
        self.note = note

    def encode_passages(self, passages, batch_size=64):
        if any(passage.id.endswith("-12") for passage in passages) and not self.note.exists():
            self.note.write_text(str(os.getpid()))
            os.kill(os.getpid(), signal.SIGKILL)
        return super().encode_passages(passages, batch_size)


def test_a_corpus_encoded_by_actors_one_of_which_is_killed(tmp_path):
    options = {"progress": False, "shard_passages": 3}
    build_index(animals(), tmp_path / "here", HashEncoder(), **options)
    encoder = DyingEncoder(tmp_path / "died")
    index = build_index(animals(), tmp_path / "there", encoder, **options, workers=2, engine="ray")
    assert (tmp_path / "died").read_text() != str(os.getpid())
    assert len(index) == 23
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_what_an_actor_refuses_is_told(tmp_path):
    class Broken(HashEncoder):
        def encode_passages(self, passages, batch_size=64):
            return np.full((len(passages), 64), np.nan, np.float32)

    with pytest.raises(InputError, match="not finite"):
        build_index(animals(4), tmp_path / "x", Broken(), progress=False, engine="ray")
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("built") / "index"
    build_index(animals(203), out, HashEncoder(), progress=False, parts=3)
    return out


def test_served_parts_are_equal_to_one_exact_index(built, tmp_path):
    whole = build_index(animals(203), tmp_path / "whole", HashEncoder(), progress=False)
    served = serve_index(built)
    queries = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)
    for k in (1, 10, 203):
        expected, found = whole.search(queries, k), served.search(queries, k)
        np.testing.assert_array_equal(found[1], expected[1])
        np.testing.assert_allclose(found[0], expected[0], atol=1e-5)
    questions = [Question("Which otter lives near the Tagus?", ()), Question("pike", ())]
    one, other = (
        DenseRetriever(index, HashEncoder()).retrieve(questions, 5) for index in (whole, served)
    )
    assert [each.ids for each in one] == [each.ids for each in other]
    served.close()


def test_served_approximate_parts_find_what_they_find_here(tmp_path):
    options = {"progress": False, "parts": 2}
    here = build_index(animals(203), tmp_path / "i", HashEncoder(), factory="IVF2,SQ8", **options)
    served = serve_index(tmp_path / "i")
    queries = np.random.default_rng(0).normal(size=(20, 64)).astype(np.float32)
    for one, other in zip(here.search(queries, 9), served.search(queries, 9), strict=True):
        np.testing.assert_array_equal(one, other)
    served.close()


class SlowActor(ray_serving._PartActor):
    """Tells its process, and takes its time."""

    def search(self, queries, k):
        (Path(os.environ["NOTES"]) / f"{self.part.first}-{os.getpid()}").touch()
        time.sleep(1.0)
        return super().search(queries, k)


def test_an_actor_killed_in_mid_search_is_started_again(built, tmp_path, monkeypatch):
    class Noted(SlowActor):
        def search(self, queries, k, notes=str(tmp_path)):
            os.environ["NOTES"] = notes
            return super().search(queries, k)

    monkeypatch.setattr(ray_serving, "_PartActor", Noted)
    served = serve_index(built)
    queries = np.random.default_rng(0).normal(size=(5, 64)).astype(np.float32)
    results = []
    thread = threading.Thread(target=lambda: results.append(served.search(queries, 7)))
    thread.start()
    deadline = time.monotonic() + 60
    while not (begun := list(tmp_path.glob("0-*"))) and time.monotonic() < deadline:
        time.sleep(0.05)
    killed = int(begun[0].name.split("-")[1])
    os.kill(killed, signal.SIGKILL)
    thread.join(timeout=120)
    expected = PassageIndex.open(built).search(queries, 7)
    np.testing.assert_array_equal(results[0][1], expected[1])
    np.testing.assert_allclose(results[0][0], expected[0], atol=1e-5)
    assert len(list(tmp_path.glob("0-*"))) == 2, "another process has answered for the killed one"
    served.close()


def test_faiss_own_merging_takes_the_worst_of_inner_products_unless_told(built):
    """Why the parts' findings are put together here."""
    import faiss

    parts = PassageIndex.open(built).parts
    queries = np.random.default_rng(0).normal(size=(50, 64)).astype(np.float32)
    found = [Part.search(part, queries, 10) for part in parts]
    scores, positions = (np.stack(each) for each in zip(*found, strict=True))
    _, expected = PassageIndex.open(built).search(queries, 10)
    _, right = faiss.merge_knn_results(scores, positions, keep_max=True)
    assert (right == expected).mean() > 0.99
    _, wrong = faiss.merge_knn_results(scores, positions)
    assert (wrong == expected).mean() < 0.9
