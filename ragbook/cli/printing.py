"""What commands print: JSON, tables, and names with their values."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ragbook.printable import printable

if TYPE_CHECKING:
    from ragbook.corpus import Passage


def _finite(value: Any) -> Any:
    """`value` with None for the numbers that JSON does not have (such as log 0)."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def named(passage: Passage) -> str:
    """A passage's title and id, as one line shows them."""
    return f"{printable(passage.title)} ({printable(passage.id)})"


def say(sentence: str) -> None:
    """Print a sentence for the user on standard error, where it does not disturb the result."""
    print(f"ragbook: {printable(sentence)}", file=sys.stderr)


def print_json(value: Any) -> None:
    """Print a value as indented JSON, with null for numbers that JSON does not have."""
    print(json.dumps(_finite(value), indent=2, allow_nan=False))


def print_table(table: Any) -> None:
    """Print a table of `rich`."""
    from rich.console import Console

    # A file or a pipe has no width that the table must fit into.
    console = Console(width=None if sys.stdout.isatty() else 200, force_jupyter=False)
    with console.capture() as capture:
        console.print(table)
    print(capture.get(), end="")


def print_pairs(pairs: Iterable[tuple[str, Any]], indent: str = "") -> None:
    """Print each name with its value on a line of its own, the values below each other."""
    rows = [(printable(name), value) for name, value in pairs]
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        print(f"{indent}{name:<{width}}  {printable(value)}")


def print_perplexities(
    found: dict[str, dict[str, float | int]], documents: int, window: int, stride: int
) -> None:
    """Print what `ragbook.evaluation.perplexity.perplexity` returns, a line for each model, and the
    text that was scored, which is the same for all of them."""
    print(f"{'':<12}{'perplexity':>12}{'by word':>12}{'bits per byte':>15}{'tokens':>10}")
    for name, entry in found.items():
        token, word = (
            f"{value:.3f}" if value < 1e6 else f"{value:.3e}"  # 1.234e+56 keeps its column
            for value in (entry["perplexity"], entry["word_perplexity"])
        )
        bits = f"{entry['bits_per_byte']:.4f}"
        print(f"{name:<12}{token:>12}{word:>12}{bits:>15}{entry['tokens']:>10,}")
    every = found["base"]
    print(
        f"scored: documents {documents:,}, tokens {every['tokens']:,}, words {every['words']:,}, "
        f"bytes {every['bytes']:,}; window {window:,}, stride {stride:,}; first tokens not scored: "
        "none"
    )


def flat(value: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """The leaves of nested dictionaries with dotted names."""
    rows: list[tuple[str, Any]] = []
    for key, each in value.items():
        rows += flat(each, f"{prefix}{key}.") if isinstance(each, dict) else [(prefix + key, each)]
    return rows
