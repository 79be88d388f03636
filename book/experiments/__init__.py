"""What a chapter of the book measures once: one module a chapter, its result in `book/results`.

Run from the repository's root, as in `python -m book.experiments.rag book/results/rag.json`; the
chapters, whose folder is `book`, import `experiments`. Nothing here is part of the package.
"""
