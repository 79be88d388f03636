"""Chapter 10's checks: what is right passes, and plausible mistakes and what is missing do not."""

import pytest
import torch
from exercises import your_own_method as check

from ragbook.methods.base import Answer, doc_log_probs, evidence


class Titles:
    """A right method; what a mistake changes is a method of its own."""

    name, parameters = "titles", 0

    def __init__(self, retriever):
        self.retriever = retriever

    def prior(self, found):
        return doc_log_probs([found], self.retriever.score_scale)[0].exp()

    def p(self, found, title):
        mine = torch.tensor([float(p.title == title) for p in found.passages])
        return self.prior(found) * mine

    def weights(self, joint):
        return joint / joint.sum()

    def answer(self, questions, k=5):
        out = []
        for question, found in zip(questions, self.retriever.retrieve(questions, k), strict=True):
            titles = dict.fromkeys(p.title for p in found.passages)
            best = max(titles, key=lambda title: self.p(found, title).sum())
            joint = self.p(found, best)
            weights = evidence(found, self.weights(joint))
            out.append(Answer(question.text, best, float(joint.sum().log()), weights, 0.0))
        return out

    def log_prob(self, questions, answers, k=5):
        found = self.retriever.retrieve(questions, k)
        pairs = zip(found, answers, strict=True)
        return torch.stack([self.p(*pair).sum().log() for pair in pairs])


class Unscaled(Titles):
    def prior(self, found):
        return doc_log_probs([found], 1.0)[0].exp()


class BestPassageAlone(Titles):
    def p(self, found, title):
        joint = super().p(found, title)
        return joint * (joint == joint.max())


class JointAsEvidence(Titles):
    def weights(self, joint):
        return joint


class PriorAsEvidence(Titles):
    def weights(self, joint):
        return torch.full_like(joint, 1 / len(joint))


class Probability(Titles):
    def log_prob(self, questions, answers, k=5):
        return super().log_prob(questions, answers, k).exp()


class Unwritten(Titles):
    def log_prob(self, questions, answers, k=5):
        raise NotImplementedError


def weighted(counts, factor):
    weights = {name: n * factor.get(name, 1) for name, n in counts.items()}
    return {name: w / sum(weights.values()) for name, w in weights.items()}


def by_the_number_of_names(counts, factor):
    return {name: n * factor.get(name, 1) / sum(counts.values()) for name, n in counts.items()}


def of_kinds(counts, factor):
    return weighted(dict.fromkeys(counts, 1), factor)


def unwritten(*_):
    raise NotImplementedError


RIGHT = {"titles": Titles, "weighted": weighted}
WRONG = {
    "titles": (Unscaled, BestPassageAlone, JointAsEvidence, PriorAsEvidence, Probability),
    "weighted": (by_the_number_of_names, of_kinds),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_is_right_is_called_right(name, capsys):
    getattr(check, name)(RIGHT[name])
    assert capsys.readouterr().out == "Right.\n"


@pytest.mark.parametrize(("name", "wrong"), [(n, w) for n, wrongs in WRONG.items() for w in wrongs])
def test_a_mistake_gets_a_hint(name, wrong, capsys):
    getattr(check, name)(wrong)
    assert capsys.readouterr().out.startswith("Not right yet: ")


@pytest.mark.parametrize(("name", "missing"), [("titles", Unwritten), ("weighted", unwritten)])
def test_what_is_missing_is_called_so(name, missing, capsys):
    getattr(check, name)(missing)
    assert capsys.readouterr().out == "Not written yet.\n"
