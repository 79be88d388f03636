"""How long a command takes to begin, compared with a bare script that loads the same weights.

`python benchmarks/startup.py` runs `import ragbook`, `ragbook --help` and `ragbook ask` to its
answer, over MiniWiki's index in `build/index` (which it builds if it is not there), each in
processes that take turns with bare ones: Python alone for the first two, and for `ask` a script
that imports torch and reads the tensors that it needs from the same safetensors. `--store FILE`
keeps the comparisons as sections `start-...`.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from rounds import compare, keep, options

INDEX = Path("build/index")
QUESTION = "Who painted the Mona Lisa?"
ONE = ("encoder", "decoder", "rag-token")  # the files of RAG-Token
LOAD = """
import sys
import torch
from safetensors.torch import load_file
for path in sys.argv[1:]:
    for tensor in load_file(path).values():
        tensor.float().sum()  # read from the disk
"""


def main() -> None:
    """Print the comparisons, and store them if asked."""
    from ragbook.models.bundled import WEIGHTS
    from ragbook.models.embedded import minilm_path

    if not INDEX.exists():
        from ragbook.corpus import miniwiki
        from ragbook.index import build_index

        build_index(miniwiki.corpus(), INDEX, progress=False)
    python, embedded = sys.executable, str(minilm_path() / "model.safetensors")
    ours = [python, "-m", "ragbook"]
    store, _ = options()
    small = {
        "import": ("import ragbook", [python, "-c", "import ragbook"]),
        "help": ("ragbook --help", [*ours, "--help"]),
    }
    for name, (what, command) in small.items():
        sides = {"Python alone": [python, "-c", "pass"], "ragbook": command}
        keep(store, f"start-{name}", compare(what, sides))
    asked = [*ours, "ask", QUESTION, "--index", str(INDEX)]
    files = {
        "one-method": [f"{name}.safetensors" for name in ONE],
        "all-methods": sorted(path.name for path in WEIGHTS.glob("*.safetensors")),
    }
    for name, own in files.items():
        paths = [embedded, *(str(WEIGHTS / file) for file in own)]
        method = ["--method", "rag-token"] if name == "one-method" else []
        bare = [python, "-c", LOAD, *paths]
        what = shlex.join(["ragbook", "ask", QUESTION, *method])
        sides = {"a script that loads the weights": bare, "ragbook": [*asked, *method]}
        keep(store, f"start-{name}", compare(what, sides))


if __name__ == "__main__":
    main()
