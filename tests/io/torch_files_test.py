"""torch's files without torch: values as torch wrote them, and nothing else runs."""

import contextlib
import hashlib
import io
import os
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest

from rsclip_jax.io.torch_files import load_torch, read_torch
from tests.golden import FOLDER

ZIP, LEGACY = FOLDER / "torch_state.pt", FOLDER / "torch_legacy.pt"
SCRIPT = FOLDER / "torch_script.pt"


@pytest.mark.parametrize("path", [ZIP, LEGACY])
def test_every_dtype_and_stride_as_torch_wrote_it(golden, path):
    found, want = load_torch(path), golden("torch_state")
    assert found["epoch"] == 3
    assert found["state_dict"].keys() == want.keys()
    for name, array in found["state_dict"].items():
        if name == "bf16":
            assert array.dtype == ml_dtypes.bfloat16
            array = array.astype(np.float32)
        assert array.dtype == want[name].dtype
        np.testing.assert_array_equal(array, want[name], strict=True)


def test_a_torchscript_archive_is_its_state_dict(golden):
    found, want = load_torch(SCRIPT), golden("torch_script")
    assert found.keys() == want.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, want[name], strict=True)


def test_arrays_lie_in_the_file_and_share_it():
    state = load_torch(ZIP)["state_dict"]
    assert not any(array.flags.writeable for array in state.values())
    assert np.shares_memory(state["f32"], state["transposed"])
    assert not np.shares_memory(state["f32"], state["f64"])


def test_the_file_of_another_library(real_data):
    """Presto's weights; the digest is of torch 2.13's reading of the same file."""
    found = load_torch(real_data / "torch_files" / "presto_default_model.pt")
    digest = hashlib.sha256()
    for name in sorted(found):
        digest.update(name.encode())
        digest.update(found[name].tobytes())
    assert digest.hexdigest() == (
        "66e807fda44bb6ecfe67bec3c86fa36dab7fdecdd2d338ca8fb3cab03ef7e035"
    )


# What is refused


def archive(tmp_path, pickled: bytes, storages=(), **changes):
    """A zip as torch.save lays it out."""
    path = tmp_path / "planted.pt"
    with zipfile.ZipFile(path, "w", changes.get("compression", 0)) as file:
        file.writestr("planted/data.pkl", pickled)
        for key, raw in enumerate(storages):
            file.writestr(f"planted/data/{key}", raw)
    return path


class Calls:
    """Pickles as a call of `function` with `args`."""

    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


@pytest.mark.parametrize(
    ("function", "args", "name"),
    [
        (os.system, ("touch {marker}",), r"(posix|nt)\.system"),
        (eval, ("open('{marker}', 'w')",), r"__builtin__\.eval"),
        (
            np.ones(3).__reduce__()[0],
            (np.ndarray, (0,), b"b"),
            r"numpy\.\S+reconstruct",
        ),
        (getattr, ("", "format"), r"__builtin__\.getattr"),
    ],
)
@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_call_is_refused_by_name_and_not_made(tmp_path, function, args, name, form):
    marker = tmp_path / "ran"
    args = tuple(a.format(marker=marker) if isinstance(a, str) else a for a in args)
    pickled = pickle.dumps({"weight": Calls(function, *args)}, protocol=2)
    if form == "zip":
        path = archive(tmp_path, pickled)
    else:
        head = LEGACY.read_bytes()
        path = tmp_path / "planted.pt"
        path.write_bytes(head[: head.index(b"}q\x00(X\x0a\x00\x00\x00state")] + pickled)
    with pytest.raises(ValueError, match=rf"planted\.pt: its pickle uses .*{name}"):
        load_torch(path)
    assert not marker.exists()


def test_all_names_are_in_one_message(tmp_path):
    pickled = pickle.dumps([Calls(os.getcwd), Calls(eval, "1")], protocol=2)
    with pytest.raises(ValueError, match=r"__builtin__\.eval, posix\.getcwd"):
        load_torch(archive(tmp_path, pickled))


def test_a_later_protocol_is_refused(tmp_path):
    pickled = pickle.dumps({"a": "b"}, protocol=4)
    with pytest.raises(ValueError, match=r"uses .*SHORT_BINUNICODE.*its defaults"):
        load_torch(archive(tmp_path, pickled))


def test_a_nested_zip_is_refused(tmp_path):
    inner = io.BytesIO(ZIP.read_bytes())
    path = tmp_path / "nested.pt"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("nested/inner.pt", inner.getvalue())
    with pytest.raises(
        ValueError, match=r"nested\.pt: a zip file, but not one of torc"
    ):
        load_torch(path)


def test_a_compressed_record_is_refused(tmp_path):
    path = archive(tmp_path, bytes(10**6), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match=r"planted/data\.pkl is compressed"):
        load_torch(path)


def tensor(size: int, shape: tuple, strides: tuple, offset: int = 0) -> bytes:
    """The pickle of {"w": a float32 tensor over storage 0 of `size` elements}."""

    def put(x):
        return pickle.dumps(x, protocol=2)[2:-1]

    # pickle.dumps numbers its memo anew each time, which is of no consequence here
    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v2\n(("
        b"X\x07\x00\x00\x00storagectorch\nFloatStorage\nX\x01\x00\x00\x000"
        b"X\x03\x00\x00\x00cpu"
        + put(size)
        + b"tQ"
        + put(offset)
        + put(shape)
        + put(strides)
        + b"\x89}tRs."
    )


def test_a_tensor_as_this_test_writes_them(tmp_path):
    raw = np.arange(6, dtype=np.float32).tobytes()
    found = load_torch(archive(tmp_path, tensor(6, (2, 2), (3, 1), 1), [raw]))
    np.testing.assert_array_equal(found["w"], [[1, 2], [4, 5]])


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (tensor(6, (2, 4), (3, 1)), r"exceeds its storage of 6 elements"),
        (tensor(6, (10**9,), (0,)), r"exceeds its storage"),
        (tensor(6, (2,), (10**15,)), r"exceeds its storage"),
        (tensor(6, (3,), (1,), 4), r"exceeds its storage"),
        (tensor(6, (3,), (-1,), 4), r"a tensor of shape \(3,\), strides \(-1,\)"),
        (tensor(10**15, (2,), (1,)), r"storage '0' has 24 bytes, not 10{15} x 4"),
        (tensor(6, ("a",), (1,)), r"'a' instead of int"),
    ],
)
def test_a_tensor_outside_its_storage_is_refused(tmp_path, planted, words):
    with pytest.raises(ValueError, match=words):
        load_torch(archive(tmp_path, planted, [bytes(24)]))


def test_a_checked_tensor_cannot_be_changed_afterwards(tmp_path):
    good = tensor(6, (2,), (1,))
    change = b"}X\x05\x00\x00\x00shapeJ\xff\xff\xff\x7f\x85sb"  # BUILD {"shape": ...}
    path = archive(tmp_path, good[:-2] + change + b"s.", [bytes(24)])
    with pytest.raises(ValueError, match="damaged, or not a torch file"):
        load_torch(path)


def untyped(dtype: bytes) -> bytes:
    """The pickle of {"w": a tensor of (2, 3) over 12 bytes}, as of torch.uint16."""
    return (
        b"\x80\x02}X\x01\x00\x00\x00wctorch._utils\n_rebuild_tensor_v3\n(("
        b"X\x07\x00\x00\x00storagectorch.storage\nUntypedStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x0ctQK\x00K\x02K\x03\x86K\x03K\x01\x86"
        b"\x89}" + dtype + b"tRs."
    )


def test_a_dtype_without_a_storage_class(tmp_path):
    raw = np.array([[0, 1, 65535], [32768, 4, 5]], np.uint16)
    found = load_torch(archive(tmp_path, untyped(b"ctorch\nuint16\n"), [raw.tobytes()]))
    np.testing.assert_array_equal(found["w"], raw, strict=True)
    for dtype, words in (
        (b"K\x02", "its pickle has 2 instead of"),
        (b"ctorch\nuint64\n", "exceeds its storage of 1 elements"),
        (b"ctorch\nload\n", "uses torch.load"),
        (b"ctorch\nuint16\n}X\x05\x00\x00\x00dtypeK\x01sb", "damaged, or not a torch"),
    ):
        with pytest.raises(ValueError, match=words):
            load_torch(archive(tmp_path, untyped(dtype), [raw.tobytes()]))


def test_shared_containers_do_not_multiply(tmp_path):
    x: list = []
    for _ in range(60):  # 2**60 paths through 60 lists
        x = [x, x]
    found = load_torch(archive(tmp_path, pickle.dumps(x, protocol=2)))
    assert found[0] is found[1]


def test_shared_modules_are_counted(tmp_path):
    new = b"c__torch__\nA\n)\x81"
    out = b"\x80\x02" + new + b"}bq\x00"
    for level in range(1, 40):  # a and b are both the module before: 2**39 names
        get = b"h" + bytes([level - 1])
        out += new + b"}(X\x01\x00\x00\x00a" + get + b"X\x01\x00\x00\x00b" + get + b"ub"
        out += b"q" + bytes([level])
    with pytest.raises(ValueError, match="a module has more than"):
        load_torch(archive(tmp_path, out + b"."))


def test_a_memo_number_that_would_reserve_memory_is_refused(tmp_path):
    planted = b"\x80\x02}r\xff\xff\xff\x7f."
    with pytest.raises(ValueError, match="LONG_BINPUT 2147483647"):
        load_torch(archive(tmp_path, planted))


@pytest.mark.parametrize("path", [ZIP, LEGACY, SCRIPT])
def test_cut_and_damaged_files_are_named(tmp_path, path):
    """Cut anywhere: the file is named. Any bit changed: a ValueError, or values."""
    whole, rng = path.read_bytes(), np.random.default_rng(0)
    broken = tmp_path / "broken.pt"
    for end in rng.integers(0, len(whole), 40):
        broken.write_bytes(whole[:end])
        with pytest.raises(ValueError, match=r"broken\.pt: "):
            load_torch(broken)
    for at in rng.integers(0, len(whole), 400):
        changed = bytearray(whole)
        changed[at] ^= 1 << rng.integers(8)
        broken.write_bytes(changed)
        with contextlib.suppress(ValueError):
            load_torch(broken)


def test_what_is_no_torch_file_says_so(tmp_path):
    path = tmp_path / "page.pt"
    path.write_bytes(b"<!DOCTYPE html>\n<title>404</title>\n")
    with pytest.raises(ValueError, match=r"page\.pt: .*neither a zip archive"):
        load_torch(path)
    path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"page\.pt: the file is empty"):
        load_torch(path)


TUPLES: tuple = ()
for _ in range(10):
    TUPLES = (TUPLES, TUPLES)
NESTED = pickle.dumps(TUPLES, protocol=2)[2:-1]  # a few bytes a level


@pytest.mark.parametrize(
    ("planted", "words"),
    [
        (b"}" + NESTED + b"K\x01s.", "has a tuple of 2 as the key of a dict"),
        (b"}(" + NESTED + b"K\x01K\x02K\x03u.", "has a tuple of 2 as the key"),
        (
            b"ccollections\nOrderedDict\n]" + NESTED + b"K\x01\x86a\x85R.",
            "has a tuple of 2 as the key",
        ),
        (NESTED + b"Q.", "refers to a tuple of 2, which is not a storage"),
        (
            b"ctorch._utils\n_rebuild_tensor\n(K\x01K\x02" + NESTED + b"K\x03tR.",
            "has 3 instead of tuple",
        ),
        (
            b"ctorch._utils\n_rebuild_tensor\n(K\x01K\x02" + NESTED + b"\x85)tR.",
            r"a tensor of shape a tuple of 1, strides \(\)",
        ),
        (
            b"ctorch._utils\n_rebuild_tensor\n(K\x01K\x02" + NESTED + NESTED + b"tR.",
            "has a tuple of 2 instead of int",
        ),
    ],
)
def test_a_message_does_not_grow_with_nesting(tmp_path, planted, words):
    """A level doubles repr and hash of a tuple, and adds a few bytes to the file."""
    path = archive(tmp_path, b"\x80\x02" + planted)
    for read in (load_torch, lambda path: read_torch(path.read_bytes(), str(path))):
        with pytest.raises(ValueError, match=words) as error:
            read(path)
        assert len(str(error.value)) < 500


def test_keys_of_a_dict_are_numbers_texts_and_tuples_of_them(tmp_path):
    whole = {"a": 1, 2: "b", (3, "c"): None, 0.5: [True]}
    assert load_torch(archive(tmp_path, pickle.dumps(whole, protocol=2))) == whole
    pairs = b"\x80\x02ccollections\nOrderedDict\n](]X\x01\x00\x00\x00aaK\x07ae\x85R."
    assert load_torch(archive(tmp_path, pairs)) == {"a": 7}


def test_long_names_of_shared_modules_are_counted(tmp_path):
    new, long = b"c__torch__\nA\n)\x81", b"X\xe8\x03\x00\x00" + b"a" * 1000
    out = b"\x80\x02" + new + b"}bq\x00"
    for level in range(1, 40):
        get = b"h" + bytes([level - 1])
        one, two = long, long[:-1] + b"b"
        out += new + b"}(" + one + get + two + get + b"ubq" + bytes([level])
    with pytest.raises(ValueError, match="names have more than 16777216 letters"):
        load_torch(archive(tmp_path, out + b"."))


def test_many_names_are_cut(tmp_path):
    names = b"".join(b"cmodule%d\nname\n" % i for i in range(5000))
    with pytest.raises(ValueError, match=r"its pickle uses .*\.\.\.") as error:
        load_torch(archive(tmp_path, b"\x80\x02(" + names + b"N."))
    assert len(str(error.value)) < 1500


def test_a_record_that_is_there_twice_is_refused(tmp_path):
    path = archive(tmp_path, pickle.dumps({"a": 1}, protocol=2))
    with zipfile.ZipFile(path, "a") as file, pytest.warns(UserWarning, match="Dupl"):
        file.writestr("planted/data.pkl", pickle.dumps({"a": 2}, protocol=2))
    with pytest.raises(ValueError, match="a zip file in which a record is twice"):
        load_torch(path)


def test_a_backslash_in_a_name_is_no_escape(tmp_path):
    for name in (rb"t\x6frch", rb"tor\Kch"):
        planted = b"\x80\x02c" + name + b"\nFloatStorage\n."
        with pytest.raises(ValueError, match=r"its pickle uses to?r?\\.*FloatStorage"):
            load_torch(archive(tmp_path, planted))
