"""Optional packages: where one is missing, a sentence says which and how to get it."""

import sys

import pytest

from ragbook.cli import main
from ragbook.errors import InputError
from ragbook.retrieval import MilvusRetriever
from tests.fakes import HashEncoder

PAGE = "<page><title>A</title><ns>0</ns><id>1</id><revision><text>x</text></revision></page>"


@pytest.fixture
def without(monkeypatch):
    """Has a package be missing."""
    return lambda name: monkeypatch.setitem(sys.modules, name, None)


def refusal(capsys, *argv: object) -> str:
    assert main([str(each) for each in argv]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_dumps_without_mwparserfromhell(capsys, tmp_path, without):
    without("mwparserfromhell")
    (tmp_path / "wiki.xml").write_text(f"<mediawiki>{PAGE}</mediawiki>")
    told = refusal(capsys, "corpus", "build", tmp_path / "wiki.xml", "--out", tmp_path / "x.jsonl")
    assert "pip install 'ragbook[wikipedia]'" in told
    assert [path.name for path in tmp_path.iterdir()] == ["wiki.xml"]


def test_data_sets_without_datasets(capsys, tmp_path, without):
    without("datasets")
    told = refusal(capsys, "corpus", "build", "hf:a/b", "--out", tmp_path / "x.jsonl")
    assert "pip install 'ragbook[datasets]'" in told


def test_the_engine_ray_without_ray(capsys, tmp_path, without, monkeypatch):
    without("ray")
    monkeypatch.setattr("ragbook.models.load_encoder", lambda name: HashEncoder())
    (tmp_path / "p.jsonl").write_text('{"id": "1", "title": "A", "text": "a"}\n')
    told = refusal(
        capsys, "index", "build", "--corpus", tmp_path / "p.jsonl", "--out", tmp_path / "i",
        "--engine", "ray",
    )  # fmt: skip
    assert "pip install 'ragbook[ray]'" in told
    assert not (tmp_path / "i").exists()


def test_milvus_without_pymilvus(without):
    without("pymilvus")
    with pytest.raises(InputError, match="ragbook\\[milvus\\]"):
        MilvusRetriever("x.db", "x", HashEncoder())
