"""The measurements of the book's chapters: one module for each, with its result in `book/results`.

Run them from the repository's root, as in `python -m book.experiments.rag book/results/rag.json`;
the chapters, whose folder is `book`, import `experiments`. Nothing here is part of the package.
"""
