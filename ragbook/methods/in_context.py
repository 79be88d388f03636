"""In-context retrieval: all passages in one prompt, the best one last (Ram et al. 2023).

Today this is what is most often called RAG. Nothing is marginalised and nothing is fused: the model
reads one long text, in which every passage can attend to those before it, and continues it. Ram et
al. (section 3) put the retrieved text before the text to be continued; several passages are ordered
by their scores, with the best one nearest to the question.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ragbook.corpus import Question
from ragbook.methods.all_at_once import AllAtOnce
from ragbook.methods.base import check
from ragbook.methods.leave_one_out import check_leaves_some
from ragbook.models.generator import Memory, labels_of
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved


class InContext(AllAtOnce):
    """Answers after one prompt with all passages; evidence is the last layer's pooled attention.

    Parameters
    ----------
    reader: the generator.
    retriever: gives the passages. Those that do not fit into the model's input are left out, the
        worst first; their evidence is 0.
    beams: prefixes kept for each question; 1 is greedy decoding.
    max_length: longest answer in tokens.
    verbatim: an answer is a run of words of one of the passages.
    length_penalty: of the beam search; see `beam_search`.
    """

    name = "in-context"

    @one_at_a_time
    def leave_one_out(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        r"""How much the answer's log-likelihood falls without each passage,

        \[ \log p(y \mid x, z_1, \dots, z_n) - \log p(y \mid x, \{z_j\}_{j \ne i}). \]

        As every passage changes how those after it are read, a question is read again for each of
        its passages. A passage that the others leave no room for may find some without one of them.

        Returns
        -------
        float32 [B, n], nats, below 0 where the answer is likelier without the passage; -inf where
        a question has fewer than n passages.

        Raises
        ------
        InputError: a question has a single passage, so that nothing would be left to read.
        """
        check(questions, k)
        if not questions:
            return torch.zeros(0, 0)
        retrieved, memory = self._read(questions, k)
        check_leaves_some(retrieved)
        labels = labels_of(self.reader, answers)
        whole = self._log_prob(memory, labels)
        counts = torch.tensor([len(found.ids) for found in retrieved])
        fall = torch.full((len(questions), int(counts.max())), float("-inf"))
        for i in range(fall.shape[1]):
            rows = (counts > i).nonzero()[:, 0]
            some = rows.tolist()
            memory = self._memory(
                [questions[b] for b in some], [_without(retrieved[b], i) for b in some]
            )
            fall[rows, i] = whole[rows] - self._log_prob(memory, labels[rows])
        return fall

    def _read(self, questions: Sequence[Question], k: int) -> tuple[list[Retrieved], Memory]:
        def anew() -> tuple[list[Retrieved], Memory]:
            retrieved = self._retrieve(questions, k)
            return retrieved, self._memory(questions, retrieved)

        return self._once(id(self), questions, k, anew)

    def _memory(self, questions: Sequence[Question], retrieved: Sequence[Retrieved]) -> Memory:
        return self.reader.read_together(questions, [r.passages for r in retrieved])


def _without(found: Retrieved, i: int) -> Retrieved:
    """What was retrieved without the i-th passage."""
    return Retrieved(
        found.ids[:i] + found.ids[i + 1 :],
        np.delete(found.scores, i),
        found.passages[:i] + found.passages[i + 1 :],
    )
