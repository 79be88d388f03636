"""Searching keys, against distances computed one by one in float64."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ragbook.errors import InputError
from ragbook.index import neighbours


def by_hand(keys, queries, k):
    """All distances in float64, sorted by (distance, row)."""
    apart = queries.astype(np.float64)[:, None] - keys.astype(np.float64)[None]
    distances = np.square(apart).sum(-1)
    rows = np.argsort(distances, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(distances, rows, 1), rows


@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.integers(1, 50),
    st.integers(1, 3),
    st.booleans(),
    st.integers(0, 10_000),
)
@settings(max_examples=80, deadline=None)
def test_exact_search_is_the_definition_whatever_the_blocks(M, N, k, d, half, seed):
    """Small whole numbers: distances are exact, many keys are equal, and ties go by row."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(-2, 3, (M, d)).astype(np.float16 if half else np.float32)
    queries = rng.integers(-2, 3, (N, d)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbours, "KEYS", int(rng.integers(1, 45)))
        patch.setattr(neighbours, "QUERIES", int(rng.integers(1, 6)))
        distances, rows = neighbours.exact(keys, queries, k)
    expected, expected_rows = by_hand(keys, queries, k)
    assert distances.dtype == np.float32
    assert rows.dtype == np.int64
    np.testing.assert_array_equal(distances, expected)
    np.testing.assert_array_equal(rows, expected_rows)


@pytest.fixture(scope="module")
def trained():
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(200, 16))
    keys = centres[rng.integers(0, 200, 12_000)] + rng.normal(size=(12_000, 16))
    keys = keys.astype(np.float16)
    queries = keys[::600].astype(np.float32) + 0.1
    return keys, queries, neighbours.train_ivfpq(keys)


def test_the_approximate_index_finds_most_of_the_neighbours(trained):
    keys, queries, index = trained
    assert index.metric_type == faiss.METRIC_L2
    expected, exact_rows = by_hand(keys, queries, 50)
    distances, rows = neighbours.approximate(index, queries, 50)
    found = neighbours.recall(rows, exact_rows)
    assert found == np.mean(
        [len(set(a) & set(b)) / 50 for a, b in zip(rows, exact_rows, strict=True)]
    )
    assert found > 0.9  # 16 bytes for 16 numbers
    assert neighbours.recall(neighbours.approximate(index, queries, 50, 1)[1], exact_rows) <= found
    np.testing.assert_allclose(distances.mean(), expected.mean(), rtol=0.1)  # squared, as exact's


def test_recomputed_distances_are_those_of_the_keys(trained):
    keys, queries, index = trained
    codes, rows = neighbours.approximate(index, queries, 30)
    distances, ordered = neighbours.recomputed(keys, queries, rows)
    assert [sorted(row) for row in ordered] == [sorted(row) for row in rows]
    assert (np.diff(distances, axis=1) >= 0).all()
    apart = queries[:, None].astype(np.float64) - keys[ordered].astype(np.float64)
    np.testing.assert_allclose(distances, np.square(apart).sum(-1), rtol=1e-5)
    assert np.abs(codes - distances).max() > 0


@pytest.mark.parametrize("half", [True, False])
def test_recomputed_distances_are_numpys_to_the_last_bit(half):
    """However keys are converted, and where some rows are none; the keys stay as they are."""
    rng = np.random.default_rng(1)
    keys = rng.normal(size=(300, 24)).astype(np.float16 if half else np.float32)
    keys.flags.writeable = False  # as a mapped file's
    queries = rng.normal(size=(5, 24)).astype(np.float32)
    rows = rng.permuted(np.tile(np.arange(300), (5, 1)), axis=1)[:, :40]
    rows[2, 30:] = neighbours.NONE
    before = keys.tobytes()
    distances, ordered = neighbours.recomputed(keys, queries, rows)
    for query, own, found, found_rows in zip(queries, rows, distances, ordered, strict=True):
        own = own[own != neighbours.NONE]
        apart = np.asarray(keys[own], dtype=np.float32) - query
        squares = np.einsum("ij,ij->i", apart, apart)
        order = np.lexsort((own, squares))
        assert found[: len(own)].tobytes() == squares[order].tobytes()
        assert found_rows[: len(own)].tolist() == own[order].tolist()
    assert keys.tobytes() == before


def test_a_search_that_finds_fewer_says_so(trained):
    keys, queries, index = trained
    distances, rows = neighbours.approximate(index, queries, 5000, probes=1)
    assert ((rows == neighbours.NONE) == np.isinf(distances)).all()
    assert (rows[:, -1] == neighbours.NONE).all()
    distances, rows = neighbours.recomputed(keys, queries, rows)
    assert ((rows == neighbours.NONE) == np.isinf(distances)).all()
    assert np.isfinite(distances[:, 0]).all()


def test_too_few_keys_are_refused():
    with pytest.raises(InputError, match="exact search"):
        neighbours.train_ivfpq(np.zeros((100, 8), np.float16))


def with_large_components(rng, count, dimension, half):
    """Keys as of many language models: most components near 0, some large and nearly constant."""
    keys = rng.normal(size=(count, dimension))
    for column, value in ((3, 3000.0), (7, -250.0), (11, 40.0)):
        keys[:, column] += value
    return keys.astype(np.float16 if half else np.float32)


@pytest.mark.parametrize("half", [True, False])
def test_large_constant_components_cost_no_digits(half):
    rng = np.random.default_rng(0)
    keys = with_large_components(rng, 3_000, 64, half)
    queries = keys[::100].astype(np.float32) + rng.normal(size=(30, 64)).astype(np.float32)
    distances, rows = neighbours.exact(keys, queries, 20)
    expected, expected_rows = by_hand(keys, queries, 20)
    np.testing.assert_allclose(distances, expected, rtol=1e-4)
    assert (rows == expected_rows).mean() > 0.99


@given(st.integers(1, 400), st.integers(1, 6), st.integers(0, 10_000))
@settings(max_examples=50)
def test_the_centre_moves_only_what_is_large_and_constant(count, d, seed):
    """All else stays as it was, bit by bit; and what is moved is whole where the keys are."""
    rng = np.random.default_rng(seed)
    keys = rng.normal(size=(count, d)).astype(np.float32)
    if count > 50:
        assert not neighbours.centre(keys).any()
    whole = rng.integers(-3, 4, (count, d)) + rng.choice([0, 1000], d)
    middle = neighbours.centre(whole.astype(np.float16))
    moved = whole.astype(np.float32) - middle
    np.testing.assert_array_equal(moved.astype(np.float64) + middle, whole)


def test_a_key_that_is_not_finite_is_told():
    keys = np.zeros((50, 4), np.float16)
    for value in (np.nan, np.inf):
        keys[33, 1] = value
        with pytest.raises(InputError, match="not a finite number"):
            neighbours.exact(keys, np.zeros((2, 4), np.float32), 3)
