# %% [markdown]
# # From this laptop to all of Wikipedia
#
# ## The problem
#
# MiniWiki has some two thousand passages, DPR's Wikipedia 21,015,324, a dump of next week a few more.
# What the methods of this book ask of an index stays the same: the k passages of greatest score, and
# scores that a softmax can be taken of. What it costs does not. This chapter follows the passages from
# their source to an index that fits, measures what grows and how fast, and says what 21 million take.
#
# ## The idea in one picture
#
# | stage | in | out | what it takes | the command |
# |---|---|---|---|---|
# | source | a dump, an address, a data set, a file | passages of at most 100 words | a pass over the text, constant memory | `ragbook corpus build` |
# | encoding | passages | vectors, in shards | nearly all the time | `ragbook index build --workers N`, `--engine ray` |
# | index | vectors | Faiss files | memory, and recall if there is too little | `--factory`, `--budget 8GB` |
# | serving | Faiss files, in parts | the k best | what a search has to touch | `PassageIndex.open`, `serve_index` |
#
# Every stage writes its parts under another name until they are whole. A run that is killed goes on
# from its last whole part when the same command is given again, and ends with the same bytes.

# %%
import bz2
import json
import tempfile
from pathlib import Path
from typing import cast

import faiss
import numpy as np
import pandas as pd
from experiments import figures

from ragbook import load_corpus, load_questions
from ragbook.corpus.building import build_passages
from ragbook.corpus.sources import open_source
from ragbook.errors import InputError
from ragbook.index import build_index
from ragbook.index.factories import choose_factory
from ragbook.index.recall import share_found
from ragbook.models import Encoder, load_encoder

folder = Path(tempfile.mkdtemp())
WIKIPEDIA = 21_015_324  # passages of DPR's split

# %% [markdown]
# ## Sources
#
# A Wikimedia dump is one XML file of all pages, compressed to a fifth, each page in wikitext. It is
# read as it is decompressed. Redirects, disambiguation pages and pages beside the articles are left
# out; of an article its running text is kept, without tables, infoboxes, references and what only
# lists other works. Templates are not expanded, but the few that stand for words in a sentence read as
# those words. Here is a dump of three pages.

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
# The same function takes an address, which is fetched with a checksum and goes on where it was cut, a
# data set of Hugging Face, DPR's TSV and JSON lines:
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
# *Exact* search compares a question with all $N$ vectors of $d$ numbers: $4 N d$ bytes, $N d$
# multiplications. {cite:t}`johnson2021faiss` and those before them save in two ways.
#
# *Looking at less.* An **inverted file** (IVF) sorts the vectors into $c$ cells by k-means and looks
# into the $\ell$ (`nprobe`) nearest: $c + N \ell / c$ comparisons, least at about $c = \sqrt{N \ell}$. A **graph**
# (HNSW) links every vector to neighbours and walks from one to the next better one.
#
# *Keeping less.* A **scalar quantizer** (SQ8) keeps a byte of each number; a **product quantizer** (PQ)
# cuts the vector into $m$ pieces, learns 256 values for each piece, and keeps $m$ bytes; **OPQ** first
# rotates the vectors so that the pieces matter alike.
#
# Codes lose what exact scores had, and the methods need exact ones: $p(z \mid x)$ is a softmax of
# scores. So an index of codes here only *proposes*, ten passages for each one asked for, and these are
# ranked again by whole vectors, which stay on the disk. What remains to lose is a passage that was
# not proposed:
#
# $$ \mathrm{recall@}k = \frac{|\text{found } k \cap \text{exact } k|}{k}, $$ (recall-of-index)
#
# averaged over questions. It is measured when an index is built, on questions made of its own passages
# (some words of one in a row, the inverse cloze task of {cite:t}`lee2019orqa`), and kept in the manifest
# with the least `nprobe` that reaches 0.95.
#
# ## Which index fits
#
# A budget chooses. For all of Wikipedia under encoders of 384 numbers (MiniLM) and 768 (DPR):

# %%
for dimension in (384, 768):
    for budget in (100, 40, 16, 8, 2, 1):
        try:
            choice = choose_factory(WIKIPEDIA, dimension, budget * 10**9)
            print(f"{dimension} numbers, {budget:>3} GB: {choice.reasons[-1]}")
        except InputError as error:
            print(f"{dimension} numbers, {budget:>3} GB: {error}")

# %% [markdown]
# ## A small real run
#
# MiniWiki's passages, encoded once (their vectors are read from chapter 1's index), under five indexes.
# Whatever has these few attributes is an encoder to `build_index`: here one that remembers.

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
remembering, curves = cast(Encoder, Remembering()), {}
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
    print(
        f"{factory:<13}{size / len(index):>6.0f} bytes a passage   recall@10 "
        f"{share_found(found, exact):.2f} of {len(questions)} questions   "
        f"{index.manifest['index']['parameters'].get('recall', {}).get('at', '')}"
    )
    if factory.startswith("IVF"):
        curves[factory] = {}
        for probes in (1, 2, 4, 8, 16, 32):
            index.parts[0].look_into(probes)
            curves[factory][probes] = round(
                share_found(index.search(asked, 10)[1], exact), 2
            )

# %% mystnb={"figure": {"caption": "Recall@10 against exact search, MiniWiki's dev questions. More cells looked into find what the inverted file lost; ranking again by whole vectors makes up for codes as long as they propose the right ones.", "alt": "Recall against cells looked into, for three kinds of codes"}}
figures.lines(curves, "cells looked into (nprobe)", "recall@10", log=True)

# %% [markdown]
# In braces stands what the build measured on questions of its own making, by the effort, beside what the
# real questions say. It is what an index loses against exact search, not what a reader will find.
#
# Inverted lists are filled a block of vectors at a time, each block into a file, and merged on the
# disk; training takes a sample. A product code of 8 bits needs 39 passages for each of its 256 values,
# and says so before anything is encoded:

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
# Synthetic passages, more and more of them, with vectors that lie about each other as MiniWiki's do:
# `python benchmarks/scale.py FOLDER`. The figures are stored, for the largest takes long.

# %%
measured = json.loads(Path("results/scale.json").read_text(encoding="utf-8"))
runs = list(measured["runs"].values())
print({key: round(value, 3) for key, value in measured["spread"].items()})
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
        "bytes": f"{run['index_bytes_per_passage']:.0f}",
        "recall@10": f"{run['recall_at_10']:.3f} ± {run['recall_half_width']:.3f}",
        "q/s, 1": f"{run['qps_batch_1']:.0f}",
        "q/s, 64": f"{run['qps_batch_64']:.0f}",
        "× Faiss": f"{run['times_bare_faiss_batch_64']:.2f}",
        "open, ms": f"{1000 * run['open_seconds']:.1f}",
        "RAM, MB": f"{run['resident_mb_searched']:.0f}",
    }
    for run in runs
)


# %% [markdown]
# *q/s* are questions a second, one by one and 64 together. *× Faiss* is the time of a search through
# the index over that of Faiss alone, at batch 64, for codes with Faiss's own ranking of as many
# candidates. Recall is that of synthetic questions against exact search, with 95 % half-widths. An
# index is opened here with its files in the page cache, as after a build.
#
# Exact search is exact and linear. The graph is the quickest while it is small, and has to walk
# further as it grows: at a million the build settles on an effort of 256 candidates. The codes
# keep their speed, since they look into as few lists at a million as before, in a twenty-fifth of the
# memory; what they propose is ranked by vectors on the disk. One by one, questions to the smallest
# coded indexes are slow because two threads wait for each other longer than the search takes;
# `OMP_NUM_THREADS=1` is the cure.

# %% mystnb={"figure": {"caption": "Seconds to build for a thousand passages, encoding apart. The exact index is only written; the codes get cheaper with size, for their training hardly grows; the graph's cost stays near what it is.", "alt": "Build time per thousand passages against size, three kinds of index"}}
figures.lines(
    by_size(
        lambda run: round(1000 * run["build_seconds"] / run["passages"], 3)
    ),
    "passages",
    "seconds for a thousand",
    log=True,
)

# %% mystnb={"figure": {"caption": "Questions a second at batch 64. Exact search gets slower as the passages grow; the others look at a part of them.", "alt": "Questions per second against size, three kinds of index"}}
figures.lines(
    by_size(lambda run: round(run["qps_batch_64"])),
    "passages",
    "questions a second",
    log=True,
)

# %% [markdown]
# ## What 21 million take
#
# Bytes grow with the passages. Build time grows as $N^b$ from the largest run on, with $b$ fitted to the
# runs above by least squares of the logarithms and at least 1: what is constant in small runs, as
# training is, would hide what every passage costs. Encoding is so many passages by so many a second,
# measured on this machine in turns with `sentence-transformers`
# (`python benchmarks/scale.py --encode FOLDER`). The further from what was measured, the less a
# prediction is worth; there was no GPU to measure, where encoding, the longest part, is quickest.

# %%
encoding = json.loads(Path("results/encoding.json").read_text(encoding="utf-8"))
for name, speed in encoding["passages_per_second"].items():
    print(
        f"encoding, {name}: {WIKIPEDIA:,} / {speed:.0f} a second = "
        f"{WIKIPEDIA / speed / 3600:.1f} hours "
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

# %% [markdown]
# ## On several machines, step by step
#
# What is needed: a folder that all machines have at the same place (NFS or the like), and this package
# with its extra for Ray in the same environment on each: `pip install 'ragbook[ray]'`.
#
# 1. On the first machine `ray start --head`; on each other one `ray start --address FIRST:6379`.
#    `ray status` then lists them all.
# 2. On the first machine, with passages and output in the shared folder:
#
#    ```
#    RAY_ADDRESS=auto ragbook index build --corpus /shared/wiki.jsonl.gz --out /shared/wiki \
#        --engine ray --workers 16 --device cuda --precision bfloat16 --budget 8GB --parts 4
#    ```
#
#    Sixteen actors hold the encoder, each on a GPU of its own (`--device cpu`: on a core). What goes through Ray are the
#    numbers of shards; an actor writes its shard itself, whole. One that dies is started again; a build
#    that is killed goes on with the same command.
# 3. To search from several machines, each part of the index held by an actor:
#
#    ```python
#    from ragbook.index.ray.serving import serve_index
#    from ragbook.models import load_encoder
#    from ragbook.retrieval import DenseRetriever
#
#    retriever = DenseRetriever(serve_index("/shared/wiki"), load_encoder())
#    ```
#
#    It is the retriever of every chapter, over the same files, and finds what one index would find.
#
# The parts' findings are put together by score, the greatest first, ties by the corpus's order. Here
# are four parts on this machine.

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
    "the same findings:",
    same,
)

# %% [markdown]
# For those who run Milvus already, its collection is a retriever too (`pip install 'ragbook[milvus]'`),
# with passages and vectors together and a filter by title:
#
# ```python
# from ragbook.retrieval.milvus import MilvusRetriever, fill_collection
#
# fill_collection(index, "http://localhost:19530", "wiki")
# retriever = MilvusRetriever("http://localhost:19530", "wiki", encoder)
# retriever.retrieve(questions, k=5, titles=["Rhine", "Danube"])
# ```
#
# ## What the paper had
#
# {cite:t}`karpukhin2020dpr` encoded 21 million passages in 8.8 hours on 8 GPUs and built their index in
# 8.5 hours on one server; it answered 995 questions a second with the 100 best passages, from 512 GB of
# memory. What is measured here is another machine, other vectors and two CPU cores; the arithmetic
# carries over, the figures do not.
#
# ## Exercises
#
# ```{exercise}
# :label: ex-scale
# An index of codes proposes ten passages for each one asked for. What would change in RAG's
# $p(z \mid x)$ if the codes' own scores were used?
# ```
#
# ```{solution} ex-scale
# :class: dropdown
# Each score would be off by an error of the code, different for each passage. The softmax multiplies
# it by the scale, 20 for MiniLM: an error of 0.05 is a factor of e between two passages' weights.
# ```
#
# ```{exercise}
# :label: ex-merge
# Faiss's own function for putting parts together keeps the least values unless it is told otherwise.
# What is found if that is forgotten with inner products, and why might no test on one part notice?
# ```
#
# ```{solution} ex-merge
# :class: dropdown
# Of each part's k best the worst are kept. With one part there is nothing to choose from, and the k
# best come out whole.
# ```
