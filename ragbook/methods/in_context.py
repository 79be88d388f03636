"""In-context retrieval: all passages in one prompt, the best one last (Ram et al. 2023).

Today this is what is most often called RAG. Nothing is marginalised and nothing is fused: the model
reads one long text, in which every passage can attend to those before it, and continues it. Ram et
al. (section 3) put the retrieved text before the text to be continued; several passages are ordered
by their scores, with the best one nearest to the question.
"""

from __future__ import annotations

from collections.abc import Sequence

from ragbook.corpus import Question
from ragbook.methods.all_at_once import AllAtOnce
from ragbook.models.generator import Memory
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

    def _memory(self, questions: Sequence[Question], retrieved: Sequence[Retrieved]) -> Memory:
        return self.reader.read_together(questions, [r.passages for r in retrieved])
