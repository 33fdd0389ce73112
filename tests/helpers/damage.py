"""Damage of stored files."""

from pathlib import Path

import numpy as np


def flip(folder: Path, seed: int) -> str:
    """Flips one bit of a file below folder, chosen by the sizes; returns its name."""
    rng = np.random.default_rng(seed)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    sizes = np.array([p.stat().st_size for p in files], float)
    path = files[rng.choice(len(files), p=sizes / sizes.sum())]
    data = bytearray(path.read_bytes())
    data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
    path.write_bytes(data)
    return str(path.relative_to(folder))
