"""A recipe ends in files that load, are listed, and hold what was trained."""

from dataclasses import replace

import pytest
import torch

from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.models import (
    load_adapted_language_model,
    load_encoder,
    load_language_model,
    load_question_tower,
    load_reader,
    load_span_reader,
    loading,
)
from ragbook.models.bundled import manifest
from ragbook.training.reader.objectives import METHODS
from ragbook.training.reader.recipe import recipe
from ragbook.training.run import Run


def test_a_run_goes_on_only_where_it_should(tmp_path):
    first = Run(tmp_path / "deep" / "new", steps=3)
    first.begin()
    first.begin()  # nothing has been trained yet
    first.work.mkdir()
    with pytest.raises(InputError, match="--resume"):
        first.begin()
    replace(first, resume=True).begin()
    assert [first.cut(2), first.cut(9), Run(tmp_path).cut(9)] == [2, 3, 9]


def test_a_reader_of_ones_own(tmp_path):
    """Two steps on questions of one's own: files that load, listed, and different from before."""
    rivers = [Passage(str(i), f"River {i}", f"River {i} rises at Vel{i}.") for i in range(12)]
    asked = [Question(f"Where does river {i} rise?", (f"Vel{i}",), str(i)) for i in range(12)]
    recipe(Run(tmp_path, steps=2, own=(Corpus("rivers", rivers), asked)))
    reader, span = load_reader(str(tmp_path)), load_span_reader(str(tmp_path))
    assert span.pairs is reader.pairs
    assert reader.name == str(tmp_path)
    before = load_reader().model.state_dict()
    changed = {n for n, t in reader.model.state_dict().items() if not torch.equal(t, before[n])}
    assert any(n.startswith("decoder.") for n in changed)
    assert any("encoder.layer.5." in n for n in changed)
    assert not any(
        "embeddings.word" in n or n.startswith("encoder.encoder.layer.1.") for n in changed
    )
    listed = manifest(tmp_path)["files"]
    assert {f"{method}.safetensors" for method in (*METHODS, "knn-lm")} < set(listed)
    adapted = load_adapted_language_model(str(tmp_path))
    assert adapted is not None
    assert adapted.sha256 != load_language_model().sha256
    for method in METHODS[1:]:
        own = load_reader(str(tmp_path), method)
        assert own.pairs is not reader.pairs  # its encoder is another
        shared, theirs = reader.model.state_dict(), own.model.state_dict()
        moved = {n for n, t in theirs.items() if not torch.equal(t, shared[n])}
        assert any(n.startswith("decoder.") and theirs[n].dim() == 2 for n in moved)
        assert any(n.startswith("encoder.encoder.layer.4.") for n in moved)
        assert not any("embeddings.word" in n or "encoder.layer.3." in n for n in moved)
        words = own.model.decoder.bert.embeddings.word_embeddings.weight
        assert words is reader.model.encoder.embeddings.word_embeddings.weight
    realm = load_span_reader(str(tmp_path), "realm")
    assert realm.pairs is not reader.pairs
    assert not torch.equal(realm.scorer.out.weight, span.scorer.out.weight)
    assert load_question_tower(str(tmp_path), "fid") is None
    tower, plain = load_question_tower(str(tmp_path), "realm"), load_encoder()
    assert tower is not None
    assert (tower.sha256, tower.score_scale) == (plain.sha256, plain.score_scale)
    texts = [one.text for one in asked]
    assert abs(tower.encode_queries(texts) - plain.encode_queries(texts)).max() > 1e-6
    with pytest.raises(InputError, match="a run with other settings"):
        recipe(Run(tmp_path, steps=2, resume=True, own=(Corpus("rivers", rivers), asked[:11])))
    (tmp_path / "span.safetensors").write_bytes(b"cut")
    loading._span_reader.__wrapped__.cache_clear()
    with pytest.raises(InputError, match="missing or damaged"):
        load_span_reader(str(tmp_path))
    with pytest.raises(InputError, match=r"holds no weights\.json"):
        load_span_reader(str(tmp_path / "nowhere"))
