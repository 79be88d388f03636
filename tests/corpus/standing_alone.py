"""What can be told by rule of whether a question makes sense without its passage in view.

`python -m tests.corpus.standing_alone FILE ...` prints what the rules find in files of MiniWiki, or
in all of them, and the number of questions of each kind.
"""

import re
import sys
from collections import Counter

from ragbook.corpus import Question, miniwiki

PERSONAL = {"he", "him", "his", "she", "her", "hers", "it", "its", "they", "them", "their"}
LOOSE = re.compile(
    r"\b(there|here|then|the (?:former|latter|same|other|one|two|three|place|thing|man|woman|person"
    r"|author|pair|event|story|work|passage|text|article))\b(?! (?:of|who|which|that|in|at|on|for|"
    r"by|from|to|with|between|is|are|was|were|any|a\b|be\b))"
)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:['’.][^\W_]+)*", text)


def _plain(text: str) -> str:
    words = " ".join(re.findall(r"\w+", text.lower()))
    return f" {words} "


def names(text: str) -> list[str]:
    """The words of the text that are written as names are: with a capital or a digit, apart from
    its first word."""
    return [word for word in _words(text)[1:] if word[0].isupper() or word[0].isdigit()]


def dangling(question: Question) -> list[str]:
    """The words of a question that refer to something which the question has not mentioned.

    A pronoun may refer to a name before it, to the noun of "which ..." or "what ...", to "who" in
    "who lost his ...", or to a noun phrase with an article of its own.
    """
    found = []
    all_words = _words(question.text)
    for at, word in enumerate(all_words):
        if word.lower() not in PERSONAL:
            continue
        before = all_words[:at]
        named = any(w[0].isupper() for w in before[1:])
        asked = any(
            w.lower() in ("which", "what", "whose", "many") and at - i > 1
            for i, w in enumerate(before)
        )
        who = word.lower() in ("his", "her", "their") and any(w.lower() == "who" for w in before)
        phrase = any(w.lower() in ("the", "a", "an") for w in before)
        if not (named or asked or who or phrase):
            found.append(word)
    found += LOOSE.findall(question.text)
    return found


def names_nothing(question: Question, title: str) -> bool:
    """Whether a question has neither a name nor a number nor a word of its article's title."""
    stems = {word.lower()[:4] for word in _words(title) if len(word) > 3}
    mentioned = any(word.lower()[:4] in stems for word in _words(question.text))
    return not mentioned and not names(question.text)


def main(files: list[str]) -> None:
    """Print what the rules find."""
    kinds: Counter[str] = Counter()
    for article in miniwiki.articles():
        if files and f"{article.family}.md" not in files:
            continue
        texts = {passage.id: passage.text for passage in article.passages}
        for question in article.questions:
            kinds[f"{article.split} {question.kind}"] += 1
            where = f"{article.family}.md [{question.gold_passage}] {question.text!r}"
            if not question.text.endswith("?"):
                print(f"no question mark: {where}")
            answer = _plain(question.answers[0])
            if answer not in _plain(texts[question.gold_passage or ""]):
                print(f"first answer not in the passage: {where} {question.answers[0]!r}")
            if answer in _plain(question.text) and question.kind != "two-passage":
                print(f"question holds the answer: {where} {question.answers[0]!r}")
            if loose := dangling(question):
                print(f"refers to nothing ({', '.join(loose)}): {where}")
            if question.kind in ("plain", "confusable") and names_nothing(question, article.title):
                print(f"names nothing: {where}")
    indirect = sum(n for kind, n in kinds.items() if kind.endswith(" indirect"))
    print(dict(sorted(kinds.items())))
    print(f"indirect: {indirect} of {sum(kinds.values())}")


if __name__ == "__main__":
    main(sys.argv[1:])
