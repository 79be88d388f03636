"""The function of each command: it takes the arguments and returns the exit status."""

from __future__ import annotations

import argparse
import shutil
import textwrap

from ragbook.cli.appending import methods_to_add, stored_comparison
from ragbook.cli.checks import check_reading, given_options
from ragbook.cli.comparing import (
    compare_methods,
    with_answers,
    without_answers,
)
from ragbook.cli.parts import (
    device_and_precision,
    load_asked,
    load_encoder,
    load_language_model,
    load_methods,
    load_passages,
    make_retriever,
    method_names,
    open_passages,
    read_text,
    reading_of,
    served_by,
    stored_corpus,
)
from ragbook.cli.printing import (
    flat,
    named,
    print_json,
    print_pairs,
    print_perplexities,
    print_table,
    say,
)
from ragbook.cli.ranking import asked_question, check_served
from ragbook.cli.status import DAMAGED, OK
from ragbook.errors import InputError
from ragbook.files import cache_folder
from ragbook.printable import printable


def compare(arguments: argparse.Namespace) -> int:
    """`ragbook compare`: ask all methods the same questions; print the table, store the results."""
    from ragbook.cli.advice import advice, answers_cut, cut_sentence
    from ragbook.corpus import load_questions, miniwiki
    from ragbook.corpus.gold import by_answer, missing_sentence, placed
    from ragbook.evaluation.lines import scored_number

    reading_of(arguments)  # or its refusal
    if arguments.documents is not None and not arguments.documents.is_dir():
        raise InputError(f"There is no folder {arguments.documents}; check --documents.")
    before = stored_comparison(arguments)
    names = method_names(arguments.methods, arguments.reader)
    if before is not None:
        names = methods_to_add(before, names, arguments.methods is not None)
    check_reading(arguments, names, given_options(arguments))
    source = arguments.questions
    questions = None if source is None else load_asked(arguments, arguments.split)
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)  # fail now and not after an hour
    corpus, index = open_passages(arguments)
    if arguments.documents is not None:
        corpus.documents = arguments.documents
    if questions is None:
        if corpus.name not in miniwiki.NAMES:
            raise InputError(
                f"Corpus {corpus.name!r} comes without questions; name some with --questions."
            )
        questions = load_questions(corpus.name, arguments.split)
    if arguments.limit is not None:
        questions = questions.head(arguments.limit)
    questions = by_answer(questions) if arguments.gold == "answer" else placed(questions, corpus)
    if (told := without_answers(questions)) is not None:
        say(told)
    if (lost := missing_sentence(questions, corpus.name)) is not None:
        if arguments.retriever == "oracle":
            raise InputError(f"{lost}; the oracle needs the corpus that belongs to the questions.")
        say(
            f"{lost}; for these questions neither recall nor evidence is counted. Name the corpus "
            "that they belong to, or count passages that hold an answer with --gold answer."
        )
    retriever, index = make_retriever(arguments, corpus, index)
    questions = served_by(retriever, questions, "they are left out")
    methods = load_methods(arguments, names, retriever, corpus, questions)
    comparison = compare_methods(arguments, methods, questions, corpus, index, retriever, before)
    results = comparison.results
    if results["cut_passages"]:
        say(cut_sentence(results["cut_passages"], results["cut_words"], "passages"))
    for sentence in answers_cut(results):
        say(sentence)
    for sentence in advice(results, arguments.max_length, arguments.length_penalty):
        say(sentence)
    if arguments.json:
        print_json(comparison.results)
    else:
        print_table(comparison.table())
        if (errors := comparison.errors()) is not None:
            print()
            print_table(errors.terminal())
        unscored = scored_number(comparison.results) < len(questions)
        if unscored and (agreement := comparison.agreement(numbered=True)) is not None:
            print()
            print_table(agreement.terminal())
        if arguments.out is not None:
            print(f"saved in {printable(arguments.out)}")
    return OK


def ask(arguments: argparse.Namespace) -> int:
    """`ragbook ask`: each method's answer to one question, and the passages that it relied on."""
    from ragbook.cli.advice import cut_sentence
    from ragbook.methods.cuts import found_by_part, read_short

    names = method_names(arguments.method, arguments.reader)
    check_reading(arguments, names, given_options(arguments))
    question = asked_question(arguments)
    corpus, index = open_passages(arguments)
    retriever, _ = make_retriever(arguments, corpus, index)
    check_served(retriever, question)
    methods = load_methods(arguments, names, retriever, corpus, [question])
    answers = {method.name: method.answer([question], arguments.k)[0] for method in methods}
    (found,) = retriever.retrieve([question], arguments.k)
    cut = found_by_part([retriever], found.passages) | read_short(methods)
    if cut:
        say(cut_sentence(len(cut), max(cut.values()), "passages"))
    if arguments.json:
        entries = {
            name: {
                "text": answer.text,
                "log_prob": answer.log_prob,
                "evidence": [
                    {"passage_id": each.passage_id, "weight": each.weight}
                    for each in answer.evidence
                ],
            }
            for name, answer in answers.items()
        }
        print_json({"question": question.text, "methods": entries})
        return OK
    width = shutil.get_terminal_size().columns
    for name, answer in answers.items():
        print(f"{name:<14} {printable(answer.text)}   (log p = {answer.log_prob:.2f})")
        for each in answer.evidence:
            passage = corpus.get(each.passage_id)
            line = f"{named(passage)}: {printable(' '.join(passage.text.split()))}"
            shown = textwrap.shorten(line, max(width - 24, 40), placeholder=" …")
            print(f"{'':<15}{each.weight:.3f}  {shown}")
    return OK


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


def _heldout(split: str) -> list[str]:
    """MiniWiki's held-out articles of a split, as texts."""
    from ragbook.corpus import miniwiki

    return ["\n".join(p.text for p in article.passages) for article in miniwiki.heldout(split)]


def perplexity(arguments: argparse.Namespace) -> int:
    """`ragbook perplexity`: base model, kNN-LM and in-context retrieval on held-out text."""
    from ragbook.evaluation.perplexity import perplexity
    from ragbook.evaluation.windows import STRIDE, WINDOW

    options = {} if arguments.k is None else {"k": arguments.k}
    options |= {"window": arguments.window or WINDOW, "stride": arguments.stride or STRIDE}
    if arguments.dev is not None:
        options["dev"] = [read_text(arguments.dev)]
    if arguments.approximate and arguments.datastore is None:
        raise InputError(
            "Only a datastore that was built with --ivfpq can be searched approximately; name one "
            "with --datastore."
        )
    if arguments.datastore is not None and (arguments.corpus or arguments.index):
        raise InputError(
            "A datastore holds its passages; name --datastore, or --corpus or --index, not both."
        )
    text = None if arguments.text is None else read_text(arguments.text)
    lm = load_language_model(arguments)
    if arguments.datastore is None:
        corpus, _ = open_passages(arguments)
    else:
        from ragbook.index.datastore import Datastore

        options["datastore"] = datastore = Datastore.open(arguments.datastore, arguments.verify)
        corpus = datastore.passages
    documents = _heldout("test") if text is None else [text]
    given = arguments.dev or (arguments.lam is not None and arguments.temperature is not None)
    if text is None and not given and arguments.lm != "bundled":
        options["dev"] = _heldout("dev")
    # Stored passages can be used as a corpus.
    found = perplexity(
        documents,
        corpus,  # type: ignore[arg-type]
        progress=True,
        lm=lm,
        approximate=arguments.approximate,
        lam=arguments.lam,
        temperature=arguments.temperature,
        **options,
    )
    if arguments.json:
        print_json(found)
    else:
        print_perplexities(found, len(documents), options["window"], options["stride"])
        if arguments.approximate:
            print(f"the search found {100 * found['knn-lm']['recall']:.1f} % of the neighbours")
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


def train(arguments: argparse.Namespace) -> int:
    """`ragbook train`: run one recipe on a corpus and its questions."""
    from ragbook.training import RECIPES, VARIED, Run

    if arguments.name not in RECIPES:
        raise InputError(
            f"There is no recipe {arguments.name!r}; choose from {', '.join(RECIPES)}."
        )
    asked = arguments.questions
    reads_alone = arguments.name == "lm" and asked is None
    if (arguments.corpus is None) != (asked is None) and not reads_alone:
        raise InputError(
            "Training on your own data needs passages and questions; name both --corpus and "
            "--questions."
        )
    varied = {name: getattr(arguments, name) for name in VARIED}
    varied = {name: value for name, value in varied.items() if value is not None}
    for name in varied:
        if arguments.name not in VARIED[name]:
            takers, option = VARIED[name], name.replace("_", "-")
            which = f"recipe {takers[0]} takes"
            if len(takers) > 1:
                which = f"recipes {' and '.join(takers)} take"
            raise InputError(f"Only the {which} --{option}; leave it out.")
    own = None
    if arguments.corpus is not None:
        split = arguments.split or "train"
        questions = () if asked is None else with_answers(load_asked(arguments, split))
        own = load_passages(arguments, arguments.corpus), questions
        if asked is not None and arguments.name in ("reader", "fid", "methods"):
            from ragbook.corpus.gold import missing_sentence, placed

            lost = missing_sentence(placed(own[1], own[0]), own[0].name)  # type: ignore[arg-type]
            if lost is not None:
                say(f"{lost}; nothing is learnt from these questions.")
    run = Run(
        arguments.out,
        arguments.seed,
        arguments.steps,
        arguments.resume,
        own,
        arguments.device,
        arguments.precision,
    )
    _ = run.dtype  # or its refusal
    device_and_precision(arguments)  # says which format is slow
    RECIPES[arguments.name](run, **varied)
    return OK


def export(arguments: argparse.Namespace) -> int:
    """`ragbook export`: write a bundled model as a checkpoint that `transformers` loads."""
    from ragbook.models.checkpoints.export import export

    export(arguments.name, arguments.out, arguments.reader)
    return OK


def doctor(arguments: argparse.Namespace) -> int:
    """`ragbook doctor`: print what is installed, and what would need a download."""
    from ragbook import doctor

    report = doctor.examine(cache_folder())
    if arguments.json:
        print_json(report)
        return OK
    for heading, entries in report.items():
        print(heading)
        print_pairs(
            ((name, "missing" if value is None else value) for name, value in entries.items()), "  "
        )
    return OK
