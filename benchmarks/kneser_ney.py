"""The bundled language model compared with a 3-gram model on MiniWiki's held-out articles.

`python benchmarks/kneser_ney.py` counts the 3-grams of the passages that the bundled language model
was trained on, and prints the perplexity of both models on the held-out test articles, over the
same tokens of the same tokenizer.

The 3-gram model is interpolated Kneser-Ney (Chen & Goodman 1999, section 4.1.6) with one discount
for each order, n1 / (n1 + 2 n2), and a uniform distribution over the vocabulary below the unigrams.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from ragbook.corpus import miniwiki
from ragbook.evaluation.windows import windows
from ragbook.models import load_language_model
from ragbook.models.prompts import passage_text

START = -1


class KneserNey:
    """p(w | u, v), interpolated down to the uniform distribution.

    Parameters
    ----------
    texts: token ids of each training text; no 3-gram crosses from one text to the next.
    vocabulary: number of tokens in the vocabulary.
    """

    def __init__(self, texts: Sequence[Sequence[int]], vocabulary: int) -> None:
        self.vocabulary = vocabulary
        padded = [[START, START, *text] for text in texts]
        counts: list[Counter[tuple[int, ...]]] = [Counter(), Counter(), Counter()]
        for text in padded:
            counts[2].update(zip(text, text[1:], text[2:], strict=False))
        # Below the highest order a token counts once for each different context before it.
        counts[1].update(gram[1:] for gram in counts[2])
        counts[0].update(gram[1:] for gram in counts[1])
        self.counts = counts
        self.totals: list[Counter[tuple[int, ...]]] = [Counter(), Counter(), Counter()]
        self.kinds: list[Counter[tuple[int, ...]]] = [Counter(), Counter(), Counter()]
        self.discounts = []
        for order, table in enumerate(counts):
            for gram, count in table.items():
                self.totals[order][gram[:-1]] += count
                self.kinds[order][gram[:-1]] += 1
            once = sum(count == 1 for count in table.values())
            twice = sum(count == 2 for count in table.values())
            self.discounts.append(once / max(1, once + 2 * twice))

    def prob(self, context: tuple[int, ...], token: int) -> float:
        """p(token | the context's tokens, two at most)."""
        lower = self.prob(context[1:], token) if context else 1 / self.vocabulary
        order, total = len(context), self.totals[len(context)][context]
        if not total:
            return lower
        own = max(self.counts[order][(*context, token)] - self.discounts[order], 0.0)
        return (own + self.discounts[order] * self.kinds[order][context] * lower) / total


def main() -> None:
    """Print both perplexities and their ratio."""
    import torch

    lm = load_language_model()
    train = [p for a in miniwiki.articles() if a.split == "train" for p in a.passages]
    ids = [lm.tokenizer(passage_text(p), add_special_tokens=False)["input_ids"] for p in train]
    counted = KneserNey(ids, lm.model.config.vocab_size)
    trigram = neural = 0.0
    tokens = 0
    for article in miniwiki.heldout("test"):
        document = "\n".join(p.text for p in article.passages)
        words = lm.tokenizer(document, add_special_tokens=False)["input_ids"]
        history = [START, START, *words]
        for at, word in enumerate(words):
            trigram -= math.log(counted.prob((history[at], history[at + 1]), word))
        tokens += len(words)
        for window in windows(lm, document):
            log_probs = lm.forward(torch.tensor([window.ids]))[1][0, window.scored - 1 : -1]
            target = torch.tensor(window.ids[window.scored :])[:, None]
            neural -= float(log_probs.gather(1, target).double().sum())
    ours, theirs = math.exp(neural / tokens), math.exp(trigram / tokens)
    print(f"{tokens} tokens of {len(miniwiki.heldout('test'))} held-out articles")
    print(f"3-gram, Kneser-Ney  {theirs:.1f}")
    print(f"language model      {ours:.1f}   {100 * (ours / theirs - 1):+.1f} %")


if __name__ == "__main__":
    main()
