"""An engine of tiny random models over four passages, and its server in a thread.

The models know nothing, but every method answers, in milliseconds, and in the passages' words.
"""

import contextlib
import threading
import time
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

from ragbook.corpus import Passage
from ragbook.methods.closed_book import ClosedBook
from ragbook.methods.fid import FiD
from ragbook.methods.in_context import InContext
from ragbook.methods.knn_lm import KnnLM
from ragbook.methods.rag import RagSequence, RagToken
from ragbook.methods.realm import Realm
from ragbook.models import LanguageModel, SeqReader, SpanReader
from ragbook.models.embedded import minilm_path
from ragbook.models.span import SpanScorer
from ragbook.retrieval import Retriever
from ragbook.serve import running
from ragbook.serve.app import make_app
from ragbook.serve.engine import Engine
from ragbook.serve.line import Line
from tests.fakes import FixedRetriever
from tests.methods.conftest import seq_model, tower

PASSAGES = (
    Passage("p0", "Danube", "The Danube passes through Vienna and Budapest."),
    Passage("p1", "<b>Rhine</b>", "The Rhine passes Basel & <i>Bonn</i> on its way to the sea."),
    Passage("p2", "Elbe", "Dresden and Hamburg lie on the Elbe."),
    Passage("p3", "Vistula", "The Vistula flows through Krakow and Warsaw."),
)
FORWARDS = FixedRetriever(PASSAGES, [0.9, 0.7, 0.4, 0.1], score_scale=2.0)
BACKWARDS = FixedRetriever(PASSAGES[::-1], [9.0, 5.0, 4.0, 1.0])


def load(retriever: Retriever) -> list[Any]:
    """All methods over a retriever; the same models for each."""
    reader, spans, lm = _models()
    return [
        ClosedBook(reader, max_length=4),
        InContext(reader, retriever, max_length=4, verbatim=True),
        KnnLM(lm, retriever, 0.5, 10.0, max_length=4, verbatim=True),
        Realm(spans, retriever),
        RagSequence(reader, retriever, max_length=4, verbatim=True),
        RagToken(reader, retriever, max_length=4, verbatim=True),
        FiD(reader, retriever, max_length=4, verbatim=True),
    ]


_MADE: list = []


def _models() -> list:
    if not _MADE:
        tokenizer = AutoTokenizer.from_pretrained(str(minilm_path()))
        _MADE.append(SeqReader(seq_model("bart"), tokenizer, "tiny"))
        torch.manual_seed(2)
        _MADE.append(SpanReader(tower(), SpanScorer(16, 8), tokenizer, "tiny"))
        torch.manual_seed(3)
        config = GPT2Config(
            vocab_size=30522, n_embd=16, n_layer=2, n_head=2, n_positions=256,
            bos_token_id=101, eos_token_id=102, initializer_range=0.3,
        )  # fmt: skip
        _MADE.append(LanguageModel(GPT2LMHeadModel(config), tokenizer, "tiny"))
    return _MADE


@pytest.fixture(scope="session")
def engine() -> Engine:
    return Engine({"forwards": FORWARDS, "backwards": BACKWARDS}, load, k=3)


class Slow:
    """An engine whose questions take as long as the test lets them."""

    def __init__(self) -> None:
        self.go, self.begun, self.stopped = threading.Event(), [], []

    def answers(self, ask):
        self.begun.append(ask)
        try:
            while not self.go.wait(0.02):
                yield {"event": "still"}
            yield {"event": "end"}
        except GeneratorExit:
            self.stopped.append(ask)
            raise


@contextlib.contextmanager
def serving(engine: Engine, port: int = 0, waiting: int = 8, **how):
    """The engine's page on a port of this machine: its address, and its line."""
    line = Line(waiting)
    listening = running.open_port("127.0.0.1", port, None)
    server = running.Server(make_app(engine, line, **how), line)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield running.address_of(listening), line
    finally:
        line.close()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture(scope="session")
def address(engine):
    about = {"passages": "4 passages of rivers", "examples": ["Which river passes Vienna?"]}
    with serving(engine, about=about) as (found, _):
        yield found
