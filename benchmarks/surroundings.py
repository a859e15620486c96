"""What runs that are compared find in their environment."""

from __future__ import annotations

import os


def surroundings() -> dict[str, str]:
    """This process's, but with one thread of OpenMP's to begin with, and no word about OpenBLAS.

    Some machines state kernels of OpenBLAS (``OPENBLAS_CORETYPE``) for the sake of old versions.
    NumPy's chooses the right ones by itself.
    """
    kept = {name: it for name, it in os.environ.items() if not name.startswith("OPENBLAS_")}
    return kept | {"OMP_NUM_THREADS": "1"}
