r"""kNN-LM: a language model that looks into a memory of contexts (Khandelwal et al. 2020).

The memory holds a pair (key, value) for every token of the passages: the key \(k_i\) is the model's
representation of the context, the value \(v_i\) the token that came next. For a context with
representation \(q\) (equations 2 and 3)

\[ p_{\text{kNN}}(y \mid x) \propto
   \sum_{i:\, v_i = y} \exp\!\left(-\lVert q - k_i \rVert^2 / \tau\right),
   \]
\[ p(y \mid x) = (1 - \lambda)\, p_{\text{LM}}(y \mid x)
   + \lambda\, p_{\text{kNN}}(y \mid x). \]

To measure perplexity only the target token's probability is needed, and the k neighbours are enough
to compute it (`knn_target_log_prob`), without a distribution over the vocabulary. Their distances,
and whether each has the token, serve for every lambda, temperature and k (`grid`).

The paper searches the neighbours among all contexts. `KnnLM` answers questions from the same
passages as the other methods, so it searches among the contexts of the k retrieved passages;
`ragbook perplexity` searches among all, as the paper does.
"""

from __future__ import annotations

import itertools
import time
from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor

from ragbook.corpus import Passage, Question
from ragbook.methods.base import Answer, check, check_length, held_to, written_answer
from ragbook.methods.decoding import Hypothesis, beam_search
from ragbook.methods.leave_one_out import check_leaves_some
from ragbook.methods.remembering import Remembers
from ragbook.models import LanguageModel
from ragbook.models.sharing import one_at_a_time
from ragbook.retrieval import Retrieved, Retriever

LAMS = (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
TEMPERATURES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
"""The grid that lambda and temperature are tuned on by default."""

KEPT = 2**30
"""Bytes of passages' keys that are kept between questions, by default."""


def knn_log_probs(
    distances: Tensor, values: Tensor, vocab_size: int, temperature: float = 1.0
) -> Tensor:
    r"""log p_kNN of every token of the vocabulary (equation 2, with a temperature).

    Parameters
    ----------
    distances: [N, k], squared L2 distances of the neighbours; inf where there is no neighbour.
    values: int64 [N, k], the token that followed each neighbour.
    vocab_size: V.
    temperature: divides the distances; 1 is the paper's formula.

    Returns
    -------
    [N, V] in the dtype of `distances`; -inf where no neighbour has the token.
    """
    weights = torch.softmax(-distances / temperature, dim=-1)
    none = torch.zeros(len(distances), vocab_size, dtype=weights.dtype)
    return none.scatter_add_(1, values.long(), weights).log()


def knn_target_log_prob(
    distances: Tensor,
    hits: Tensor,
    temperature: float = 1.0,
) -> Tensor:
    """log p_kNN of one target token a row, without a distribution over the vocabulary: O(N k).

    Parameters
    ----------
    distances: [N, k], squared L2.
    hits: bool [N, k], whether the neighbour's token is the row's target.
    temperature: as in `knn_log_probs`.

    Returns
    -------
    [N]; -inf where no neighbour has the token.
    """
    log_weights = torch.log_softmax(-distances / temperature, dim=-1)
    return log_weights.masked_fill(~hits, float("-inf")).logsumexp(-1)


def knn_target_log_probs(
    distances: Tensor, hits: Tensor, temperature: float, ks: Sequence[int]
) -> Tensor:
    """`knn_target_log_prob` with the nearest neighbours only, for several k at once: O(N k).

    Parameters
    ----------
    distances, hits: as in `knn_target_log_prob`, nearest first.
    ks: numbers of nearest neighbours to use, ascending; the rest of each row is ignored.

    Returns
    -------
    [N, len(ks)]; -inf where no neighbour among the k has the token.
    """
    log_weights = -distances / temperature
    said = log_weights.masked_fill(~hits, float("-inf"))
    every = mine = distances.new_full((len(distances),), float("-inf"))
    columns = []
    for first, last in itertools.pairwise((0, *ks)):
        every = torch.logaddexp(every, log_weights[:, first:last].logsumexp(-1))
        mine = torch.logaddexp(mine, said[:, first:last].logsumexp(-1))
        columns.append(mine - every)
    return torch.stack(columns, -1)


def grid(
    lm_log_probs: Tensor,
    distances: Sequence[Tensor],
    hits: Sequence[Tensor],
    lams: Sequence[float],
    temperatures: Sequence[float],
    ks: Sequence[int],
) -> Tensor:
    """The mean log-probability of a token for every k, temperature and lambda, from cached
    neighbours: neither the model nor the search runs again.

    Parameters
    ----------
    lm_log_probs: [N], log p_LM of every target token.
    distances, hits: as in `knn_target_log_probs`, in pieces that together have N rows.
    lams, temperatures: the values to try.
    ks: the numbers of neighbours to try, ascending.

    Returns
    -------
    float64 [len(ks), len(temperatures), len(lams)], nats a token.
    """
    out = torch.empty(len(ks), len(temperatures), len(lams), dtype=torch.float64)
    for t, temperature in enumerate(temperatures):
        pieces = zip(distances, hits, strict=True)
        knn = torch.cat([knn_target_log_probs(d, h, temperature, ks) for d, h in pieces])
        for j, lam in enumerate(lams):
            mixed = interpolate(lm_log_probs[:, None], knn, lam)
            out[:, t, j] = mixed.mean(0, dtype=torch.float64)
    return out


def tune(
    lm_log_probs: Tensor,
    distances: Sequence[Tensor],
    hits: Sequence[Tensor],
    lams: Sequence[float] = LAMS,
    temperatures: Sequence[float] = TEMPERATURES,
) -> tuple[float, float, float]:
    """The best (lam, temperature) of a grid and its mean log-probability, from cached neighbours.

    Parameters
    ----------
    lm_log_probs, distances, hits, lams, temperatures: as in `grid`.

    Returns
    -------
    (lam, temperature, mean log p of a token).
    """
    k = distances[0].shape[1]
    means = grid(lm_log_probs, distances, hits, lams, temperatures, (k,))[0]
    t, j = divmod(int(means.argmax()), len(lams))
    return lams[j], temperatures[t], float(means[t, j])


def interpolate(
    lm_log_probs: Tensor,
    knn_log_probs: Tensor,
    lam: float | Tensor,
) -> Tensor:
    r"""log((1 - lam) p_LM + lam p_kNN) (equation 3), exact at lam = 0 and lam = 1.

    Parameters
    ----------
    lm_log_probs, knn_log_probs: log-probabilities of the same shape, nats; -inf is allowed.
    lam: weight of the memory in [0, 1]; a tensor is broadcast (a weight for each row, say).

    Returns
    -------
    log p(y | x), of the shape and dtype of `lm_log_probs`.
    """
    weight = torch.as_tensor(lam, dtype=lm_log_probs.dtype)
    model, memory = torch.log1p(-weight), weight.log()
    return torch.logaddexp(model + lm_log_probs, memory + knn_log_probs)


def passage_mass(
    distances: Tensor, hits: Tensor, source: Tensor, n: int, temperature: float
) -> Tensor:
    """The evidence of kNN-LM: the share of p_kNN that the neighbours from each passage gave to the
    answer's tokens, summed over the tokens. If no neighbour has one of them, it is the weight of
    all neighbours from each passage.

    Parameters
    ----------
    distances, hits: [T, k], as in `knn_target_log_prob`.
    source: int64 [k] or [T, k], which of the n passages each neighbour is from.
    n: number of passages.
    temperature: as in `knn_log_probs`.

    Returns
    -------
    [n], summing to 1.
    """
    weights = torch.softmax(-distances / temperature, dim=-1)
    said = weights * hits
    if not said.any():
        said = weights
    source = source.expand(said.shape).reshape(-1)
    mass = said.new_zeros(n).scatter_add_(0, source, said.reshape(-1))
    return mass / mass.sum()


def squared_distances(queries: Tensor, keys: Tensor) -> Tensor:
    """||q - k||^2, [N, M], from [N, d] and [M, d]; never below 0."""
    squares = queries.square().sum(1, keepdim=True) + keys.square().sum(1)
    return (squares - 2 * queries @ keys.T).clamp_min(0)


def _size(tensor: Tensor) -> int:
    """Bytes of a tensor's numbers."""
    return tensor.numel() * tensor.element_size()


class KnnLM(Remembers):
    """Answers by continuing the question, token by token, with the interpolated distribution.

    Parameters
    ----------
    lm: the language model.
    retriever: finds the passages whose contexts are the memory.
    lam, temperature: of the interpolation; the bundled values were tuned on MiniWiki's dev split.
    beams: prefixes kept for each question.
    max_length: longest answer in tokens.
    verbatim: an answer is a run of words of one of the passages.
    length_penalty: of the beam search; see `beam_search`.
    kept: bytes of passages' keys that are kept between questions; the least recently used leave
        first.
    """

    name = "knn-lm"

    def __init__(
        self,
        lm: LanguageModel,
        retriever: Retriever,
        lam: float,
        temperature: float,
        beams: int = 2,
        max_length: int = 16,
        verbatim: bool = False,
        length_penalty: float = 0.0,
        kept: int = KEPT,
    ) -> None:
        check_length(lm, max_length)
        self.length_penalty = length_penalty
        self.lm, self.retriever, self.lam, self.temperature = lm, retriever, lam, temperature
        self.beams, self.max_length, self.verbatim = beams, max_length, verbatim
        self.parameters = lm.parameters
        self._pairs: OrderedDict[Passage, tuple[Tensor, Tensor]] = OrderedDict()  # last used last
        self._kept, self._bytes = kept, 0

    def _retrieve(self, questions: Sequence[Question], k: int) -> list[Retrieved]:
        return self._once(id(self), questions, k, lambda: self.retriever.retrieve(questions, k))

    def datastore(self, retrieved: Retrieved) -> tuple[Tensor, Tensor, Tensor]:
        """The M pairs of the passages: (keys float32 [M, d], values int64 [M], which passage each
        pair is from int64 [M])."""
        new = [passage for passage in retrieved.passages if passage not in self._pairs]
        for passage, made in zip(new, self.lm.key_values(new), strict=True):
            self._pairs[passage] = made
            self._bytes += sum(map(_size, made))
        for passage in retrieved.passages:
            self._pairs.move_to_end(passage)
        pairs = [self._pairs[passage] for passage in retrieved.passages]
        while self._bytes > self._kept and len(self._pairs) > len(pairs):
            _, left = self._pairs.popitem(last=False)
            self._bytes -= sum(map(_size, left))
        source = torch.cat([torch.full((len(v),), z) for z, (_, v) in enumerate(pairs)])
        return torch.cat([k for k, _ in pairs]), torch.cat([v for _, v in pairs]), source

    def neighbours(
        self, question: Question, tokens: Sequence[int], memory: tuple[Tensor, Tensor, Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What the formula needs to score `tokens` as the answer, except lam and temperature.

        Returns
        -------
        (log p_LM [T] of each token, squared distances [T, M] to all keys, hits bool [T, M]). Of an
        answer that is longer than the model's places, T are as many tokens as it has.
        """
        keys, values, _ = memory
        prompt = self.lm.prompt_ids(question.text)
        room = None if self.lm.positions is None else max(1, self.lm.positions - len(prompt) + 1)
        target = self.lm.cut.fitting(torch.tensor([list(tokens)]), room)[0][:room]
        ids = torch.tensor([[*prompt, *target.tolist()[:-1]]])
        queries, log_probs = self.lm.forward(ids, last=len(target))
        own = log_probs[0].gather(1, target[:, None])[:, 0]
        distances = squared_distances(queries[0], keys)
        return own, distances, values[None, :] == target[:, None]

    def _mix(self, queries: Tensor, log_probs: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The interpolated distribution, log p [N, V], after contexts whose representations are
        `queries` [N, d] and whose log p_LM is `log_probs` [N, V]."""
        neighbours = knn_log_probs(
            squared_distances(queries, keys),
            values.expand(len(queries), -1),
            self.lm.vocab_size,
            self.temperature,
        )
        return interpolate(log_probs, neighbours, self.lam)

    def _score(
        self,
        question: Question,
        tokens: Sequence[int],
        memory: tuple[Tensor, Tensor, Tensor],
        n: int,
    ) -> tuple[float, Tensor]:
        """log p(tokens | question), and each passage's evidence [n]; see `passage_mass`."""
        source = memory[2]
        log_probs, distances, hits = self.neighbours(question, tokens, memory)
        own = slice(len(hits) - 1 or None)  # not the end token, which every passage has
        mass = passage_mass(distances[own], hits[own], source, n, self.temperature)
        return float(self._mixed(log_probs, distances, hits)), mass

    @one_at_a_time
    def log_prob(self, questions: Sequence[Question], answers: Sequence[str], k: int = 5) -> Tensor:
        """log p(answer | question), nats, float32 [B]."""
        check(questions, k)
        if not questions:
            return torch.zeros(0)
        out = []
        for question, found, answer in zip(
            questions, self._retrieve(questions, k), answers, strict=True
        ):
            memory, tokens = self.datastore(found), self.lm.answer_ids(answer)
            out.append(self._score(question, tokens, memory, len(found.ids))[0])
        return torch.tensor(out)

    @one_at_a_time
    def leave_one_out(
        self, questions: Sequence[Question], answers: Sequence[str], k: int = 5
    ) -> Tensor:
        """How much the answer's log-likelihood falls without each passage: log p(y | x) minus that
        with a memory that lacks the passage's pairs. The model reads question and answer once.

        Returns
        -------
        float32 [B, n], nats, below 0 where the answer is likelier without the passage; -inf where
        a question has fewer than n passages.

        Raises
        ------
        InputError: a question has a single passage, so that the memory would be empty.
        """
        check(questions, k)
        if not questions:
            return torch.zeros(0, 0)
        retrieved = self._retrieve(questions, k)
        check_leaves_some(retrieved)
        fall = torch.full((len(questions), max(len(r.ids) for r in retrieved)), float("-inf"))
        for b, (question, found, answer) in enumerate(
            zip(questions, retrieved, answers, strict=True)
        ):
            memory = self.datastore(found)
            log_probs, distances, hits = self.neighbours(
                question, self.lm.answer_ids(answer), memory
            )
            whole = self._mixed(log_probs, distances, hits)
            for z in range(len(found.ids)):
                far = distances.masked_fill(memory[2] == z, float("inf"))
                fall[b, z] = whole - self._mixed(log_probs, far, hits)
        return fall

    def _mixed(self, log_probs: Tensor, distances: Tensor, hits: Tensor) -> Tensor:
        """log p(tokens | question) from what `neighbours` gives; a pair at infinity counts for
        nothing."""
        neighbours = knn_target_log_prob(distances, hits, self.temperature)
        return interpolate(log_probs, neighbours, self.lam).sum()

    @one_at_a_time
    def answer(self, questions: Sequence[Question], k: int = 5) -> list[Answer]:
        """The best hypothesis of a beam search on the interpolated distribution."""
        check(questions, k)
        began = time.perf_counter()
        if not questions:
            return []
        retrieved = self._retrieve(questions, k)
        memories = [self.datastore(found) for found in retrieved]
        following = self.lm.key_continuation([question.text for question in questions])

        def mixed(prefixes: Tensor, rows: Tensor, parents: Tensor) -> Tensor:
            queries, log_probs = following(prefixes, rows, parents)
            out = torch.empty_like(log_probs)
            for question in rows.unique().tolist():
                mine = rows == question
                keys, values, _ = memories[question]
                out[mine] = self._mix(queries[mine], log_probs[mine], keys, values)
            return out

        end = self.lm.end
        held = held_to(self.lm, [found.passages for found in retrieved], self.verbatim)
        searched = beam_search(
            mixed,
            len(questions),
            end,
            end,
            self.beams,
            self.max_length,
            held,
            self.length_penalty,
        )
        answers = []
        for question, found, memory, (best, *_) in zip(
            questions, retrieved, memories, searched, strict=True
        ):
            log_prob, mass = self._score(question, [*best.tokens, end], memory, len(found.ids))
            scored = Hypothesis(best.tokens, log_prob, best.held, best.truncated)
            answers.append((question, scored, found, mass))
        seconds = (time.perf_counter() - began) / len(questions)
        return [written_answer(q, h, r, w, self.lm.tokenizer, seconds) for q, h, r, w in answers]
