"""The package's root: every name it promises, and no other."""

import pytest

import ragbook


@pytest.mark.parametrize("name", ragbook.__all__)
def test_every_exported_name_is_there(name):
    assert getattr(ragbook, name) is not None
    assert name in dir(ragbook)


def test_the_rooms_are_attributes():
    assert ragbook.corpus.load_corpus is ragbook.load_corpus
    assert ragbook.evaluation.compare is ragbook.compare


def test_an_unknown_name_is_refused_as_python_does():
    with pytest.raises(AttributeError, match="no attribute 'lode_corpus'"):
        ragbook.lode_corpus  # noqa: B018
    assert not hasattr(ragbook, "cli_of_yesterday")
