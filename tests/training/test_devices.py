"""Every recipe trains on a GPU as on the CPU, in either precision; no tensor is left behind.

On the pretended GPU, and on a real one where there is one, a run of a step or two ends in the files
that the same run on the CPU writes, but for rounding errors.
"""

from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from book.experiments import claims_and_clues_training as claims
from ragbook import training
from ragbook.corpus import Corpus, Passage, Question
from ragbook.errors import InputError
from ragbook.models import devices, load_encoder
from ragbook.training import Run, distil, dpr
from ragbook.training import lm as training_lm
from ragbook.training.loop import MasterAdamW
from ragbook.training.reader import objectives
from ragbook.training.realm import pretraining
from ragbook.training.realm import recipe as realm
from ragbook.training.realm.cloze import ClozeRecipe
from ragbook.training.realm.masked_reader import ReaderRecipe
from tests.devices import GPU, on_gpus, pretended_gpu
from tests.fakes import FixedRetriever

NAMES = ["Oda", "Velm", "Sorn", "Ket", "Tavia", "Ordania"]
CORPUS = Corpus(
    "towns",
    [
        Passage(
            f"p{i}",
            f"Town {i}",
            f"The town was founded by {NAMES[i % 6]} in {1400 + i % 5}. "
            f"Later {NAMES[(i + 1) % 6]} came here from {NAMES[(i + 2) % 6]}.",
        )
        for i in range(12)
    ],
)
QUESTIONS = [Question(f"Who founded town {i}?", (NAMES[i % 6],), f"p{i}") for i in range(12)]


@pytest.fixture(autouse=True)
def short(monkeypatch):
    """Small batches, as a few steps are all that is needed."""
    monkeypatch.setattr(distil, "Recipe", partial(distil.Recipe, rounds=1, k=3, batch=4))
    monkeypatch.setattr(realm, "ReaderRecipe", partial(ReaderRecipe, batch=3))
    monkeypatch.setattr(
        realm, "RealmRecipe", partial(pretraining.RealmRecipe, k=3, batch=2, refresh=1)
    )
    monkeypatch.setattr(realm, "QaRecipe", partial(realm.QaRecipe, k=2, wide=4, batch=3))
    monkeypatch.setattr(claims, "STAGES", (claims.Stage(1, 2, 1), claims.Stage(2, 2, 1)))
    monkeypatch.setattr(claims, "TASKS", {"claims": lambda: QUESTIONS})
    monkeypatch.setattr(claims, "task_retriever", lambda *_: FixedRetriever(CORPUS, range(12)))
    monkeypatch.setattr(training_lm, "OWN_BATCH", 3)
    # Whole differences: the factors of a change so small are not determined.
    monkeypatch.setattr(objectives, "Recipe", partial(objectives.Recipe, batch=3, kept=384))


def lm(run: Run) -> None:
    training.RECIPES["lm"](replace(run, own=(CORPUS, ())))


def task(run: Run) -> None:
    claims.recipe("claims", run)


RECIPES = {name: training.RECIPES[name] for name in ("dpr", "distil", "rag", "reader", "realm")}
RECIPES |= {"lm": lm, "a chapter's tasks": task}


def trained(name: str, run: Run) -> dict[str, dict[str, torch.Tensor]]:
    """The tensors that a recipe writes, by file, without its checkpoints."""
    RECIPES[name](replace(run, own=(CORPUS, QUESTIONS)))
    files = sorted(run.out.rglob("*.safetensors"))
    return {
        path.relative_to(run.out).as_posix(): load_file(path)
        for path in files
        if run.work not in path.parents
    }


class Masters:
    """Notes the number formats of the parameters of every optimizer."""

    def __init__(self, monkeypatch) -> None:
        self.seen: list[set[torch.dtype]] = []
        begin = MasterAdamW.__init__

        def begun(own, *given, **options):
            begin(own, *given, **options)
            self.seen.append({parameter.dtype for parameter in own.parameters})
            assert {master.dtype for master in own.masters} == {torch.float32}

        monkeypatch.setattr(MasterAdamW, "__init__", begun)


Ended = tuple[dict[str, dict[str, torch.Tensor]], list[set[torch.dtype]]]


@pytest.fixture(scope="module")
def slow_processor(tmp_path_factory):
    """name of a recipe -> (its files, the formats of what it trained), of a run on a processor that
    does not multiply bfloat16, with the defaults; each recipe is run once."""

    @cache
    def ended(name: str) -> Ended:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(devices, "multiplies_bfloat16", lambda: False)
            masters = Masters(patch)
            run = Run(tmp_path_factory.mktemp("cpu") / "out", steps=1, device="cpu")
            return trained(name, run), masters.seen

    return ended


@on_gpus
@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_writes_what_it_writes_on_the_cpu(name, a_gpu, slow_processor, tmp_path):
    here, _ = slow_processor(name)
    with a_gpu():
        there = trained(name, Run(tmp_path / "gpu", steps=1, precision="float32"))
    assert here
    assert {file: set(tensors) for file, tensors in there.items()} == {
        file: set(tensors) for file, tensors in here.items()
    }
    for file, tensors in here.items():
        for key, tensor in tensors.items():
            assert there[file][key].dtype == tensor.dtype
            # A first step is as long as the rate wherever its sign is no rounding error's.
            apart = (there[file][key].float() - tensor.float()).abs()
            assert (apart > 1e-5 + 1e-2 * tensor.float().abs()).float().mean() < 0.01, (file, key)


@pytest.mark.parametrize("name", RECIPES)
def test_auto_is_what_the_processor_multiplies(name, slow_processor, monkeypatch, tmp_path):
    """And a reader's or language model's file is of one size in either precision."""
    monkeypatch.setattr(devices, "multiplies_bfloat16", lambda: True)
    masters = Masters(monkeypatch)
    quick = trained(name, Run(tmp_path / "quick", steps=1, device="cpu"))
    seen = list(masters.seen)  # before the other run, which may be recorded here, too
    slow, formats = slow_processor(name)
    assert seen
    assert all(torch.bfloat16 in each for each in seen)
    assert len(formats) == len(seen)
    assert all(each == {torch.float32} for each in formats)
    assert quick.keys() == slow.keys()
    for file, tensors in quick.items():
        # An encoder's tensors are written in the format that they were trained in.
        if Path(file).stem not in ("passage", "query"):
            sizes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
            assert sizes == {n: (t.dtype, t.shape) for n, t in slow[file].items()}


def test_a_run_goes_on_in_its_own_precision_and_on_any_device(tmp_path):
    run = Run(tmp_path / "rag", steps=1, precision="float32", device="cpu", own=(CORPUS, QUESTIONS))
    training.RECIPES["rag"](run)
    state = tmp_path / "rag" / "work" / "rag-token" / "rag-token.state.safetensors"
    with safe_open(str(state), "pt") as file:
        assert file.metadata()["precision"] == "float32"
    before = load_file(tmp_path / "rag" / "rag-token" / "rag-token.safetensors")
    again = replace(run, resume=True)
    with pytest.raises(InputError, match="go on with --precision float32"):
        training.RECIPES["rag"](replace(again, precision="bfloat16"))
    with pretended_gpu():
        training.RECIPES["rag"](replace(again, device="cuda"))
    after = load_file(tmp_path / "rag" / "rag-token" / "rag-token.safetensors")
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())


def test_a_checkpoint_of_before_goes_on(tmp_path):
    """Checkpoints that do not say their precision are not refused for it."""
    from ragbook.training.loop import train, write_tensors

    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = MasterAdamW([([weight], 0.1)], weight_decay=0.0)
    weight.grad = torch.zeros(2, 2)
    optimizer.step(1.0)
    write_tensors(tmp_path / "x.state.safetensors", optimizer.tensors(), step="1", fingerprint="f")
    never = lambda step: pytest.fail("it was done")  # noqa: E731
    train("x", never, optimizer, 1, tmp_path, fingerprint="f", progress=False)
    assert weight.sum().item() == 4


def test_the_inverse_cloze_task_and_the_indexes_follow(tmp_path):
    """What `ragbook train realm` leaves out: a retriever that starts from nothing, and a second
    process, which is told where and in what the training computes."""
    from ragbook.models.embedded import minilm_tokenizer
    from ragbook.training.realm.masking import masked_sentences

    masked = masked_sentences(minilm_tokenizer(), CORPUS, "salient", 0)
    told = []

    class Builder:
        def __init__(self, folder, device, precision):
            told.append((device, precision))

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

        def want(self, encoder, step):
            raise AssertionError("one step needs no second index")

    with pretended_gpu() as gpu, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pretraining, "Builder", Builder)
        reader, encoder = realm.warm_start(
            realm.mapped_encoder(torch.eye(384)),
            CORPUS,
            masked,
            tmp_path,
            ClozeRecipe(batch=4, steps=1),
            ReaderRecipe(batch=3, steps=1),
            progress=False,
            device="cuda",
            precision="bfloat16",
        )
        assert devices.device_of(encoder.passage_model) == gpu == GPU
        chosen = pretraining.RealmRecipe(k=3, batch=2, steps=1, background=True)
        index = pretraining.train_realm(
            reader, encoder, CORPUS, masked, tmp_path, chosen, progress=False
        )
        assert len(index) == len(CORPUS)
    assert told == [("meta", "bfloat16")]


def test_an_encoder_is_written_from_where_it_is(tmp_path):
    from ragbook.models.encoder import save_encoder

    encoder = load_encoder()
    with torch.no_grad():
        encoder.model.embeddings.LayerNorm.bias += 1.0
    save_encoder(tmp_path / "cpu", encoder)
    with pretended_gpu() as gpu:
        save_encoder(tmp_path / "gpu", encoder.to(str(gpu)))
    for path in (tmp_path / "cpu").iterdir():
        assert path.read_bytes() == (tmp_path / "gpu" / path.name).read_bytes()


def test_nothing_is_trained_in_float16(tmp_path):
    with pytest.raises(InputError, match="choose bfloat16"):
        Run(tmp_path / "new", precision="float16").begin()
    assert not (tmp_path / "new").exists()


def test_dpr_trains_where_its_encoder_is(tmp_path):
    shown = dpr.pairs(CORPUS, QUESTIONS)
    with pretended_gpu() as gpu:
        start = load_encoder().to(str(gpu))
        chosen = dpr.Recipe(steps=1, batch=3, dtype="float32")
        dpr.train_dpr(shown, tmp_path / "gpu", chosen, progress=False, start=start)
    dpr.train_dpr(shown, tmp_path / "cpu", chosen, progress=False)
    one, other = (load_encoder(str(tmp_path / name)) for name in ("cpu", "gpu"))
    texts = [q.text for q in QUESTIONS]
    assert abs(one.encode_queries(texts) - other.encode_queries(texts)).max() < 1e-4
