"""The commands on what is built and kept: indexes, passage files and datastores."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ragbook.cli.options import (
    add_corpus,
    add_device,
    add_encoder,
    add_json,
    add_k,
    add_layout,
    add_lm,
    add_passages,
    add_verify,
    at_least,
    words,
)
from ragbook.cli.parsers import add_command, subcommands
from ragbook.cli.parts import (
    device_and_precision,
    load_encoder,
    load_language_model,
    load_passages,
    open_passages,
    reading_of,
    stored_corpus,
)
from ragbook.cli.printing import (
    flat,
    named,
    print_json,
    print_pairs,
    say,
)
from ragbook.cli.status import DAMAGED, OK
from ragbook.errors import InputError
from ragbook.files import cache_folder
from ragbook.printable import printable


def index_build(arguments: argparse.Namespace) -> int:
    """`ragbook index build`: encode a corpus and write its index as a folder."""
    from ragbook.cli.advice import cut_sentence
    from ragbook.index import build_index
    from ragbook.index.factories import EXACT, choose_factory, parse_bytes

    if arguments.factory is not None and arguments.budget is not None:
        raise InputError("Give --factory or --budget, not both: a budget chooses the factory.")
    factory = arguments.factory or EXACT
    budget = None if arguments.budget is None else parse_bytes(arguments.budget)
    if arguments.engine == "ray" and arguments.device != "auto":
        device, precision = arguments.device, _precision_of_ray(arguments.precision)
    else:
        device, precision = device_and_precision(arguments)
    encoder = load_encoder(arguments)  # a name that means nothing ends here, before a long reading
    encoder.precision = precision
    with stored_corpus(arguments) as corpus:
        if budget is not None:
            choice = choose_factory(len(corpus), encoder.dimension, budget)
            print("\n".join(choice.reasons))
            factory = choice.factory
        index = build_index(
            corpus,
            arguments.out,
            encoder,
            overwrite=arguments.overwrite,
            factory=factory,
            parts=arguments.parts,
            workers=arguments.workers,
            engine=arguments.engine,
            device=device,
        )
    recall = index.manifest["index"]["parameters"].get("recall")
    if recall is not None:
        found = list(recall["at"].values())[-1]
        said = f"recall@{recall['k']} {found:.3f} of {recall['questions']} questions"
        print(f"{printable(factory)}: {said}")
    if cut := index.manifest["index"]["parameters"].get("cut"):
        say(cut_sentence(cut["passages"], cut["words"], f"of the {len(index):,} passages"))
    name = printable(index.corpus.name)
    out = printable(arguments.out)
    print(f"{out}: {len(index):,} passages of {name}, digest {index.digest}")
    return OK


def _precision_of_ray(name: str) -> str:
    """The number format for a cluster, which this machine knows nothing of."""
    if name == "auto":
        raise InputError(
            "What is fast on a cluster is not known here; name --precision bfloat16 or float32."
        )
    return name


def index_info(arguments: argparse.Namespace) -> int:
    """`ragbook index info`: print what an index's manifest says."""
    from ragbook.index import PassageIndex

    index = PassageIndex.open(arguments.folder, arguments.verify)
    manifest = index.manifest
    if arguments.json:
        print_json({"digest": index.digest, **manifest})
        return OK
    corpus, encoder, kind = manifest["corpus"], manifest["encoder"], manifest["index"]
    print_pairs(
        [
            ("corpus", f"{corpus['name']}, {corpus['passages']:,} passages"),
            ("corpus SHA-256", corpus["sha256"]),
            ("encoder", f"{encoder['id']}, {encoder['pooling']} pooling"),
            ("encoder SHA-256", encoder["sha256"]),
            ("vectors", f"{encoder['dimension']} dimensions, {encoder['similarity']}"),
            *((f"{role} prompt", repr(text)) for role, text in encoder.get("prompts", {}).items()),
            ("index", kind["type"]),
            *flat(kind["parameters"], "index."),
            *((name, f"{file['bytes']:,} bytes") for name, file in manifest["files"].items()),
            ("digest", index.digest),
        ]
    )
    return OK


def index_verify(arguments: argparse.Namespace) -> int:
    """`ragbook index verify`: check an index's files; status 0 if all bytes are right."""
    from ragbook.index import verify

    return _verified(arguments, verify(arguments.folder))


def _verified(arguments: argparse.Namespace, problems: list[str]) -> int:
    """Print the problems of a folder; returns the exit status."""
    if arguments.json:
        print_json({"whole": not problems, "problems": problems})
    else:
        print("\n".join(map(printable, problems or [f"{arguments.folder} is whole"])))
    return DAMAGED if problems else OK


def index_search(arguments: argparse.Namespace) -> int:
    """`ragbook index search`: the best passages of an index for one question."""
    from ragbook.corpus import Question
    from ragbook.index import PassageIndex
    from ragbook.models.devices import place
    from ragbook.retrieval import DenseRetriever

    device, precision = device_and_precision(arguments)
    index = PassageIndex.open(arguments.folder, arguments.verify)
    encoder = load_encoder(arguments, index)
    if (device, precision) != ("cpu", "float32"):  # where and how it was loaded
        place(encoder.query_model, device, precision)
    retriever = DenseRetriever(index, encoder)
    (found,) = retriever.retrieve([Question(arguments.query, ())], arguments.k)
    rows = list(zip(found.passages, found.scores.tolist(), strict=True))
    if arguments.json:
        print_json([{"passage_id": p.id, "title": p.title, "score": score} for p, score in rows])
    else:
        for passage, score in rows:
            print(f"{score:8.4f}  {named(passage)}")
    return OK


def corpus_build(arguments: argparse.Namespace) -> int:
    """`ragbook corpus build`: cut articles into passages and write them as one file."""
    from ragbook.corpus.building import build_passages
    from ragbook.corpus.sources import open_source
    from ragbook.corpus.splitting import DEFAULT_SPLIT

    if arguments.out.exists() and not arguments.overwrite:
        raise InputError(f"{arguments.out} exists; choose another file or give --overwrite.")
    how = reading_of(arguments)
    downloads = cache_folder() / "downloads"
    source = open_source(arguments.source, downloads, arguments.checksum, how, say)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    left_out = []
    count = build_passages(
        source,
        arguments.out,
        arguments.processes,
        split=how.split or DEFAULT_SPLIT,
        left_out=left_out.append,
    )
    if left_out:
        examples = "; ".join(f"{printable(page.title)}: {page.reason}" for page in left_out[:3])
        say(
            f"pages left out because they cannot be read: {len(left_out):,} "
            f"({examples}{'; ...' if len(left_out) > 3 else ''})",
        )
    print(f"{printable(arguments.out)}: {count:,} passages")
    return OK


def corpus_info(arguments: argparse.Namespace) -> int:
    """`ragbook corpus info`: how many passages a corpus has, how long they are, its hash."""
    corpus = load_passages(arguments, arguments.corpus)
    lengths = sorted(len(passage.text.split()) for passage in corpus)
    info = {
        "name": corpus.name,
        "passages": len(corpus),
        "titles": len({passage.title for passage in corpus}),
        "words": sum(lengths),
        "words_per_passage": {
            "shortest": lengths[0],
            "median": lengths[len(lengths) // 2],
            "longest": lengths[-1],
        },
        "sha256": corpus.sha256,
    }
    if arguments.json:
        print_json(info)
        return OK
    of_passage = ", ".join(f"{key} {value}" for key, value in info["words_per_passage"].items())
    print_pairs(
        [
            ("name", info["name"]),
            ("passages", f"{info['passages']:,} of {info['titles']:,} titles"),
            ("words", f"{info['words']:,} ({of_passage})"),
            ("SHA-256", info["sha256"]),
        ]
    )
    return OK


def datastore_build(arguments: argparse.Namespace) -> int:
    """`ragbook datastore build`: every context of a corpus and its next token, as a folder."""
    from ragbook.index.datastore import add_approximate, build_datastore

    lm = load_language_model(arguments)
    corpus, _ = open_passages(arguments)
    datastore = build_datastore(corpus, arguments.out, lm, progress=True)
    if arguments.ivfpq:
        add_approximate(datastore)
    print(f"{printable(arguments.out)}: the datastore of {printable(corpus.name)}")
    return OK


def datastore_info(arguments: argparse.Namespace) -> int:
    """`ragbook datastore info`: print what a datastore's manifest says."""
    from ragbook.index.datastore import Datastore

    manifest = Datastore.open(arguments.folder, arguments.verify).manifest
    if arguments.json:
        print_json(manifest)
    else:
        print_pairs(flat({key: value for key, value in manifest.items() if key != "checksums"}))
    return OK


def datastore_search(arguments: argparse.Namespace) -> int:
    """`ragbook datastore search`: the stored contexts nearest to a text."""
    from ragbook.index.datastore import Datastore
    from ragbook.methods.knn_lm.text import OpenKnnLM
    from ragbook.models.bundled import tuned_for_text

    datastore = Datastore.open(arguments.folder, arguments.verify)
    lm = load_language_model(arguments)
    mixed = tuned_for_text()
    method = OpenKnnLM(lm, datastore, lam=mixed["lam"], temperature=mixed["temperature"])
    found = method.neighbours(arguments.text, arguments.k)
    if arguments.json:
        rows = (
            {"passage_id": n.passage.id, "context": n.context, "token": n.token}
            | {"distance": n.distance, "weight": n.weight}
            for n in found
        )
        print_json(list(rows))
    else:
        for n in found:
            found_in = f"{n.context} [{n.token}]  ({n.passage.id})"
            print(f"{n.weight:7.4f}  {printable(found_in)}")
    return OK


def datastore_verify(arguments: argparse.Namespace) -> int:
    """`ragbook datastore verify`: check a datastore's files; status 0 if all bytes are right."""
    from ragbook.index.datastore import verify

    return _verified(arguments, verify(arguments.folder))


def add_commands(top: Any) -> None:
    """Add the groups `index`, `corpus` and `datastore`."""
    group = subcommands(add_command(top, "index", None, "build, check and search a passage index"))
    command = add_command(group, "build", index_build, "encode a corpus and write its index")
    add_corpus(command, "miniwiki, or a file or folder of passages or documents", required=True)
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the index"
    )
    add_encoder(command, "(default: minilm)")
    command.add_argument("--overwrite", action="store_true", help="replace an existing index")
    command.add_argument(
        "--factory",
        metavar="STRING",
        help="kind of index, as Faiss's factory string (default: Flat, which is exact)",
    )
    command.add_argument(
        "--budget", metavar="SIZE", help="memory for the index, such as 8GB; chooses its kind"
    )
    command.add_argument(
        "--parts", type=at_least(1), default=1, metavar="N", help="index files (default: 1)"
    )
    command.add_argument(
        "--workers",
        type=at_least(1),
        default=1,
        metavar="N",
        help="processes that encode (default: 1)",
    )
    command.add_argument(
        "--engine",
        choices=["local", "ray"],
        default="local",
        help="where the workers run: on this machine, or on a Ray cluster that shares its disk "
        "(default: local)",
    )
    add_device(command, "float32")
    command = add_command(group, "info", index_info, "show what an index holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    add_verify(command)
    add_json(command)
    command = add_command(
        group,
        "verify",
        index_verify,
        "check every byte; the exit status is 0 if all are right, 1 if damaged, 2 if not an index",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    add_json(command)
    command = add_command(group, "search", index_search, "show the best passages for a query")
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("query", type=words, metavar="QUERY")
    add_verify(command)
    add_encoder(command, "(default: the one that built the index)")
    add_device(command, "float32")
    add_k(command)
    add_json(command)

    group = subcommands(add_command(top, "corpus", None, "build and describe passage files"))
    command = add_command(
        group,
        "build",
        corpus_build,
        "cut a Wikipedia dump, documents, passages or a data set into passages of at most 100 "
        "words; a killed build goes on where it was",
    )
    command.add_argument(
        "source",
        metavar="SOURCE",
        help="a file .xml, .xml.bz2 (MediaWiki), or a file or folder of passages or documents; the "
        "https address of a file, which is kept in RAGBOOK_CACHE; hf:NAME:CONFIGURATION for a "
        "Hugging Face data set; or - for standard input",
    )
    add_layout(command)
    command.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help=".jsonl or .jsonl.gz"
    )
    command.add_argument(
        "--checksum", metavar="ALGORITHM:HEX", help="checksum of the file, as sha256:0123...ef"
    )
    command.add_argument(
        "--processes", type=at_least(1), default=1, metavar="N", help="for a dump (default: 1)"
    )
    command.add_argument("--overwrite", action="store_true", help="replace an existing file")
    command = add_command(group, "info", corpus_info, "show what a corpus holds")
    command.add_argument("corpus", metavar="NAME_OR_PATH")
    add_layout(command)
    add_json(command)

    group = subcommands(add_command(top, "datastore", None, "build and search a kNN-LM datastore"))
    command = add_command(
        group, "build", datastore_build, "store a language model's states over a corpus"
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the datastore"
    )
    add_lm(command)
    command.add_argument(
        "--ivfpq", action="store_true", help="also train an approximate index of the keys"
    )
    add_passages(command)
    command = add_command(
        group,
        "verify",
        datastore_verify,
        "check every byte; the exit status is 0 if all are right, 1 if damaged, 2 if no datastore",
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    add_json(command)
    command = add_command(
        group, "search", datastore_search, "show the stored contexts nearest to a text"
    )
    command.add_argument("folder", type=Path, metavar="DIR")
    command.add_argument("text", type=words, metavar="TEXT")
    add_verify(command)
    add_lm(command)
    add_k(command, 10, "neighbours shown (default: 10)")
    add_json(command)
    command = add_command(group, "info", datastore_info, "show what a datastore holds")
    command.add_argument("folder", type=Path, metavar="DIR")
    add_verify(command)
    add_json(command)
