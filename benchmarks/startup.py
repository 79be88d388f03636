"""How long a command takes to begin, compared with a bare script that loads the same weights.

`python benchmarks/startup.py [ROUNDS]` runs `import ragbook`, `ragbook --help` and `ragbook ask` to
its answer, over MiniWiki's index in `build/index` (which it builds if it is not there), each in
processes that take turns with bare ones: Python alone for the first two, and for `ask` a script
that imports torch and reads the tensors that it needs from the same safetensors.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rounds import heading, processes_in_turn, show

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


def main(rounds: int = 5) -> None:
    """Print the comparisons."""
    from ragbook.models.bundled import WEIGHTS
    from ragbook.models.embedded import minilm_path

    if not INDEX.exists():
        from ragbook.corpus import miniwiki
        from ragbook.index import build_index

        build_index(miniwiki.corpus(), INDEX, progress=False)
    python, embedded = sys.executable, str(minilm_path() / "model.safetensors")
    ours = [python, "-m", "ragbook"]
    bare = {"python": [python, "-c", "pass"]}
    small = {
        "import ragbook": [python, "-c", "import ragbook"],
        "ragbook --help": [*ours, "--help"],
    }
    heading("what begins without a model", "python")
    show(processes_in_turn(bare | small, rounds), "python")
    asked = [*ours, "ask", QUESTION, "--index", str(INDEX)]
    files = {
        "ask, RAG-Token": [f"{name}.safetensors" for name in ONE],
        "ask, all methods": sorted(path.name for path in WEIGHTS.glob("*.safetensors")),
    }
    for name, own in files.items():
        paths = [embedded, *(str(WEIGHTS / file) for file in own)]
        method = ["--method", "rag-token"] if name.endswith("RAG-Token") else []
        sides = {"torch and the weights": [python, "-c", LOAD, *paths], name: [*asked, *method]}
        heading(name, "torch and the weights")
        show(processes_in_turn(sides, rounds), "torch and the weights")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
