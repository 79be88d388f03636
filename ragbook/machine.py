"""What the machine can do, found without importing a heavy library."""

from __future__ import annotations

from pathlib import Path

QUICK_FLAGS = {"avx512_bf16", "amx_bf16", "bf16", "svebf16"}
"""Processor flags that stand for products of bfloat16 matrices: x86's, and ARM's."""


def multiplies_bfloat16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool | None:
    """Whether the processor multiplies bfloat16 matrices; None where the system does not say.

    One that does takes a tenth of float32's time for them, one that does not some forty times it.
    """
    try:
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
    except OSError:
        return None
    told = [line.partition(":") for line in lines]
    flags = [set(value.split()) for name, _, value in told if name.strip() in ("flags", "Features")]
    return bool(flags[0] & QUICK_FLAGS) if flags else None
