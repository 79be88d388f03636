"""kNN-LM as in its paper: the neighbours of a context are searched in a whole datastore.

`ragbook.methods.knn_lm.answers` answers questions from the retrieved passages, as the other methods
do; this module continues any text, and shows which stored contexts voted for the next token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from ragbook.corpus import Passage
from ragbook.errors import InputError
from ragbook.index.datastore import Datastore
from ragbook.methods.base import Evidence
from ragbook.methods.decoding import beam_search
from ragbook.methods.knn_lm.answers import interpolate, knn_log_probs, passage_mass
from ragbook.models import LanguageModel
from ragbook.models.sharing import one_at_a_time

SHOWN = 12
"""How many tokens of a neighbour's context are shown."""


@dataclass(frozen=True)
class Neighbour:
    """A stored context near the end of a text, and the token that followed it there.

    `distance` is the squared L2 distance of the two keys; `weight` is the neighbour's share of
    p_kNN. The weights of all k neighbours sum to 1.
    """

    passage: Passage
    context: str
    token: str
    distance: float
    weight: float


@dataclass(frozen=True)
class Written:
    """A continuation of a text, its log-probability in nats, and the passages whose neighbours gave
    probability to it, heaviest first; their weights sum to 1."""

    text: str
    log_prob: float
    evidence: tuple[Evidence, ...]


class OpenKnnLM:
    """A language model with a datastore.

    Parameters
    ----------
    lm: the language model that made the datastore.
    datastore: the memory.
    lam, temperature: of the interpolation.
    k: how many neighbours each context gets; all pairs where there are fewer.

    Raises
    ------
    InputError: another language model made the datastore.
    """

    def __init__(
        self,
        lm: LanguageModel,
        datastore: Datastore,
        lam: float,
        temperature: float,
        k: int = 1024,
    ) -> None:
        datastore.check_model(lm)
        self.lm, self.datastore, self.k = lm, datastore, k
        self.lam, self.temperature = lam, temperature

    def _ids(self, text: str, room: int = 0) -> list[int]:
        """The text's last tokens as the model reads them, with `room` more left in its window."""
        ids = self.lm.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise InputError("the text is empty; give it some words")
        return [self.lm.start, *ids[1 + room - self.lm.window :]]

    def _search(self, queries: Tensor) -> tuple[Tensor, np.ndarray, Tensor]:
        """(squared distances [N, k], rows [N, k], the tokens that followed int64 [N, k])."""
        distances, rows = self.datastore.search(queries.numpy(), self.k)
        values = torch.from_numpy(self.datastore.values[rows]).long()
        if (values < 0).any() or (values >= self.lm.vocab_size).any():
            raise InputError(
                f"{self.datastore.path} is damaged (a value is no token of {self.lm.name!r}); "
                "build the datastore again."
            )
        return torch.from_numpy(distances), rows, values

    @one_at_a_time
    def neighbours(self, text: str, shown: int = 10) -> list[Neighbour]:
        """The stored contexts nearest to the text's end, nearest first, at most `shown`.

        Raises
        ------
        InputError: the text is empty.
        """
        queries = self.lm.forward(torch.tensor([self._ids(text)]), last=1)[0][0]
        distances, rows, values = self._search(queries)
        weights = torch.softmax(-distances / self.temperature, -1)[0].tolist()
        decode, out = self.lm.tokenizer.decode, []
        for at in range(min(shown, rows.shape[1])):
            row = int(rows[0, at])
            number = int(self.datastore.passage_of(np.array(row)))
            begin = max(int(self.datastore.offsets[number]), row - SHOWN)
            out.append(
                Neighbour(
                    self.datastore.passages[number],
                    decode(self.datastore.values[begin:row].tolist()),
                    decode([int(values[0, at])]),
                    float(distances[0, at]),
                    weights[at],
                )
            )
        return out

    @one_at_a_time
    def write(self, text: str, length: int = 16, beams: int = 2) -> Written:
        """Continue a text by a beam search on the interpolated distribution, equation 3.

        The attention's keys and values of the text's tokens are kept between steps.

        Parameters
        ----------
        length: longest continuation in tokens.
        beams: prefixes kept.

        Raises
        ------
        InputError: the text is empty.
        """
        prompt, end = self._ids(text, length), self.lm.end
        following = self.lm.after([prompt])

        def mixed(prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
            queries, log_probs = following(prefixes, rows, parents)
            distances, _, values = self._search(queries)
            said = knn_log_probs(distances, values, self.lm.vocab_size, self.temperature)
            return interpolate(log_probs, said, self.lam)

        best = beam_search(mixed, 1, end, end, beams, length)[0][0]
        evidence = self._evidence(prompt, best.tokens)
        return Written(self.lm.tokenizer.decode(best.tokens), best.log_prob, evidence)

    def _evidence(self, prompt: Sequence[int], tokens: Sequence[int]) -> tuple[Evidence, ...]:
        ids = torch.tensor([[*prompt, *tokens[:-1]]])
        queries = self.lm.forward(ids, last=len(tokens))[0][0]
        distances, rows, values = self._search(queries)
        numbers, source = np.unique(self.datastore.passage_of(rows), return_inverse=True)
        hits = values == torch.tensor(tokens)[:, None]
        passage = torch.from_numpy(source.reshape(rows.shape))
        mass = passage_mass(distances, hits, passage, len(numbers), self.temperature)
        order = mass.argsort(descending=True, stable=True).tolist()
        passages = self.datastore.passages
        return tuple(
            Evidence(passages[int(numbers[at])].id, float(mass[at])) for at in order if mass[at] > 0
        )
