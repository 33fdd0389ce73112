"""Reading a whole CLIP: seconds, and peak memory against its size in float32.

python -m tests.bench.weights [variant ...]      default: ViT-L/14

Writes random weights as safetensors float32 and as OpenAI keeps its archives (float16,
torch's zip), then reads each in a process of its own. Memory is anonymous memory, what
the process itself asked for: pages of a mapped file are the system's to take back. The
imports' own share is measured first and counted.
"""

import io
import pickle
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from pathlib import Path

import jax
import numpy as np
import safetensors.numpy

from rsclip_jax.models.clip import clip_shapes
from rsclip_jax.models.variants import VARIANTS
from rsclip_jax.weights import layouts, load_clip, rules
from tests.bench.timing import machine


def main() -> None:
    if sys.argv[1:2] == ["--read"]:
        read(Path(sys.argv[2]), sys.argv[3])
        return
    print(machine())
    for name in sys.argv[1:] or ["ViT-L/14"]:
        measure(name)


def measure(name: str) -> None:
    shapes = clip_shapes(name)
    size = 4 * sum(leaf.size for leaf in jax.tree.leaves(shapes))
    print(f"{name}: {size / 1e9:.2f} GB in float32")
    with tempfile.TemporaryDirectory() as folder:
        for file, write in (("a.safetensors", write_safetensors), ("a.pt", write_zip)):
            path = Path(folder) / file
            write(path, random_tensors(name, shapes))
            command = [sys.executable, "-m", "tests.bench.weights", "--read"]
            told = subprocess.check_output([*command, str(path), name], text=True)
            seconds, base, peak = map(float, told.split())
            print(
                f"  {file:14} {path.stat().st_size / 1e9:5.2f} GB on disk"
                f" {seconds:6.2f} s   peak {peak / 1e9:5.2f} GB"
                f" ({peak / size:.2f} x; imports {base / 1e9:.2f} GB)"
            )
            path.unlink()


def random_tensors(name: str, shapes: dict) -> dict[str, np.ndarray]:
    """Random weights under OpenAI's names."""
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.standard_normal(leaf.shape, np.float32), shapes
    )
    table, _ = layouts.find_clip_layout(["visual.conv1.weight"])
    return rules.export_names(params, table)


def write_safetensors(path: Path, tensors: dict) -> None:
    safetensors.numpy.save_file(tensors, path)


class _Reference:
    """Pickles as torch's call that rebuilds a tensor of a storage in the archive."""

    def __init__(self, key: str, array: np.ndarray):
        self.key, self.array = key, array


class _Storage:
    def __init__(self, key: str, size: int):
        self.key, self.size = key, size


class _Pickler(pickle._Pickler):  # the one in Python: it can be taught new objects
    """Writes _Reference and _Storage as torch.save writes tensors."""

    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            kind = _Global("torch", "HalfStorage")
            return ("storage", kind, obj.key, "cpu", obj.size)
        return None

    def save(self, obj, save_persistent_id=True):
        if isinstance(obj, _Global):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())
            return
        if isinstance(obj, _Reference):
            self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
            array = obj.array
            strides = tuple(s // array.itemsize for s in array.strides)
            storage = _Storage(obj.key, array.size)
            self.save((storage, 0, array.shape, strides, False, {}))
            self.write(pickle.REDUCE)
            return
        super().save(obj, save_persistent_id)


class _Global:
    def __init__(self, module: str, name: str):
        self.module, self.name = module, name


def write_zip(path: Path, tensors: dict) -> None:
    """torch's zip of a float16 state dict."""
    half = {n: np.array(a, np.float16, order="C") for n, a in tensors.items()}
    state = {n: _Reference(str(i), a) for i, (n, a) in enumerate(half.items())}
    buffer = io.BytesIO()
    _Pickler(buffer, protocol=2).dump(state)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as file:
        file.writestr("archive/data.pkl", buffer.getvalue())
        for i, array in enumerate(half.values()):
            file.writestr(f"archive/data/{i}", array.tobytes())
        file.writestr("archive/version", "3\n")


def read(path: Path, name: str) -> None:
    """Prints seconds, anonymous bytes before, and the most while it is read."""
    clip_shapes("mini")  # jax itself
    base, peak, done = anonymous(), [0], threading.Event()

    def watch():
        while not done.wait(0.005):
            peak[0] = max(peak[0], anonymous())

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    start = time.perf_counter()
    load_clip(path, VARIANTS[name])
    seconds = time.perf_counter() - start
    done.set()
    watcher.join()
    print(seconds, base, peak[0])


def anonymous() -> int:
    """Bytes of anonymous memory that this process holds (Linux)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return 1024 * int(line.split()[1])
    raise OSError("/proc/self/status has no RssAnon")


if __name__ == "__main__":
    main()
