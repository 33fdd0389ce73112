"""Weight files that are damaged, or say of themselves what cannot be."""

import json

import numpy as np
import pytest
import safetensors.numpy

from rsclip_jax.weights.files import file_digests, open_weights, shard_names

TENSOR = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def write_safetensors(path, header, body=bytes(8), length=None):
    """header: JSON as text, or what it holds; length: what is said of its length."""
    text = header if isinstance(header, str) else json.dumps(header)
    head = (len(text) if length is None else length).to_bytes(8, "little")
    path.write_bytes(head + text.encode() + body)
    return path


@pytest.mark.parametrize(
    ("header", "length", "words"),
    [
        ({"a": TENSOR}, 2**62, "header too large"),
        ({"a": TENSOR}, 90 * 2**20, "header"),
        ({"a": TENSOR}, 3, "not a whole safetensors file"),
        ("[]", None, "not a whole safetensors file"),
        ('{"a":' * 3000, None, "recursion limit"),
        ({"a": {**TENSOR, "shape": [2**40]}}, None, "not a whole safetensors file"),
        ({"a": {**TENSOR, "data_offsets": [8, 16]}}, None, "not a whole safetensors"),
    ],
)
def test_a_header_of_safetensors_that_cannot_be_is_named(
    tmp_path, header, length, words
):
    path = write_safetensors(tmp_path / "a.safetensors", header, length=length)
    with pytest.raises(ValueError, match=rf"a\.safetensors: .*{words}") as error:
        open_weights(path)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("tensor", "body", "words"),
    [
        ({"dtype": "F32", "shape": [0, 2**62], "data_offsets": [0, 0]}, b"", "too big"),
        ({**TENSOR, "shape": [1] * 70 + [2]}, bytes(8), "dimension"),
    ],
)
def test_a_tensor_that_numpy_cannot_hold_is_named_when_it_is_read(
    tmp_path, tensor, body, words
):
    path = write_safetensors(tmp_path / "a.safetensors", {"t": tensor}, body)
    with pytest.raises(ValueError, match=rf"a\.safetensors: tensor 't' .*{words}"):
        open_weights(path).read("t")


NESTED = '{"a":' * 3000
INDEX = "model.safetensors.index.json"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[]", r"holds \[\], not a JSON object"),
        ("3", "holds 3, not a JSON object"),
        ("null", "holds None, not a JSON object"),
        (NESTED, "nested too deeply"),
        ('{"weight_map": ["a"]}', "no 'weight_map' in this index"),
        ('{"weight_map": {}}', "no 'weight_map' in this index"),
        *(
            (json.dumps({"weight_map": {"a": shard}}), "is not the name of a weight f")
            for shard in (
                *(INDEX, "other.index.json", "../a.bin", "/tmp/a.bin", "deep/a.bin"),
                *(3, None, ["a.bin"], {}, "", ".", "..", ".bin/..", "a.txt", "a\0.bin"),
                *("a" * 5000 + ".bin", "a\\b.bin", "a.bin\n", "\ud800.bin"),
            )
        ),
    ],
)
def test_an_index_that_cannot_be_is_named(tmp_path, text, words):
    path = tmp_path / INDEX
    path.write_text(text)
    for read in (open_weights, shard_names, file_digests):
        with pytest.raises(ValueError, match=rf"index\.json.*{words}") as error:
            read(path)
        assert len(str(error.value)) < 500


def test_shards_beside_their_index_are_read(tmp_path):
    whole = {"a": np.arange(3.0), "b": np.arange(2)}
    for name, value in whole.items():
        safetensors.numpy.save_file({name: value}, tmp_path / f"s-{name}.safetensors")
    names = {name: f"s-{name}.safetensors" for name in whole}
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": names}))
    found = open_weights(tmp_path / INDEX)
    for name, value in whole.items():
        np.testing.assert_array_equal(found.read(name), value, strict=True)


@pytest.mark.parametrize("name", ["config.json", "open_clip_config.json"])
def test_a_config_that_is_no_object_is_named(tmp_path, name):
    safetensors.numpy.save_file({"a": np.zeros(2)}, tmp_path / "model.safetensors")
    for text, words in (("[1]", r"holds \[1\]"), (NESTED, "nested too deeply")):
        (tmp_path / name).write_text(text)
        with pytest.raises(ValueError, match=rf"{name} .*{words}"):
            open_weights(tmp_path)


def test_what_a_header_tells_is_a_json_object(tmp_path):
    path = tmp_path / "a.safetensors"
    metadata = {"good": '{"a": 1}', "list": "[1]", "cut": "{", "nested": NESTED}
    safetensors.numpy.save_file({"a": np.zeros(2)}, path, metadata)
    file = open_weights(path)
    assert file.told("good") == {"a": 1}
    assert file.told("none") is None
    for key, words in (
        ("list", r"holds \[1\], not a JSON object"),
        ("cut", "is not valid JSON"),
        ("nested", "nested too deeply"),
    ):
        with pytest.raises(ValueError, match=rf"a\.safetensors: '{key}' in .*{words}"):
            file.told(key)


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [  # the bytes of 1, -2, the largest number and the smallest, by the OCP's formats
        ("F8_E4M3", {0x38: 1.0, 0xC0: -2.0, 0x7E: 448.0, 0x01: 2.0**-9}),
        ("F8_E5M2", {0x3C: 1.0, 0xC0: -2.0, 0x7B: 57344.0, 0x01: 2.0**-16}),
    ],
)
def test_numbers_of_8_bits_are_read(tmp_path, kind, numbers):
    tensor = {"dtype": kind, "shape": [2, 2], "data_offsets": [0, 4]}
    header, body = {"__metadata__": {"a": "b"}, "a": tensor}, bytes(numbers)
    path = write_safetensors(tmp_path / "a.safetensors", header, body)
    found = open_weights(path).read("a")
    assert found.shape == (2, 2)
    assert found.astype(np.float32).ravel().tolist() == list(numbers.values())
