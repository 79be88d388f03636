"""The passage index: build, open, search, verify."""

from ragbook.index.build import build_index
from ragbook.index.index import PassageIndex, verify

__all__ = ["PassageIndex", "build_index", "verify"]
