"""The costs of building, storing and searching indexes of growing size, and a prediction for the 21
million passages of Wikipedia.

`python benchmarks/scale.py FOLDER [SIZES]` builds indexes of synthetic passages in FOLDER, with the
numbers of passages in SIZES (by default 10000,30000,100000,300000,1000000). For each kind of index
it prints, and stores in FOLDER/scale.json: seconds and peak memory of the build, bytes a passage,
recall@10 compared with exact search, questions a second at batch 1 and 64 compared with bare Faiss,
seconds to open and resident memory. Stored figures are not measured again. Then it prints the
prediction for DPR's Wikipedia, with its arithmetic.

`python benchmarks/scale.py --encode FOLDER [PASSAGES]` measures passages a second of the embedded
encoder, in float32 and bfloat16, and of `sentence-transformers`' own `encode` with its defaults, in
turn in one run, and stores the figures in FOLDER/encoding.json; with `--store FILE` it also keeps
the comparison as the section `encoding`.

The vectors are distributed like MiniWiki's: each is the vector of a MiniWiki passage plus a random
step with the covariance of the steps from MiniWiki's passages to their nearest neighbours; a
question is a passage's vector plus a random step with the covariance of the steps from MiniWiki's
questions to their gold passages. Every build and every search runs in a process of its own, which
gives its memory.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from rounds import compare, keep, options

from ragbook.corpus import Passage, miniwiki
from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index
from ragbook.index.encoding import Vectors
from ragbook.index.factories import choose_factory
from ragbook.index.passages import StoredPassages, spool
from ragbook.index.recall import search_exactly, share_found
from ragbook.models import load_encoder

SIZES = (10_000, 30_000, 100_000, 300_000, 1_000_000)
KINDS = ("flat", "hnsw", "ivf-pq")
WIKIPEDIA = 21_015_324  # passages in DPR's split
QUESTIONS, K, BATCH, SEED = 512, 10, 64, 0
BLOCK = 1_000  # passages whose vectors are drawn together
WORK_PASSAGES = 600  # passages whose encoding is measured
ROUNDS = 8


def kind_of(name: str, passages: int, dimension: int) -> str:
    """The factory string of a kind of index for so many passages: `flat`, `hnsw`, or `ivf-pq`, with
    product codes of one byte for eight numbers, as they are chosen for a small budget."""
    if name == "flat":
        return "Flat"
    if name == "hnsw":
        return "HNSW32"
    code = dimension // 8
    for budget in np.geomspace(passages * code, passages * 8 * code, 200).astype(int).tolist():
        with suppress(InputError):
            choice = choose_factory(passages, dimension, budget)
            if f",PQ{code}np" in choice.factory:
                return choice.factory
    raise InputError(f"{passages:,} passages are too few for product codes; give more.")


class SyntheticEncoder:
    """Random vectors of numbered passages and of questions, distributed like MiniWiki's."""

    id, pooling, similarity, metric, score_scale = (
        "synthetic",
        "mean",
        "cosine",
        "inner_product",
        20.0,
    )

    def __init__(self, folder: Path) -> None:
        basis = np.load(folder / "basis.npz", allow_pickle=False)
        self.centres, self.step, self.asked = basis["centres"], basis["step"], basis["asked"]
        self.dimension = self.centres.shape[1]
        self.seconds = 0.0  # spent on drawing passages' vectors
        self.sha256 = hashlib.sha256(
            b"".join(part.tobytes() for part in (self.centres, self.step, self.asked))
        ).hexdigest()

    def _drawn(self, rng: np.random.Generator, n: int) -> np.ndarray:
        centres = self.centres[rng.integers(0, len(self.centres), n)]
        return centres + rng.standard_normal((n, self.dimension), np.float32) @ self.step

    def _scaled(self, vectors: np.ndarray) -> np.ndarray:
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    def encode_passages(self, passages: Any, batch_size: int = 64) -> np.ndarray:
        began = time.perf_counter()
        numbers = np.array([int(passage.id) for passage in passages])
        blocks = {
            block: self._drawn(np.random.default_rng([SEED, int(block)]), BLOCK)
            for block in np.unique(numbers // BLOCK)
        }
        made = self._scaled(np.stack([blocks[n // BLOCK][n % BLOCK] for n in numbers]))
        self.seconds += time.perf_counter() - began
        return made

    def encode_queries(self, queries: Any, batch_size: int = 64) -> np.ndarray:
        made = []
        for query in queries:
            rng = np.random.default_rng(list(hashlib.sha256(query.encode()).digest()))
            noise = rng.standard_normal((1, self.dimension), np.float32) @ self.asked
            made.append(self._scaled(self._drawn(rng, 1)) + noise)
        return self._scaled(np.concatenate(made))


def make_basis(folder: Path) -> dict[str, float]:
    """Write MiniWiki's vectors and the two covariances into `basis.npz`; returns the mean
    similarity of a passage and its nearest neighbour, in MiniWiki and among as many synthetic
    passages."""
    path = folder / "basis.npz"
    encoder = load_encoder()
    corpus, questions = miniwiki.corpus(), miniwiki.questions("dev")
    if not path.is_file():
        centres = encoder.encode_passages(corpus)
        nearest = _neighbours(centres)[1]
        steps = (centres - centres[nearest]) / math.sqrt(2)
        gold = [corpus.position(q.gold_passage) for q in questions if q.gold_passage]
        asked = encoder.encode_queries([q.text for q in questions if q.gold_passage])
        np.savez(path, centres=centres, step=_root(steps), asked=_root(asked - centres[gold]))
    synthetic = SyntheticEncoder(folder)
    made = synthetic.encode_passages([Passage(str(i), "", "") for i in range(len(corpus))])
    return {
        "nearest_neighbour_cosine_miniwiki": round(
            float(_neighbours(synthetic.centres)[0].mean()), 4
        ),
        "nearest_neighbour_cosine_synthetic": round(float(_neighbours(made)[0].mean()), 4),
    }


def _neighbours(vectors: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and row of each vector's nearest other one."""
    cosines, rows = faiss.knn(vectors, vectors, 2, metric=faiss.METRIC_INNER_PRODUCT)
    own = rows[:, 0] == np.arange(len(vectors))
    return np.where(own, cosines[:, 1], cosines[:, 0]), np.where(own, rows[:, 1], rows[:, 0])


def _root(steps: np.ndarray) -> np.ndarray:
    """A matrix R for which a standard normal row times R has the covariance of the steps."""
    values, vectors = np.linalg.eigh(steps.T.astype(np.float64) @ steps / len(steps))
    return (np.sqrt(values.clip(min=0))[:, None] * vectors.T).astype(np.float32)


def passages(n: int) -> Iterator[Passage]:
    """Passages of 60 to 100 random words of MiniWiki."""
    words = sorted({word for passage in miniwiki.corpus() for word in passage.text.split()})
    rng = np.random.default_rng(SEED)
    for number in range(n):
        chosen = rng.integers(0, len(words), int(rng.integers(60, 101)))
        yield Passage(str(number), f"Passage {number}", " ".join(words[i] for i in chosen))


# --- one build, one search, each in a process of its own ------------------------------------------


def measure_build(folder: Path, name: str, n: int) -> dict[str, Any]:
    """Seconds of a build with the measurement of its recall, without the time to draw vectors, and
    its peak memory."""
    encoder = SyntheticEncoder(folder)
    corpus = spool(folder / f"passages-{n}", f"synthetic-{n}", str(n), passages(n))
    assert isinstance(corpus, StoredPassages)
    factory = kind_of(name, n, encoder.dimension)
    before = _peak()
    began = time.perf_counter()
    index = build_index(
        corpus,
        folder / f"{name}-{n}",
        encoder,
        factory=factory,
        shard_passages=4_096,  # type: ignore[arg-type]
    )
    seconds = time.perf_counter() - began - encoder.seconds
    files = index.manifest["files"]
    size = sum(record["bytes"] for file, record in files.items() if file.startswith("faiss"))
    stored = files.get("vectors.index", {"bytes": 0})["bytes"]
    return {
        "factory": factory,
        "build_seconds": seconds,
        "build_peak_mb_before": before,
        "build_peak_mb": _peak(),
        "index_bytes_per_passage": size / n,
        "vectors_bytes_per_passage": stored / n,
        "text_bytes_per_passage": files["passages.arrow"]["bytes"] / n,
        "parameters": index.manifest["index"]["parameters"],
    }


def measure_search(folder: Path, name: str, n: int) -> dict[str, Any]:
    """Opening time, memory, speed and recall of an index that has been built."""
    encoder = SyntheticEncoder(folder)
    queries = encoder.encode_queries([f"question {i}" for i in range(QUESTIONS)])
    before = _resident()
    began = time.perf_counter()
    index = PassageIndex.open(folder / f"{name}-{n}")
    opened_first = time.perf_counter() - began
    after_opening = _resident()
    began = time.perf_counter()
    PassageIndex.open(folder / f"{name}-{n}")
    opened = time.perf_counter() - began
    found = index.search(queries, K)[1]
    alone = [_seconds(lambda q=queries[i : i + 1]: index.search(q, K)) for i in range(200)]
    batches = [queries[at : at + BATCH] for at in range(0, QUESTIONS, BATCH)]
    resident = _resident()
    bare = _bare(index)
    ours, theirs = [], []
    # The two run in turns, so that other work of the machine slows both, and each is first equally
    # often, as the second finds the vectors in the processor's cache.
    sides = [(ours, lambda batch: index.search(batch, K)), (theirs, bare)]
    for _ in range(ROUNDS):
        for batch in batches:
            for times, search in sides:
                times.append(_seconds(lambda batch=batch, search=search: search(batch)))
            sides.reverse()
    truth = search_exactly(_stored(folder, n, encoder.dimension), queries, K, "inner_product")[1]
    shares = [np.isin(e, f).mean() for f, e in zip(found, truth, strict=True)]
    half = 1.96 * float(np.std(shares)) / math.sqrt(len(shares))
    return {
        "first_open_seconds": opened_first,  # from the disk, if the file is not in the cache
        "open_seconds": opened,
        "resident_mb_opened": after_opening - before,
        "resident_mb_searched": resident - before,
        "recall_at_10": share_found(found, truth),
        "recall_half_width": round(half, 4),
        "questions": QUESTIONS,
        "qps_batch_1": 1 / statistics.median(alone),
        "qps_batch_64": BATCH / statistics.median(ours),
        "times_bare_faiss_batch_64": statistics.median(ours) / statistics.median(theirs),
    }


def _stored(folder: Path, n: int, dimension: int) -> Vectors:
    """All vectors, for the exact search."""
    return Vectors([folder / f"truth-{n}.npy"], n, (n, dimension))


def _bare(index: PassageIndex) -> Callable[[np.ndarray], Any]:
    """The same search by Faiss alone; an index of codes uses Faiss's own second ranking of as many
    candidates by full vectors."""
    part = index.parts[0]
    if part.vectors is None:
        return lambda batch: part.index.search(batch, K)
    refined = faiss.IndexRefine(part.index, part.vectors)
    refined.k_factor = 10
    return lambda batch: refined.search(batch, K)


def _seconds(work: Callable[[], Any]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _peak() -> float:
    """The peak memory of this process so far, MB. (`getrusage` would include its parent's.)"""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def _resident() -> float:
    """Memory of this process that is in RAM, mapped files included, MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


# --- all of them, and what follows ----------------------------------------------------------------


def measure_all(folder: Path, sizes: tuple[int, ...]) -> dict[str, Any]:
    """Measure all that has not been measured yet; returns all results."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "scale.json"
    results = json.loads(path.read_text()) if path.is_file() else {"runs": {}}
    results["spread"] = make_basis(folder)
    results["machine"] = {"cores": os.cpu_count(), "threads": faiss.omp_get_max_threads()}
    encoder = SyntheticEncoder(folder)
    for n in sizes:
        truth = folder / f"truth-{n}.npy"
        if not truth.is_file():
            made = np.lib.format.open_memmap(truth, "w+", np.float32, (n, encoder.dimension))
            for at in range(0, n, BLOCK):
                block = [Passage(str(i), "", "") for i in range(at, min(at + BLOCK, n))]
                made[at : at + BLOCK] = encoder.encode_passages(block)
            made.flush()
        for name in KINDS:
            if f"{name}-{n}" in results["runs"]:
                continue
            run = {"kind": name, "passages": n}
            for step in ("build", "search"):
                command = [sys.executable, __file__, f"--{step}", str(folder), name, str(n)]
                done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
                run |= json.loads(done.stdout.splitlines()[-1])
            results["runs"][f"{name}-{n}"] = run
            path.write_text(json.dumps(results, indent=1) + "\n")
            print(json.dumps(run), flush=True)
    return results


def growth(runs: list[dict[str, Any]], value: str) -> float:
    """b in value ~ passages^b, by least squares of the logarithms, but at least 1: constant costs,
    such as training, would hide the cost of each passage in small runs."""
    x = np.log([run["passages"] for run in runs])
    y = np.log([run[value] for run in runs])
    return max(1.0, float(np.polyfit(x, y, 1)[0]))


def predict(results: dict[str, Any], passages: int = WIKIPEDIA) -> list[str]:
    """The lines of the prediction for so many passages, each with its arithmetic."""
    lines = []
    for name in KINDS:
        runs = [run for run in results["runs"].values() if run["kind"] == name]
        runs.sort(key=lambda run: run["passages"])
        if len(runs) < 2:
            continue
        largest = runs[-1]
        for what in ("index", "vectors", "text"):
            each = largest[f"{what}_bytes_per_passage"]
            size = passages * each / 1e9
            lines.append(f"{name}: {what}: {passages:,} x {each:,.1f} bytes = {size:,.1f} GB")
        b, seconds, measured = (
            growth(runs, "build_seconds"),
            largest["build_seconds"],
            largest["passages"],
        )
        hours = seconds * (passages / measured) ** b / 3600
        lines.append(
            f"{name}: build without encoding: {seconds:,.0f} s x "
            f"({passages:,} / {measured:,})^{b:.2f} = {hours:,.1f} hours"
        )
    return lines


def measure_encoding(folder: Path, count: int, store: Path | None) -> dict[str, Any]:
    """Passages a second of each way to encode the same MiniWiki passages, measured in turn."""
    import torch
    from sentence_transformers import SentenceTransformer

    from ragbook.models.embedded import minilm_path
    from ragbook.models.prompts import passage_text

    corpus = miniwiki.corpus()
    chosen = np.random.default_rng(SEED).choice(len(corpus), count, replace=False)
    some = [corpus[int(i)] for i in chosen]
    texts = [passage_text(passage) for passage in some]
    peer = SentenceTransformer(str(minilm_path()), device="cpu")
    ours, rounded = load_encoder(), load_encoder()
    rounded.precision = "bfloat16"
    ways: dict[str, Callable[[], Any]] = {
        "sentence-transformers": lambda: peer.encode(texts),
        "ragbook float32": lambda: ours.encode_passages(some),
        "ragbook bfloat16": lambda: rounded.encode_passages(some),
    }
    vectors = {name: way() for name, way in ways.items()}
    exact = vectors["ragbook float32"]
    cosines = {name: float((each * exact).sum(1).min()) for name, each in vectors.items()}
    measured = compare(
        f"encoding of {count} passages",
        ways,
        ["sentence-transformers"],
        lambda: ("1 - the least cosine of two vectors", 1 - min(cosines.values()), 1e-3),
    )
    keep(store, "encoding", measured)
    seconds = {name: side["wall_seconds"]["median"] for name, side in measured["sides"].items()}
    speed = {name: count / each for name, each in seconds.items()}
    report = {
        "passages": count,
        "words": sum(len(text.split()) for text in texts),
        "threads": torch.get_num_threads(),
        "passages_per_second": speed,
        "times_sentence_transformers": {
            name: each / speed["sentence-transformers"] for name, each in speed.items()
        },
        "least_cosine": cosines,
        "hours_for_wikipedia": {n: WIKIPEDIA / s / 3600 for n, s in speed.items()},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "encoding.json").write_text(json.dumps(report, indent=1) + "\n")
    return report


def main() -> None:
    """See the module."""
    store, arguments = options()
    if store and arguments[:1] != ["--encode"]:
        sys.exit("--store keeps what --encode measures: give both.")
    if arguments[:1] == ["--build"]:
        print(json.dumps(measure_build(Path(arguments[1]), arguments[2], int(arguments[3]))))
    elif arguments[:1] == ["--search"]:
        print(json.dumps(measure_search(Path(arguments[1]), arguments[2], int(arguments[3]))))
    elif arguments[:1] == ["--encode"]:
        count = int(arguments[2]) if len(arguments) > 2 else WORK_PASSAGES
        print(json.dumps(measure_encoding(Path(arguments[1]), count, store), indent=1))
    else:
        sizes = tuple(map(int, arguments[1].split(","))) if len(arguments) > 1 else SIZES
        print("\n".join(predict(measure_all(Path(arguments[0]), sizes))))


if __name__ == "__main__":
    main()
