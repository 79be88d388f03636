"""The package's root: every name it promises, and no other."""

from importlib import import_module

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


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("load_reader", "ragbook.models.loading"),
        ("load_span_reader", "ragbook.models.loading"),
        ("load_language_model", "ragbook.models.loading"),
        ("ClosedBook", "ragbook.methods.closed_book"),
        ("KnnLM", "ragbook.methods.knn_lm.answers"),
        ("Realm", "ragbook.methods.realm"),
        ("RagSequence", "ragbook.methods.rag"),
        ("RagToken", "ragbook.methods.rag"),
        ("FiD", "ragbook.methods.fid"),
        ("Answer", "ragbook.methods.base"),
        ("Evidence", "ragbook.methods.base"),
        ("perplexity", "ragbook.evaluation.perplexity"),
    ],
)
def test_each_part_of_a_method_is_in_the_root(name, module):
    assert name in ragbook.__all__
    exported = getattr(ragbook, name)
    assert exported is getattr(import_module(module), name)
    assert callable(exported)  # `perplexity` is the function, not the module that holds it


def test_the_root_promises_what_it_exports():
    lazy = ragbook._EXPORTS
    assert sorted(ragbook.__all__) == sorted([*lazy, "InputError", "__version__"])
