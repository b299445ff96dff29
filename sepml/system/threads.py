"""Threads of the numerical libraries: settings that they read once, when they are loaded."""

import os

# In turns of a waiting loop, some 20 to 50 microseconds. libgomp takes this number by itself where it has more threads than
# cores; otherwise it spins 300 times as long.
_SPINS = "1000"


def prepare_threads() -> None:
    """Set the environment of numerical libraries for a command; to be called before numpy and torch are imported.

    What the user has set stays. Results do not depend on it.

    - OpenBLAS gets one thread: small products dominate scoring and mixing, where its threads cost three times what they
      bring; processes fill the cores. PyTorch does not use OpenBLAS.
    - PyTorch's threads (libgomp) wait a short time for each other and then sleep. By default they spin for milliseconds at
      the end of each parallel region, and beside another busy process they take the core from the very thread that they
      wait for (`tools/bench/contention.py`).
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", _SPINS)
