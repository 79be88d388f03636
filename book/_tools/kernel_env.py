"""The environment in which a notebook's kernel runs, the same for executing and for checking.

Quiet (no progress bars), offline, one thread, and no instruction set beyond AVX2, so that sums are
taken in the same order on every machine and a printed number comes back.

`python book/_tools/kernel_env.py COMMAND ...` runs a command in it, for what the chapters read: an
index made with other instructions differs in its vectors' last digits, and a rare passage of a
compressed one is then found or not. Only its progress bar stays.
"""

import os
import sys
from pathlib import Path

_BOOK = str(Path(__file__).resolve().parents[1])
_PATHS = [
    path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path
]

KERNEL_ENV = {
    # The solutions lie in a folder below that of `experiments` and `exercises`.
    "PYTHONPATH": os.pathsep.join(
        [*(path for path in _PATHS if path != _BOOK), _BOOK]
    ),
    "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore:IProgress not found",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",  # PyTorch's own kernels
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "AVX2",
    "PYTHONHASHSEED": "0",
}

if __name__ == "__main__":
    quiet = {
        name: value
        for name, value in KERNEL_ENV.items()
        if name != "TQDM_DISABLE"
    }
    os.execvpe(sys.argv[1], sys.argv[1:], os.environ | quiet)
