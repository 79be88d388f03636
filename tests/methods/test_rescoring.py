"""Thorough decoding's scores against sums over whole candidates, on tables of random numbers."""

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from ragbook.methods.rescoring import complete

START, END, WORDS, N = 6, 0, 6, 3


def generator(table) -> tuple[Any, list]:
    """Of which the next token depends on the memory's row and the two last tokens; `asked` keeps
    the prefixes of every call, which must be what a generator's continuation takes."""
    asked = []

    def continuation(memory):
        last = []

        def following(prefixes, rows, parents):
            shown = [tuple(p) for p in prefixes.tolist()]
            rows = rows.tolist()
            assert rows == sorted(rows)
            assert len({rows.count(row) for row in rows}) == 1
            if last:
                before = [last[-1][at] for at in parents.tolist()]
                assert before == [(r, p[:-1]) for r, p in zip(rows, shown, strict=True)]
            last.append(list(zip(rows, shown, strict=True)))
            asked.append(last[-1])
            context = [(START, *p)[-2:] for p in shown]
            return torch.stack([memory[r][a, b] for r, (a, b) in zip(rows, context, strict=True)])

        return following

    reader = SimpleNamespace(start=START, end=END, continuation=continuation)
    return reader, asked


def whole(table, row, tokens):
    """log p(y | x, z), token by token."""
    y = (START, START, *tokens, END)
    return sum(table[row, a, b, c].item() for a, b, c in zip(y, y[1:], y[2:], strict=False))


def best(union, prior, count):
    """The `count` most probable candidates, best first."""
    return sorted(union, key=lambda y: -torch.logsumexp(prior + union[y], 0))[:count]


@pytest.fixture
def drawn():
    """The table; the prior, in which the second question lacks a passage; and what beams found."""
    random = torch.Generator().manual_seed(3)
    table = torch.randn(3 * N, 7, 7, WORDS, generator=random).mul(2).log_softmax(-1)
    prior = torch.randn(3, N, generator=random)
    prior[1, 2] = -math.inf
    prior = prior.log_softmax(-1)
    given = []
    for b, count in enumerate((7, 4, 1)):
        union = {}
        while len(union) < count:
            length = int(torch.randint(1, 5, (), generator=random))
            tokens = tuple(torch.randint(1, 3, (length,), generator=random).tolist())
            own = torch.full((N,), -math.inf)
            own[len(union) % 2] = whole(table, b * N + len(union) % 2, tokens)
            union[tokens] = own
        given.append(union)
    return table, prior, given


@pytest.mark.parametrize("count", [1, 2, 9])
@pytest.mark.parametrize("rows", [1, 256])
def test_the_best_candidates_have_their_whole_sums(drawn, count, rows, monkeypatch):
    monkeypatch.setattr("ragbook.methods.rescoring.ROWS", rows)
    table, prior, given = drawn
    complete(generator(table)[0], table, prior, given, count)
    for b, union in enumerate(given):
        exact = {
            tokens: torch.tensor([whole(table, b * N + z, tokens) for z in range(N)])
            .masked_fill(prior[b].isneginf(), -math.inf)
            for tokens in union
        }  # fmt: skip
        wanted = best(exact, prior[b], count)
        assert best(union, prior[b], count) == wanted
        for tokens in wanted:
            torch.testing.assert_close(union[tokens], exact[tokens], rtol=0, atol=1e-4)


def test_a_shared_prefix_is_asked_once_and_a_hopeless_candidate_no_further():
    table: Any = torch.full((2, 7, 7, WORDS), 0.01)
    table[..., 1] = 0.95  # after everything, 1 is likely
    table[..., 1, 1], table[..., 1, END] = 0.01, 0.95  # and after 1 the end
    table = table.log()
    prior = torch.tensor([[0.5, 0.5]]).log()

    def union():
        return {
            y: torch.tensor([whole(table, 0, y), -math.inf]) for y in [(1,), (2, 3, 4), (2, 3, 5)]
        }

    found = {}
    for count in (1, 3):
        reader, asked = generator(table)
        found[count] = union()
        complete(reader, table, prior, [found[count]], count)
        assert all(len(set(call)) == len(call) for call in asked)
        assert [len(call) for call in asked] == ([1, 1] if count == 1 else [1, 2, 1, 2])
    assert found[1][1,].isfinite().all()
    assert found[1][2, 3, 4][1] == -math.inf
    assert all(own.isfinite().all() for own in found[3].values())


def test_nothing_is_asked_where_nothing_is_missing(drawn):
    table, prior, _ = drawn
    reader, asked = generator(table)
    known = torch.tensor([[-1.0, -2.0, -3.0], [-1.0, -2.0, -math.inf]])
    given = [{(1,): known[0]}, {(2,): known[1]}]
    complete(reader, table, prior[:2], given, 1)
    assert not asked
    assert given[1][2,].tolist() == [-1, -2, -math.inf]
