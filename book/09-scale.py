# %% [markdown]
# # From this laptop to all of Wikipedia
#
# ## The problem
#
# MiniWiki has some 1,800 passages, DPR's Wikipedia 21,015,324, and next week's dump a few more. From an index of
# any size, the methods of this book need the k passages with the highest scores, and exact scores for a softmax.
# The cost depends on the size. This chapter follows the passages from their source to an index that fits into
# memory, measures what grows and how fast, and estimates what 21 million passages take.
#
# ## The idea in one picture

# %% tags=["hide-input"]
import bz2
import inspect
import json
import math
import tempfile
from pathlib import Path
from typing import cast

import faiss
import numpy as np
import pandas as pd
from experiments import figures
from IPython.display import Markdown

from ragbook import load_corpus, load_questions
from ragbook.corpus.building import build_passages
from ragbook.corpus.sources import open_source
from ragbook.errors import InputError
from ragbook.evaluation.names import listed
from ragbook.index import build_index
from ragbook.index.factories import choose_factory
from ragbook.index.recall import share_found
from ragbook.models import Encoder, load_encoder

folder = Path(tempfile.mkdtemp())
WIKIPEDIA = 21_015_324  # passages of DPR's split

# %% tags=["hide-input"] mystnb={"figure": {"caption": "From a text to the k best passages: what each stage makes, and what limits it.", "alt": "Four stages from left to right: the source gives passages, with one pass over the text and constant memory; encoding gives vectors and takes nearly all the time; the index gives Faiss files and takes memory, or recall if there is too little; serving gives the k best passages and takes the lists or vectors that a search reads"}}
figures.places(
    [
        ("passages", "one pass over the text,\nconstant memory", "source"),
        ("vectors", "nearly all\nof the time", "encoding"),
        ("Faiss files", "memory, or recall if\nthere is too little", "index"),
        ("the k best", "the lists or vectors\nthat a search reads", "serving"),
    ]
)

# %% [markdown]
# | stage | in | out | the command |
# |---|---|---|---|
# | source | a dump, an address, a data set, a file | passages of at most 100 words | `ragbook corpus build` |
# | encoding | passages | vectors, in shards | `ragbook index build --workers N`, `--engine ray` |
# | index | vectors | Faiss files | `--factory`, `--budget 8GB` |
# | serving | Faiss files, in parts | the k best | `PassageIndex.open`, `serve_index` |
#
# Every stage writes its output under a temporary name until it is complete. If a run is killed, the same
# command resumes after the last complete part and produces the same bytes.
#
# ## Sources
#
# A Wikimedia dump is one compressed XML file of all pages in wikitext, which is parsed while it is decompressed.
# Redirects, disambiguation pages and pages other than articles are skipped. The running text of each article is
# kept, without tables, infoboxes, references and sections that only list other works. Templates are removed, except
# the few that represent words of a sentence (a length in kilometres, a foreign name), which are replaced by these
# words. Here is a dump of three pages:

# %%
dump = """<mediawiki xml:lang="en"><siteinfo><namespaces>
<namespace key="6">File</namespace><namespace key="14">Category</namespace></namespaces></siteinfo>
<page><title>River Oke</title><ns>0</ns><id>7</id><revision><id>70</id><text>
{{Infobox river|name=Oke}} [[File:Oke.jpg|thumb|The ''Oke'']]
The '''Oke''' ({{lang-fr|Oque}}; {{IPA|ok}}) is a [[river]] of the [[Low Hills (region)|Low Hills]],
{{convert|120|km|mi}} long.&lt;ref&gt;{{cite book|title=Rivers}}&lt;/ref&gt;
{| class="wikitable"
| not a sentence
|}
== See also ==
* [[River Aln]] [[Category:Rivers]]
</text></revision></page>
<page><title>Oque</title><ns>0</ns><id>8</id><redirect title="River Oke" />
<revision><id>80</id><text>#REDIRECT [[River Oke]]</text></revision></page>
<page><title>Oke</title><ns>0</ns><id>9</id><revision><id>90</id>
<text>'''Oke''' may be [[River Oke]]. {{disambiguation}}</text></revision></page>
</mediawiki>"""
(folder / "wiki.xml.bz2").write_bytes(bz2.compress(dump.encode()))
source = open_source(str(folder / "wiki.xml.bz2"), downloads=folder)
print(build_passages(source, folder / "wiki.jsonl", progress=False), "passage:")
print((folder / "wiki.jsonl").read_text().strip())

# %% [markdown]
# The same function takes an address (the download is checked by its checksum and resumes where it was
# interrupted), a data set of Hugging Face, DPR's TSV, or JSON lines:
#
# ```
# ragbook corpus build simplewiki-latest-pages-articles.xml.bz2 --processes 8 --out simple.jsonl.gz
# ragbook corpus build https://dumps.wikimedia.org/simplewiki/latest/simplewiki-latest-pages-articles.xml.bz2 \
#     --checksum sha1:... --out simple.jsonl.gz
# ragbook corpus build https://dl.fbaipublicfiles.com/dpr/wikipedia_split/psgs_w100.tsv.gz --out wiki.jsonl.gz
# ragbook corpus build hf:wikimedia/wikipedia:20231101.simple --out simple.jsonl.gz
# ```
#
# ## The mathematics
#
# *Exact* search compares a question with all $N$ vectors of $d$ numbers, which takes $4 N d$ bytes and
# $N d$ multiplications. Approximate search {cite:p}`johnson2021faiss` saves in two ways.
#
# *Comparing with fewer vectors.* An **inverted file** (IVF) sorts the vectors into $c$ cells by k-means and
# searches the $\ell$ (`nprobe`) cells nearest to the question. It compares the question with $c$ centroids and,
# if the cells are equally full, with $N \ell / c$ vectors; more cells mean more of the first comparisons and fewer of
# the second (an exercise asks for the best number). A **graph** (HNSW) links every vector to some neighbours, and a
# search follows the links to better and better ones.
#
# *Storing less of each vector.* A **scalar quantizer** (SQ8) stores one byte per number. A **product
# quantizer** (PQ) cuts the vector into $m$ pieces, learns 256 values for each piece, and stores $m$ bytes.
# **OPQ** first rotates the vectors so that all pieces matter equally.
#
# Compressed vectors give inexact scores, and the methods need exact ones, because $p(z \mid x)$ is a
# softmax of scores. An index of codes therefore only *proposes* passages here, ten times as many as asked for,
# and these are ranked again by their uncompressed vectors, which stay on disk. A passage that was not proposed is
# still lost. This loss is measured by
#
# $$ \mathrm{recall@}k = \frac{|\text{found } k \cap \text{exact } k|}{k}, $$ (recall-of-index)
#
# averaged over questions. A build measures it on questions made from its own passages (each is a few
# consecutive words of a passage, as in the inverse cloze task of {cite:t}`lee2019orqa`). The manifest stores this
# recall with the smallest `nprobe` that reaches 0.95, or the largest tried if none does.
#
# ## The core in ten lines
#
# Six two-dimensional passages lie in two cells. The question's nearest cell holds the passages 0, 1 and 2;
# the second-best passage, number 3, is just across the border.

# %%
passages = np.array(
    [[1, 0.1], [0.9, 0.3], [0.7, 0.6], [0.6, 0.7], [0.2, 0.9], [0, 1]],
    dtype=np.float32,
)  # [N, d]
centroids = np.array([[1, 0], [0, 1]], dtype=np.float32)  # [c, d]
question = np.array([0.75, 0.66], dtype=np.float32)  # [d]
cell_of = (passages @ centroids.T).argmax(1)  # [N]


def search_cells(question, probes, k):
    """Scores and positions of the k best in the nearest cells, each [k]."""
    nearest = np.argsort(-(centroids @ question))[:probes]
    members = np.flatnonzero(np.isin(cell_of, nearest))
    scores = passages[members] @ question
    first = np.argsort(-scores)[:k]
    return scores[first], members[first]


print("cell of each passage:", cell_of)
print("all scores:", (passages @ question).round(3))
for probes in (1, 2):
    scores, positions = search_cells(question, probes, k=2)
    print(f"nprobe {probes}: passages {positions}, scores {scores.round(3)}")

# %% [markdown]
# One cell gives passage 1 in place of passage 3, a recall@2 of one half; two cells give the exact result.
# Faiss, given the same centroids, finds the same passages, and the package measures the same recall:

# %%
quantizer = faiss.IndexFlatIP(2)
quantizer.add(centroids)
toy = faiss.IndexIVFFlat(quantizer, 2, 2, faiss.METRIC_INNER_PRODUCT)
toy.train(passages)  # the centroids are there, so nothing is trained
toy.add(passages)
source = inspect.getsource(share_found).split('"""')
print(source[0].rstrip() + source[2])
exact_two = search_cells(question, 2, 2)[1][None]
for toy.nprobe in (1, 2):
    found = toy.search(question[None], 2)[1]
    same = (found[0] == search_cells(question, toy.nprobe, 2)[1]).all()
    print(
        f"nprobe {toy.nprobe}: Faiss {found[0]}, the same: {same}, "
        f"recall@2 {share_found(found, exact_two)}"
    )

# %% [markdown]
# The next product quantizer has two values per piece instead of 256. It cuts the vector (0.9, 0.1, 0.2, 0.8)
# into two pieces and replaces each by the number of the nearest value.

# %%
values = np.array([[1, 0], [0, 1]], dtype=np.float32)  # for either piece
vector = np.array([0.9, 0.1, 0.2, 0.8], dtype=np.float32)
pieces = vector.reshape(2, 2)  # [m, d / m]
distances = ((pieces[:, None] - values[None]) ** 2).sum(-1)  # [m, values]
code = distances.argmin(1)
asked_four = np.array([0.5, 0.5, 0, 1], dtype=np.float32)
print("code", code, "is decoded as", values[code].ravel())
print("exact score", asked_four @ vector)
print("score of the code", asked_four @ values[code].ravel())

# %% [markdown]
# The score of the code is 0.2 too high. With MiniLM's scale of 20, this would be a factor of $e^4$ in a softmax,
# which is why the proposals are ranked again.
#
# ## Which index fits
#
# `choose_factory` chooses the index that fits the memory you allow. For all of Wikipedia, with encoders of 384
# (MiniLM) and 768 dimensions (DPR), it chooses:

# %% tags=["hide-input"]
rows = []
for dimension in (384, 768):
    for budget in (100, 40, 16, 8, 2, 1):
        choice = choose_factory(WIKIPEDIA, dimension, budget * 10**9)
        rows.append(
            {
                "dimensions": dimension,
                "allowed, GB": budget,
                "index": choice.factory,
                "bytes a passage": f"{choice.memory / WIKIPEDIA:,.0f}",
                "size, GB": f"{choice.memory / 1e9:.1f}",
            }
        )
pd.DataFrame(rows).set_index("index").rename_axis(None)

# %% [markdown]
# These are Faiss's *factory strings*, read from left to right. `HNSW32` is a graph with 32 links per vector.
# `IVF16384,SQ8` is an inverted file of 16,384 cells with one byte per number. `OPQ48,IVF16384,PQ48np` rotates
# the vectors for 48 pieces, sorts them into 16,384 cells and stores 48 bytes of each; `np` skips a
# sorting of the codes that only Faiss's search by Hamming distance needs. `PQ48x4` below has 4 bits per piece in
# place of 8.
#
# ## A small real run
#
# MiniWiki's passages go into five indexes. The vectors are read from chapter 1's index, so that nothing is encoded
# again: `build_index` accepts any object with an encoder's few attributes, here one that remembers the vectors.

# %%
faiss.omp_set_num_threads(1)  # a graph depends on how many threads made it
corpus, encoder = load_corpus("miniwiki"), load_encoder()
questions = load_questions("miniwiki", "dev")
whole = build_index(corpus, Path("../build/index"), encoder, progress=False)
vectors = dict(
    zip(
        [p.id for p in corpus],
        whole.vectors(np.arange(len(whole))),
        strict=True,
    )
)


class Remembering:
    """The encoder, with the passages' vectors made beforehand."""

    id, sha256, pooling = encoder.id, encoder.sha256, encoder.pooling
    similarity, metric, dimension = (
        encoder.similarity,
        encoder.metric,
        encoder.dimension,
    )
    encode_queries = staticmethod(encoder.encode_queries)

    def encode_passages(self, passages, batch_size=64):
        return np.stack([vectors[passage.id] for passage in passages])


asked = encoder.encode_queries([question.text for question in questions])
exact = whole.search(asked, 10)[1]
remembering = cast(Encoder, Remembering())
rows, curves, targets = [], {}, {}
for factory in ("Flat", "HNSW16", "IVF32,SQ8", "IVF32,PQ48x4", "IVF32,PQ12x4"):
    index = build_index(
        corpus,
        folder / factory,
        remembering,
        progress=False,
        factory=factory,
    )
    found = index.search(asked, 10)[1]
    size = sum(
        r["bytes"]
        for f, r in index.manifest["files"].items()
        if f.startswith("faiss")
    )
    at = index.manifest["index"]["parameters"].get("recall", {}).get("at", {})
    rows.append(
        {
            "index": factory,
            "bytes a passage": f"{size / len(index):,.0f}",
            "recall@10, dev questions": f"{share_found(found, exact):.2f}",
            **{effort: f"{share:.2f}" for effort, share in at.items()},
        }
    )
    if at:
        targets[factory] = max(at.values()) >= 0.95
    if factory.startswith("IVF"):
        curves[factory] = {}
        for probes in (1, 2, 4, 8, 16, 32):
            index.parts[0].look_into(probes)
            curves[factory][probes] = round(
                share_found(index.search(asked, 10)[1], exact), 2
            )
print(len(questions), "dev questions; in columns 1 to 32, recall@10 by effort")
efforts = [str(2**power) for power in range(6)]
pd.DataFrame(rows).set_index("index").rename_axis(None)[
    ["bytes a passage", "recall@10, dev questions", *efforts]
].fillna("")

# %% tags=["remove-input"]
missed = [factory for factory, reached in targets.items() if not reached]
Markdown(
    "*Effort* is the number of candidates that a graph keeps while it searches, or the number of cells that an "
    "inverted file searches. The build doubles it until questions of its own reach a recall of 0.95; the columns "
    "1 to 32 show the recall on these questions. "
    + (
        f"{listed([f'`{each}`' for each in missed])} {'does' if len(missed) == 1 else 'do'} not reach it: more cells cannot bring back what "
        "the codes did not propose."
        if missed
        else "All of them reach it."
    )
)

# %% mystnb={"figure": {"caption": "Recall@10 compared with exact search on MiniWiki's dev questions. Searching more cells recovers what the inverted file lost. The loss that remains is due to the codes, which did not propose some passages.", "alt": "Recall against the number of cells searched, for three kinds of codes"}}
figures.lines(curves, "cells searched (nprobe)", "recall@10", log=True)

# %% [markdown]
# This recall compares an index with exact search. It says neither how often the gold passage is found nor how many
# questions a reader will answer.
#
# Inverted lists are filled one block of vectors at a time, each block in its own file, and are merged on
# disk; k-means and the codes are trained on a sample. A code of 8 bits needs at least 39 passages for each of
# its 256 values, 9,984 in all. If there are fewer, the build stops before encoding and says so:

# %%
try:
    build_index(
        corpus, folder / "pq", encoder, factory="IVF32,PQ48", progress=False
    )
except InputError as error:
    print(error)

# %% [markdown]
# ## As it grows
#
# `python benchmarks/scale.py FOLDER` indexed growing numbers of synthetic passages, whose vectors are distributed
# like MiniWiki's. The results are stored, because the largest run takes a long time. The first line gives the mean
# cosine of a passage and its nearest neighbour, in MiniWiki and in the synthetic corpus.

# %% tags=["hide-input", "stored-scale"]
measured = json.loads(Path("results/scale.json").read_text(encoding="utf-8"))
runs = list(measured["runs"].values())
spread = measured["spread"]
print(
    "mean cosine to the nearest neighbour: MiniWiki "
    f"{spread['nearest_neighbour_cosine_miniwiki']:.2f}, synthetic "
    f"{spread['nearest_neighbour_cosine_synthetic']:.2f}"
)
print(
    f"{measured['machine']['cores']} cores, {measured['machine']['threads']} threads of Faiss"
)


def by_size(value):
    """For each kind of index, a value of its runs by the number of passages."""
    series = {}
    for run in runs:
        series.setdefault(run["kind"], {})[run["passages"]] = value(run)
    return series


pd.DataFrame(
    {
        "index": run["factory"],
        "passages": f"{run['passages']:,}",
        "build, s": f"{run['build_seconds']:.1f}",
        "bytes a passage": f"{run['index_bytes_per_passage']:,.0f}",
        "recall@10": f"{run['recall_at_10']:.3f}",
        "q/s, 1": f"{run['qps_batch_1']:,.0f}",
        "q/s, 64": f"{run['qps_batch_64']:,.0f}",
        "RAM, MB": f"{run['resident_mb_searched']:,.0f}",
    }
    for run in runs
).set_index("index").rename_axis(None)


# %% tags=["remove-input", "stored-scale"]
times_faiss = [run["times_bare_faiss_batch_64"] for run in runs]
widest = math.ceil(1000 * max(run["recall_half_width"] for run in runs)) / 1000
Markdown(
    "*q/s* is questions per second, asked one by one or 64 at a time, with the files in the page cache, as after a "
    "build. Recall is measured on synthetic questions against exact search, with 95 % half-widths of at most "
    f"{widest:.3f}. At batch 64, a search through the index takes {min(times_faiss):.2f} to "
    f"{max(times_faiss):.2f} times as long as a search with Faiss alone; for codes, Faiss's time includes ranking the "
    "same number of candidates again."
)

# %% tags=["remove-input", "stored-scale"]
smallest, largest = (
    {run["kind"]: run for run in runs if run["passages"] == size}
    for size in (
        min(run["passages"] for run in runs),
        max(run["passages"] for run in runs),
    )
)
flat, graph, codes = (largest[kind] for kind in ("flat", "hnsw", "ivf-pq"))


def ratio(more, less):
    """A ratio with two digits, because timings repeat no better."""
    digits = 1 - math.floor(math.log10(more / less))
    return f"{round(more / less, digits):g} times"


def slower(kind):
    """How many times slower the largest index is than the smallest."""
    return ratio(*(size[kind]["qps_batch_64"] for size in (smallest, largest)))


speeds = by_size(lambda run: run["qps_batch_64"])
fastest = max(
    n
    for n, speed in speeds["hnsw"].items()
    if speed == max(series[n] for series in speeds.values())
)

waiting = [
    f"{run['passages']:,}"
    for run in runs
    if run["kind"] == "ivf-pq" and run["qps_batch_64"] > 10 * run["qps_batch_1"]
]
below = [
    f"`{run['factory']}` at {run['passages']:,} passages: {run['recall_at_10']:.3f} ± "
    f"{run['recall_half_width']:.3f}, where its build measured "
    f"{run['parameters']['recall']['at'][str(run['parameters']['effort'])]:.3f}"
    for run in runs
    if run["recall_at_10"] < 0.95
]
Markdown(
    f"From {smallest['flat']['passages']:,} to {flat['passages']:,} passages, exact search becomes about "
    f"{slower('flat')} slower at batch 64, the graph {slower('hnsw')} and the codes {slower('ivf-pq')}. "
    f"The graph answers the most questions per second up to {fastest:,} passages, but it has to visit more "
    f"vectors as it grows: at {graph['passages']:,} the build chooses an effort of "
    f"{graph['parameters']['effort']} candidates for the graph and of {codes['parameters']['effort']} lists for the "
    "codes. A build takes the smallest effort that reaches a recall of 0.95 on its own 200 questions; on other "
    "questions recall may be lower"
    + (f" ({'; '.join(below)})" if below else "")
    + ". The exact index is about "
    f"{ratio(flat['index_bytes_per_passage'], codes['index_bytes_per_passage'])} as large as that of codes, but uses "
    f"only about {ratio(flat['resident_mb_searched'], codes['resident_mb_searched'])} as much memory after the searches "
    f"({flat['resident_mb_searched']:,.0f} and {codes['resident_mb_searched']:,.0f} MB), because whole vectors are read "
    "from disk to rank what the codes propose. "
    f"Coded indexes of {' and '.join(waiting)} passages are slow when questions come one by "
    "one: two threads wait for each other longer than the search takes. `OMP_NUM_THREADS=1` avoids this."
)

# %% tags=["hide-input", "stored-scale"] mystnb={"figure": {"caption": "Seconds to build an index per thousand passages, without encoding; both axes are logarithmic. The exact index is only written. The codes get cheaper as the corpus grows, because their training hardly grows. The graph takes between 0.12 and 0.21 seconds at all sizes.", "alt": "Build time per thousand passages against size, three kinds of index"}}
figures.lines(
    by_size(
        lambda run: round(1000 * run["build_seconds"] / run["passages"], 3)
    ),
    "passages",
    "seconds per thousand",
    log=True,
    log_y=True,
)

# %% tags=["hide-input", "stored-scale"] mystnb={"figure": {"caption": "Questions per second at batch 64; both axes are logarithmic. Exact search becomes ten times slower from 10,000 to 30,000 passages, and from there on slows down about in proportion to their number. The graph becomes about nine times slower from 10,000 to a million; the codes stay within a factor of 1.5.", "alt": "Questions per second against size, three kinds of index"}}
figures.lines(
    by_size(lambda run: round(run["qps_batch_64"])),
    "passages",
    "questions per second",
    log=True,
    log_y=True,
)

# %% [markdown]
# ## What 21 million take
#
# The number of bytes grows at most in proportion to the passages. Build time is extrapolated from the largest run as
# $N^b$. The exponent $b$ is fitted to the runs above by least squares on the logarithms; it is at least 1, because
# constant costs such as training dominate small runs and would hide what each passage costs. Encoding time is the
# number of passages divided by the passages per second, measured in alternation with `sentence-transformers`
# (`python benchmarks/scale.py --encode FOLDER`). The further an estimate is from the measured sizes, the less
# it is worth. The size of the codes is not extrapolated but computed for the number of cells that `choose_factory`
# takes. No GPU was measured; encoding, which takes longest, is where a GPU would help most.

# %% tags=["hide-input", "stored-encoding", "stored-scale"]
encoding = json.loads(Path("results/encoding.json").read_text(encoding="utf-8"))
for name, speed in encoding["passages_per_second"].items():
    print(
        f"encoding, {name}: {WIKIPEDIA:,} / {speed:.0f} a second = "
        f"{WIKIPEDIA / speed / 3600:.0f} hours "
        f"({encoding['times_sentence_transformers'][name]:.2f} times sentence-transformers)"
    )
for kind in ("flat", "hnsw", "ivf-pq"):
    own = sorted(
        (run for run in runs if run["kind"] == kind),
        key=lambda run: run["passages"],
    )
    sizes, times = (
        np.log([run[key] for run in own])
        for key in ("passages", "build_seconds")
    )
    slope, last = max(1.0, np.polyfit(sizes, times, 1)[0]), own[-1]
    hours = (
        last["build_seconds"] * (WIKIPEDIA / last["passages"]) ** slope / 3600
    )
    each = own[-1]["index_bytes_per_passage"]
    if kind == "ivf-pq":
        chosen = choose_factory(WIKIPEDIA, 384, 2 * 10**9)
        each = chosen.memory / WIKIPEDIA
    beside = (
        own[-1]["vectors_bytes_per_passage"] + own[-1]["text_bytes_per_passage"]
    )
    print(f"{kind}")
    print(
        f"   index   {WIKIPEDIA:,} x {each:.0f} bytes = {WIKIPEDIA * each / 1e9:.1f} GB"
    )
    print(
        f"   beside  {WIKIPEDIA:,} x {beside:.0f} bytes = {WIKIPEDIA * beside / 1e9:.1f} GB of disk"
    )
    print(
        f"   build   {last['build_seconds']:.0f} s x "
        f"({WIKIPEDIA:,} / {last['passages']:,})^{slope:.2f} = {hours:.1f} hours"
    )

# %% tags=["remove-input", "stored-scale"]
before, then = (
    int(factory.split("IVF")[1].split(",")[0])
    for factory in (codes["factory"], chosen.factory)
)
sample = codes["parameters"]["training_passages"]
assert sample == 64 * before  # so k-means grows with the square of the cells
Markdown(
    f"The hours of the codes are those of {before:,} cells and are too few, because `{chosen.factory}` has "
    f"{then:,}. A build trains the cells on 64 passages each, so k-means makes {(then // before) ** 2} times as many "
    f"comparisons, and finding the cell of each passage {then // before} times as many. This was not measured."
)

# %% [markdown]
# ## On several machines, step by step
#
# You need a folder that all machines see under the same path (NFS or similar) and, on each machine, the same
# environment with this package and its extra for Ray: `pip install 'ragbook[ray]'`.
#
# 1. On the first machine run `ray start --head`, on each other one `ray start --address FIRST:6379`.
#    `ray status` then lists them all.
# 2. On the first machine, with passages and output in the shared folder:
#
#    ```
#    RAY_ADDRESS=auto ragbook index build --corpus /shared/wiki.jsonl.gz --out /shared/wiki \
#        --engine ray --workers 16 --device cuda --precision bfloat16 --budget 8GB --parts 4
#    ```
#
#    Each of the sixteen actors holds the encoder on its own GPU (with `--device cpu`, on its own core). Only
#    the numbers of shards pass through Ray; each actor writes its shards to the shared folder itself. An actor
#    that dies is restarted, and a build that is killed resumes with the same command.
# 3. To search from several machines, with each part of the index held by an actor:
#
#    ```python
#    from ragbook.index.ray.serving import serve_index
#    from ragbook.models import load_encoder
#    from ragbook.retrieval import DenseRetriever
#
#    retriever = DenseRetriever(serve_index("/shared/wiki"), load_encoder())
#    ```
#
#    It works like the retriever of any chapter, reads the same files, and finds what a single index would find.
#
# The results of the parts are merged by score, the highest first, with ties in the corpus's order. Here
# are four parts on one machine:

# %%
parts = build_index(
    corpus,
    folder / "parts",
    remembering,
    progress=False,
    parts=4,
)
same = (parts.search(asked, 10)[1] == whole.search(asked, 10)[1]).all()
print(
    sorted(path.name for path in (folder / "parts").iterdir()),
    "the same results:",
    same,
)

# %% [markdown]
# If you already run Milvus, one of its collections can serve as a retriever
# (`pip install 'ragbook[milvus]'`). It stores passages and vectors and can filter by title:
#
# ```python
# from ragbook.retrieval.milvus import MilvusRetriever, fill_collection
#
# fill_collection(index, "http://localhost:19530", "wiki")
# retriever = MilvusRetriever("http://localhost:19530", "wiki", encoder)
# retriever.retrieve(questions, k=5, titles=["Rhine", "Danube"])
# ```
#
# ## What the paper reports
#
# {cite:t}`karpukhin2020dpr` encoded 21 million passages in 8.8 hours on 8 GPUs and built their index in
# 8.5 hours on one server with 512 GB of memory; it answered 995 questions per second, with 100 passages for each.
# The measurements here are of other vectors, on a machine with two CPU cores. The arithmetic carries over; the
# figures do not.
#
# ## What to remember
#
# Encoding takes most of the time, and the index most of the memory. The cost of exact search is proportional to the
# number of passages; inverted files and graphs compare with fewer vectors, and codes store less of each. What an
# approximate index loses is measured as recall against exact search when it is built. Scores that enter a
# softmax have to be exact, so codes only propose passages, and whole vectors rank them.
#
# ## Exercises
#
# <!-- exercise: ex-scale -->
# **Exercise.** Every score of a code is too high by the same 0.2. What does this change in the proposals and in
# $p(z \mid x)$? Which errors of codes can do harm here, and is any of that harm repaired by ranking again?
#
# <details>
# <summary>Solution</summary>
#
# Nothing: neither a ranking nor a softmax changes if a constant is added. Only errors that *differ* between
# passages do harm. Among the proposals they are repaired, because these get their exact scores. A passage that
# such errors keep out of the proposals is lost, and its share of the prior goes to the others.
#
# </details>
#
# <!-- exercise: ex-cells -->
# **Exercise.** Compute the number of cells $c$ (not rounded) with which an inverted file of $n$ vectors needs
# the fewest comparisons if `probes` cells are searched. Faiss's guidelines recommend $4\sqrt{n}$ to
# $16\sqrt{n}$: for which `probes` is that best?
#
# <!-- end of exercise -->


# %%
from exercises import scale as check


def my_cells(n, probes):
    raise NotImplementedError


check.cells(my_cells)

# %% [markdown]
# <!-- solution: ex-cells -->
# <details>
# <summary>Solution</summary>
#
# Set the derivative of $c + n \ell / c$ to zero. $4\sqrt{n}$ cells are best with 16 probes,
# $16\sqrt{n}$ with 256. It is written out in `book/solutions/09-scale.py`.
#
# </details>
#
# <!-- exercise: ex-code -->
# **Exercise.** Write the two directions of a product quantizer: `encode(vectors, values)` gives the codes [B, m] of vectors
# [B, d], and `decode(codes, values)` the vectors that the codes represent. `values` has the shape [m, 256, d / m]
# (256 can be another number), with different values for each piece; nearest means in L2 distance.
#
# <!-- end of exercise -->


# %%
def my_encode(vectors, values):
    raise NotImplementedError


def my_decode(codes, values):
    raise NotImplementedError


check.product_code((my_encode, my_decode))

# %% [markdown]
# <!-- solution: ex-code -->
# <details>
# <summary>Solution</summary>
#
# Reshape the vectors to [B, m, 1, d / m], subtract the values [m, 256, d / m] and take the `argmin` of the
# squared norms. To decode, index piece $j$ of the values with column $j$ of the codes. It is written out in
# `book/solutions/09-scale.py`.
#
# </details>
#
# <!-- exercise: ex-merge -->
# **Exercise.** Merge the parts: given a list with scores [B, k] and positions [B, k] of each part, return the
# scores and positions of the k best overall, the highest score first, with ties in the order of positions.
# Faiss's own function for this keeps the *lowest* values unless told otherwise. Why might no test on a single
# part notice?
#
# <!-- end of exercise -->


# %%
def my_merge(found, k):
    raise NotImplementedError


check.merge(my_merge)

# %% [markdown]
# <!-- solution: ex-merge -->
# <details>
# <summary>Solution</summary>
#
# Concatenate along the columns and sort by negative score, then position (`np.lexsort`). With inner products,
# keeping the lowest would keep the worst of all parts; with one part there is nothing to choose from, and the k
# best are returned as they are. It is written out in `book/solutions/09-scale.py`.
#
# </details>

# %% [markdown]
# ## Where next
#
# * *In the papers:* {cite:t}`johnson2021faiss` describe inverted lists and product codes on GPUs, and
#   {cite:t}`douze2024faiss` how to choose between Faiss's indexes.
# * *In this book:* {doc}`chapter 12 <12-your-data>` builds an index of your own documents, and
#   {doc}`chapter 2 <02-retrievers>` says what the vectors in it mean.
# * *Later work:* DiskANN {cite:p}`subramanya2019diskann` keeps the graph on a solid-state disk, so that one machine
#   with 64 GB of memory searches a billion vectors. ScaNN {cite:p}`guo2020scann` learns its codes with a loss
#   that penalises errors parallel to a vector most, because these do most harm to high inner products.
#   {cite:t}`borgeaud2022retro` retrieve from a database of two trillion tokens.
