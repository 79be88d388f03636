"""The command `ragbook train`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from ragbook.cli.comparing import (
    with_answers,
)
from ragbook.cli.options import (
    add_corpus,
    add_device,
    add_encoder,
    at_least,
)
from ragbook.cli.parsers import add_command
from ragbook.cli.parts import (
    device_and_precision,
    load_asked,
    load_passages,
)
from ragbook.cli.printing import (
    say,
)
from ragbook.cli.status import OK
from ragbook.errors import InputError
from ragbook.training import RECIPES


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


def add_commands(top: Any) -> None:
    """Add `train`."""
    command = add_command(
        top,
        "train",
        train,
        "train a model by its recipe; with --corpus and --questions on your own data, starting "
        "from trained models",
    )
    command.add_argument("name", metavar="NAME", help=f"recipe: {', '.join(RECIPES)}")
    add_corpus(command, "your own passages", questions=True)
    command.add_argument(
        "--questions",
        metavar="NAME_OR_PATH",
        help="your own questions; the recipe reader needs their gold passages",
    )
    command.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="folder of the weights"
    )
    command.add_argument("--steps", type=at_least(1), metavar="N", help="(default: the recipe's)")
    command.add_argument("--seed", type=at_least(0), default=0, metavar="N", help="(default: 0)")
    command.add_argument("--resume", action="store_true", help="go on with the run in --out")
    command.add_argument(
        "--similarity", choices=["cosine", "dot", "l2"], help="for dpr (default: the recipe's)"
    )
    command.add_argument(
        "--loss", choices=["cross-entropy", "hinge"], help="for dpr (default: cross-entropy)"
    )
    command.add_argument(
        "--reader",
        metavar="NAME_OR_PATH",
        help="for distil: the reader to learn from (default: bundled); for lora: the causal model "
        "that the adapter is for, or an adapter to go on from (default: smollm2)",
    )
    command.add_argument(
        "--method",
        choices=["reading", "in-context", "rag-sequence", "rag-token", "fid"],
        help="for lora: whose likelihood is raised (default: reading, for all methods)",
    )
    add_encoder(command, "of dpr and distil: what is trained (default: minilm)", similarity=False)
    command.add_argument(
        "--background",
        action="store_true",
        default=None,
        help="for realm: build the new indexes in a second process while training goes on",
    )
    add_device(command, "auto")
