"""Weight files, changed at random: refused by name, or read as what they say.

README.md beside this file has the counts, the longest time and the most memory.
"""

import json

import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.data.tokenizer_files import tokenize_by
from rsclip_jax.io.torch_files import load_torch
from rsclip_jax.weights.files import open_weights
from rsclip_jax.weights.told.tokenizer import read_tokenizer
from tests.golden import FOLDER
from tests.helpers import siglips
from tests.helpers.fuzz import COUNTS, check_arrays, check_changed

_DTYPES = {"F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2"}
_DTYPES |= {"I8": "i1", "U8": "u1", "U16": "u2", "U32": "u4", "U64": "u8", "BOOL": "?"}


def some(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        f"{seed}.weight": rng.normal(size=(2, 3)).astype(np.float32),
        f"{seed}.scale": rng.normal(size=()),
        f"{seed}.positions": rng.integers(2**20, 2**60, 4),
        f"{seed}.half": rng.normal(size=(3, 2)).astype(np.float16),
    }


def read_tensors(path) -> dict[str, np.ndarray]:
    file = open_weights(path)
    return {name: np.array(file.read(name)) for name in file.shapes}


def read_arrays(path) -> dict[str, np.ndarray]:
    """The arrays of a torch file, wherever they are in it."""
    found: dict[str, np.ndarray] = {}
    pending = [("", load_torch(path))]
    while pending:
        name, value = pending.pop()
        if isinstance(value, np.ndarray):
            found[name] = np.array(value)
        if isinstance(value, dict):
            pending += [(f"{name}.{key}", x) for key, x in value.items()]
        if isinstance(value, list | tuple):
            pending += [(f"{name}.{i}", x) for i, x in enumerate(value)]
    return found


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("name", ["torch_state", "torch_script", "torch_legacy"])
def test_files_of_torch(tmp_path, name, count):
    golden = FOLDER / f"{name}.pt"
    whole, form = golden.read_bytes(), name.removeprefix("torch_")
    check = check_arrays(whole, read_arrays(golden))
    path = tmp_path / "changed.pt"
    check_changed(f"torch, {form}", path, whole, read_arrays, check, count)


def as_the_header_says(data: bytes) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, by its documentation."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    header.pop("__metadata__", None)
    found = {}
    for name, told in header.items():
        first, last = told["data_offsets"]
        raw = data[end + first : end + last]
        array = np.frombuffer(raw, f"<{_DTYPES[told['dtype']]}")
        found[name] = array.reshape(told["shape"])
    return found


@pytest.mark.parametrize("count", COUNTS)
def test_files_of_safetensors(tmp_path, count):
    whole = safetensors.numpy.save(some(), {"format": "np"})

    def check(found, data):
        want = as_the_header_says(data)
        assert found.keys() == want.keys()
        for name, array in want.items():
            assert found[name].shape == array.shape
            assert found[name].tobytes() == array.tobytes()

    path = tmp_path / "changed.safetensors"
    check_changed("safetensors", path, whole, read_tensors, check, count)


@pytest.mark.parametrize("count", COUNTS)
def test_tokenizers(tmp_path, count):
    told = {"tokenizer_class": "T5Tokenizer", "pad_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(told))

    def read(path):
        found = read_tokenizer(path.parent)
        try:
            return tokenize_by(found, ["a river", "harbour!"], 64)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    def check(found, data):
        assert found.shape == (2, 64)

    path, whole = tmp_path / "tokenizer.json", siglips.tokenizer_json().encode()
    check_changed("tokenizer.json", path, whole, read, check, count)


@pytest.mark.parametrize("count", COUNTS)
def test_indices_of_shards(tmp_path, count):
    arrays, where = {}, {}
    for seed in range(2):
        shard = f"model-{seed}.safetensors"
        safetensors.numpy.save_file(some(seed), tmp_path / shard)
        arrays |= some(seed)
        where |= dict.fromkeys(some(seed), shard)
    index = {"metadata": {"total_size": 164}, "weight_map": where}

    def check(found, data):
        assert found.keys() <= arrays.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, arrays[name], strict=True)

    path, whole = tmp_path / "model.safetensors.index.json", json.dumps(index).encode()
    check_changed("index.json", path, whole, read_tensors, check, count)
