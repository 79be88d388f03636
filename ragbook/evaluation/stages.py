"""A file of measurements that is filled part by part, and taken up again where it was left."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


class Stages:
    """Results by name, in a JSON file that is written anew, whole, after each.

    Parameters
    ----------
    path: what stands in it already is not measured again.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.results: dict[str, Any] = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        )

    def get(self, name: str, measure: Callable[[], Any]) -> Any:
        """What stands under the name, measured now if nothing does."""
        if name not in self.results:
            self.results[name] = measure()
            partial = self.path.with_suffix(".partial")
            partial.write_text(json.dumps(self.results, indent=1) + "\n", encoding="utf-8")
            partial.replace(self.path)
        return self.results[name]
