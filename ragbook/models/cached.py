"""Whether a model says through a cache what it says in one plain pass.

Positions, masks and windows depend on what a cache holds, and every architecture counts them in its
own way; one that is read wrongly gives wrong numbers and no error. So a model from outside is read
both ways once, a few tokens long, and refused where the two differ.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.models.seq2seq import SeqReader

TOLERANCE, TOLERANCE_16 = 1e-3, 0.25
"""How much of the probability may lie elsewhere (total variation): in float32, and in types of 16
bits, which round a logit of 20 by up to a tenth."""

Steps = Callable[[Tensor, Tensor, Tensor], Tensor]
"""A continuation: (prefixes [R, t], rows [R], parents [R]) -> log p(next token), [R, V]."""

_MISFITS = (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError)
"""What models raise that were not made to be read so."""


def _apart(one: Tensor, other: Tensor) -> float:
    """The greatest total variation between distributions, given as logarithms [..., V]."""
    return (one.float().exp().cpu() - other.float().exp().cpu()).abs().sum(-1).max().item() / 2


@torch.no_grad()
def check_steps(
    name: str, start: int, dtype: torch.dtype, begin: Callable[[], Steps], plainly: Steps
) -> None:
    """Let two beams of each of two rows grow by two tokens and change places.

    Parameters
    ----------
    name: what the sentence calls the model.
    start: the token that prefixes begin with.
    dtype: of the model's weights.
    begin: starts to continue from rows 0 and 1 through a cache.
    plainly: the same distributions without one; parents mean nothing to it.

    Raises
    ------
    InputError: the two differ, or the model cannot be read so at all.
    """
    rows, parents = torch.tensor([0, 0, 1, 1]), torch.arange(4)
    prefixes = torch.full((4, 1), start)
    try:
        following = begin()
        for words in ([11, 12, 13, 14], [15, 16, 17, 18]):
            following(prefixes, rows, parents)
            parents = torch.tensor([1, 0, 2, 2])
            prefixes = torch.cat([prefixes[parents], torch.tensor(words)[:, None]], dim=1)
        apart = _apart(following(prefixes, rows, parents), plainly(prefixes, rows, parents))
    except torch.OutOfMemoryError:
        raise
    except _MISFITS as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{name} cannot be read through a cache, token by token ({reason}); use another model"
        ) from error
    if not apart <= (TOLERANCE if dtype.itemsize > 2 else TOLERANCE_16):  # not a number, either
        raise InputError(
            f"{name} says other things through a cache than without one (up to {apart:.1%} of the "
            "probability goes to other tokens), so its answers would be wrong; use another model"
        )


@torch.no_grad()
def first_logits(reader: SeqReader) -> Tensor:
    """The logits of the first token of an answer to some question, [1, 1, V]."""
    inputs, states = reader.pairs(["Which word?"], [Passage("", "A title", "A word.")])
    start = torch.full((1, 1), reader.start, device=states.device)
    mask = inputs.mask.to(states.device)
    return reader.forward(states, mask, reader.opened(start)).logits[:, -1:]


def check_reader(reader: SeqReader) -> None:
    """`check_steps` of a reader, beside its decoder in one plain pass with its own attention."""
    decoder, shown = reader.model.get_decoder(), (5, 3)
    size = reader.model.get_encoder().config.hidden_size
    states = torch.randn(2, max(shown), size, generator=torch.Generator().manual_seed(0))
    states = states.to(reader.model.device, reader.model.dtype)
    mask = (torch.arange(max(shown)) < torch.tensor(shown)[:, None]).long().to(states.device)

    def plainly(prefixes: Tensor, rows: Tensor, _: Tensor) -> Tensor:
        shared = decoder.config._attn_implementation
        decoder.set_attn_implementation("eager")
        out = [
            reader.forward(
                states[row : row + 1, : shown[row]],
                mask[row : row + 1, : shown[row]],
                reader.opened(prefix[None].to(states.device)),
            ).logits[:, -1]
            for row, prefix in zip(rows.tolist(), prefixes, strict=True)
        ]
        decoder.set_attn_implementation(shared)
        return torch.cat(out).float().log_softmax(-1)

    check_steps(
        reader.name,
        reader.start,
        states.dtype,
        lambda: reader.continuation(reader.memory(states, mask)),
        plainly,
    )


@torch.no_grad()
def check_left_to_right(name: str, forward: Callable[[Tensor], Tensor]) -> None:
    """Refuse a model whose predictions depend on what comes later.

    Parameters
    ----------
    name: what the sentence calls the model.
    forward: log p(next token), [1, t, V], of int64 [1, t].

    Raises
    ------
    InputError: they do.
    """
    one, other = (forward(torch.tensor([[5, 6, 7, last]]))[:, :3] for last in (8, 9))
    if not _apart(one, other) <= TOLERANCE:
        raise InputError(
            f"{name} looks at the words to come, so it is no language model; use a decoder (of a "
            "BERT, one whose configuration says is_decoder and that was trained so)"
        )
