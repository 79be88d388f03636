"""What the machine can do, found out without importing a large library."""

from __future__ import annotations

import os
import platform
import re
from importlib import util
from pathlib import Path

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "float32", "bfloat16", "float16")
"""What `--device` and `--precision` may be; `ragbook.models.devices` says what they mean."""

QUICK_FLAGS = {"amx_bf16", "bf16", "svebf16"}
"""Processor flags that stand for quick products of bfloat16 matrices: x86's, and ARM's."""

DOUBLING_FLAG = "avx512_bf16"
"""x86's instruction for the same without a matrix unit: on AMD's processors it does twice the work
of float32's, on Intel's half of it (measured on a Xeon of 2023 whose matrix unit was switched off:
82 and 150 GFLOP/s, and a step of `ragbook train reader` took 1.5 times as long)."""


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the processor multiplies bfloat16 matrices faster than float32 ones; None where the
    system does not say.

    With a matrix unit they take a tenth of float32's time; where there are no instructions for
    them, some forty times as long.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    told: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        told.setdefault(name.strip(), value.strip())  # of the first core
    flags = told.get("flags", told.get("Features"))
    if flags is None:
        return None
    found = set(flags.split())
    doubles = DOUBLING_FLAG in found and told.get("vendor_id") != "GenuineIntel"
    return doubles or bool(found & QUICK_FLAGS)


def gpus(dev: Path = Path("/dev")) -> list[str]:
    """The device files of GPUs, whether or not torch can use them: `nvidia0`, ... of NVIDIA's,
    `kfd` of AMD's, `dxg` of those that Windows lends to its Linux."""
    found = [path.name for path in dev.glob("nvidia[0-9]*")]
    return sorted(found) + [name for name in ("kfd", "dxg") if (dev / name).exists()]


def torch_backend() -> str:
    """What the installed torch was built to compute on: `cuda` (AMD's GPUs included), `mps`, or
    `cpu` for nothing else. Its file of versions is read; torch is not imported."""
    spec = util.find_spec("torch")
    if spec is None or spec.origin is None:
        return "cpu"
    if platform.system() == "Darwin" and platform.machine() == "arm64":
        return "mps"
    try:
        said = (Path(spec.origin).parent / "version.py").read_text(encoding="utf-8")
    except OSError:
        return "cpu"
    return "cuda" if re.search(r"^(?:cuda|hip)\b[^=\n]*=\s*['\"]", said, re.MULTILINE) else "cpu"


def auto_device() -> str:
    """What `--device auto` will choose, as far as it is known without torch and a GPU's driver:
    `cuda`, `mps` or `cpu`."""
    backend = torch_backend()
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES", "all").strip() in ("", "-1")
    return "cpu" if backend == "cuda" and (hidden or not gpus()) else backend
