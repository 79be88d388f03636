"""nbval starts the notebooks' kernels, which inherit this process's environment."""

import os

from kernel_env import KERNEL_ENV

os.environ.update(KERNEL_ENV)
