"""The explorer: a stored comparison as web pages that open from the disk."""

from ragbook.explorer.pages import ASSETS, detail, index, question_id, write

__all__ = ["ASSETS", "detail", "index", "question_id", "write"]
