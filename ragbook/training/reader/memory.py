r"""kNN-LM's own objective: the interpolation that it answers with, in which keys learn too.

The paper leaves the language model as it was trained on text and only adds a memory (Khandelwal et
al. 2020). Beside methods that are trained on questions, the model is adapted to them here: on the
same questions, with the same passages, whose contexts are the memory, it raises

\[ \log \left( (1 - \lambda)\, p_{\text{LM}}(y_t \mid x, y_{<t})
   + \lambda\, p_{\text{kNN}}(y_t \mid x, y_{<t}) \right), \]

summed over the answer's tokens, its end among them. Both the context's representation and the keys
that it is compared with get gradients, as in TRIME (Zhong et al. 2022). The model is trained whole,
except what has a value for every word of the vocabulary.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ragbook.corpus import Passage, Question
from ragbook.methods.knn_lm import interpolate, knn_target_log_prob, squared_distances
from ragbook.models import Encoder, LanguageModel
from ragbook.models.changes import changes
from ragbook.models.lm import WINDOW, key_module
from ragbook.training.loop import MasterAdamW, train
from ragbook.training.reader.examples import GoldExamples
from ragbook.training.reader.objectives import Recipe, asked_at, nearest, shown
from ragbook.training.reader.train import quicken
from ragbook.training.run import Run


class Adapting:
    """A copy of a language model that is adapted to a memory.

    Parameters
    ----------
    lm: the model; it is not changed.
    lam, temperature: of the interpolation.
    run: where and how precisely it computes.
    """

    def __init__(self, lm: LanguageModel, lam: float, temperature: float, run: Run) -> None:
        self.lm = lm
        self.model = deepcopy(lm.model)
        self.lam, self.temperature, self.where = lam, temperature, run.where
        quicken(self.model, run.device, run.precision)
        self._keys = torch.empty(0)
        key_module(self.model).register_forward_pre_hook(self._keep)

    def _keep(self, _: object, arguments: tuple[Tensor, ...]) -> None:
        self._keys = arguments[0].float()

    def whole(self) -> dict[str, torch.nn.Parameter]:
        """What is trained, by name: all that has no value for each word."""
        words = self.model.config.vocab_size
        return {n: p for n, p in self.model.named_parameters() if words not in p.shape}

    def _read(self, texts: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor, Tensor]:
        """The keys, float32 [N, L, d], of texts padded on the right; the model's last states, and
        the token ids [N, L]."""
        ids = pad_sequence([torch.tensor(list(t)) for t in texts], batch_first=True).to(self.where)
        mask = pad_sequence([torch.ones(len(t)) for t in texts], batch_first=True).to(ids)
        states = self.model.bert(input_ids=ids, attention_mask=mask, use_cache=False)[0]
        return self._keys, states, ids

    def log_prob(
        self, questions: Sequence[Question], passages: Sequence[Sequence[Passage]]
    ) -> Tensor:
        """log p(y | x) of each question's first answer, nats, float32 [B], with gradients, its
        passages being the memory; of a passage the first `WINDOW` tokens."""
        texts = [text[:WINDOW] for each in passages for text in self.lm.texts(each)]
        keys, _, read = self._read(texts)
        pairs_of = [
            (keys[row, : len(text) - 1], read[row, 1 : len(text)]) for row, text in enumerate(texts)
        ]
        answers = [self.lm.answer_ids(q.answers[0]) for q in questions]
        asked = [
            [*self.lm.prompt_ids(q.text), *tokens[:-1]]
            for q, tokens in zip(questions, answers, strict=True)
        ]
        queries, states, _ = self._read(asked)
        out, first = [], 0
        for row, tokens in enumerate(answers):
            own = slice(len(asked[row]) - len(tokens), len(asked[row]))
            target = torch.tensor(tokens, device=self.where)
            logits = self.model.cls(states[row, own]).float()
            base = logits.log_softmax(-1).gather(1, target[:, None])[:, 0]
            pairs = pairs_of[first : first + len(passages[row])]
            first += len(pairs)
            memory, values = (torch.cat(parts) for parts in zip(*pairs, strict=True))
            # Distances do not change with the origin, and are more exact near it.
            centre = memory.detach().mean(0)
            distances = squared_distances(queries[row, own] - centre, memory - centre)
            hits = values[None, :] == target[:, None]
            neighbours = knn_target_log_prob(distances, hits, self.temperature)
            out.append(interpolate(base, neighbours, self.lam).sum())
        return torch.stack(out)


def train_memory(
    lm: LanguageModel,
    lam: float,
    temperature: float,
    encoder: Encoder,
    source: GoldExamples,
    run: Run,
    recipe: Recipe | None = None,
) -> dict[str, Tensor]:
    """Adapt a language model, or resume; returns its changes, as `knn-lm.safetensors` holds them.

    Parameters
    ----------
    lm: the language model, which is not changed.
    lam, temperature: of the interpolation.
    encoder: the retriever's.
    source: questions and passages; the same questions are shown in the same order as to the methods
        of `ragbook.training.reader.objectives`.
    recipe: the settings; None for the defaults.
    """
    recipe = recipe or Recipe()
    adapting = Adapting(lm, lam, temperature, run)
    adapting.model.requires_grad_(False)
    whole = adapting.whole()
    for parameter in whole.values():
        parameter.requires_grad = True
    before = {name: parameter.detach().clone() for name, parameter in whole.items()}
    asking, length = source.found(recipe.n), run.cut(recipe.steps)

    def batch_loss(step: int) -> tuple[Tensor, dict[str, float]]:
        rng, asked = asked_at(step, run.seed, asking, recipe.batch)
        with torch.no_grad():
            _, positions = nearest(encoder, asked, source.keys, recipe.n)
        examples = shown(rng, source, asked, positions)
        found = adapting.log_prob([e.question for e in examples], [e.passages for e in examples])
        loss = -found.mean()
        return loss, {"nll": loss.item()}

    optimizer = MasterAdamW([(list(whole.values()), recipe.decoder_rate)], weight_decay=0.0)
    train(
        "knn-lm",
        batch_loss,
        optimizer,
        length,
        run.work,
        warmup=max(1, length // 8),
        fingerprint=json.dumps(
            ["knn-lm", repr(recipe), lam, temperature, length, run.seed, source.sha256]
        ),
    )
    trained = dict(zip(map(id, optimizer.parameters), optimizer.masters, strict=True))
    after = {name: trained[id(parameter)] for name, parameter in whole.items()}
    found = changes(before, after, recipe.kept)
    return {f"lm.{name}": tensor for name, tensor in found.items()}
