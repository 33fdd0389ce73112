"""WebDatasets in the layouts of CLIP_benchmark and Zavras et al., written here."""

import gzip
import io
import os
import pickle
import shutil
import tarfile
import threading
import zipfile

import numpy as np
import pytest
from PIL import Image

from configs import inspect, pack
from rsclip_jax.data.datasets import get_dataset, open_source
from rsclip_jax.data.readers.folders import hash_percent
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.specs import DatasetSpec
from rsclip_jax.main import run_stages
from tests.golden import FOLDER
from tests.helpers.runs import make_run
from tests.helpers.tars import write_tar

NAMES = ("annual crop land", "forest", "river")
TEMPLATES = ("a satellite photo of {c}.", "an image of the {c}.")
STORAGES = {"int16": "Short", "float32": "Float", "float16": "Half", "int64": "Long"}


def put(x) -> bytes:
    return pickle.dumps(x, protocol=2)[2:-1]


def torch_bytes(array: np.ndarray) -> bytes:
    """A tensor as torch.save writes it; tests/io/torch_files_test.py reads torch's."""
    strides = tuple(s // array.itemsize for s in np.ascontiguousarray(array).strides)
    pickled = (
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage"
        + f"ctorch\n{STORAGES[array.dtype.name]}Storage\n".encode()
        + b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpu"
        + put(array.size)
        + b"tQ"
        + put(0)
        + put(array.shape)
        + put(strides)
        + b"\x89ccollections\nOrderedDict\n)RtR."
    )
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickled)
        file.writestr("archive/data/0", array.tobytes())
    return out.getvalue()


def image_bytes(pixels: np.ndarray, form: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, form, lossless=True)  # only WebP heeds it
    return out.getvalue()


def write_texts(folder, classnames=NAMES, templates=TEMPLATES):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "classnames.txt").write_text("\n".join(classnames) + "\n")
    path = folder / "zeroshot_classification_templates.txt"
    path.write_text("\n".join(templates) + "\n")


def write_split(folder, shards):
    """shards: for each tar, {member: bytes}; with the two counts beside."""
    folder.mkdir(parents=True)
    for i, members in enumerate(shards):
        write_tar(folder / f"{i}.tar", members)
    keys = [{name.split(".")[0] for name in members} for members in shards]
    (folder / "nshards.txt").write_text(f"{len(shards)}\n")
    (folder / "nsamples.txt").write_text(str(sum(map(len, keys))))


PIXELS = np.random.default_rng(0).integers(0, 256, (40, 8, 8, 3), np.uint8)


def photo_shards(first, counts, form="webp"):
    shards, at = [], first
    for count in counts:
        members = {}
        for i in range(at, at + count):
            members[f"s{i:07d}.cls"] = str(i % 3).encode()
            members[f"s{i:07d}.{form}"] = image_bytes(PIXELS[i], form)
        shards.append(members)
        at += count
    return shards


@pytest.fixture
def photos(tmp_path):
    """wds:sets/wds_eurosat: 20 training images in three tars, 10 test images in one."""
    folder = tmp_path / "sets" / "wds_eurosat"
    write_texts(folder)
    write_split(folder / "train", photo_shards(0, (8, 8, 4)))
    write_split(folder / "test", photo_shards(20, (10,)))
    return folder


PHOTOS = "wds:sets/wds_eurosat"


def test_photographs_labels_names_and_templates(photos, tmp_path):
    source = open_source(PHOTOS, tmp_path, "train")
    dataset = source.dataset
    assert (dataset.name, dataset.task, dataset.sensors) == (
        PHOTOS,
        "single",
        {"rgb": "rgb"},
    )
    assert (dataset.classnames, dataset.templates) == (NAMES, TEMPLATES)
    assert len(source) == 20
    assert source.ids[:2] == ["train/0/s0000000", "train/0/s0000001"]
    assert source.ids[-1] == "train/2/s0000019"
    for i in (0, 9, 19):
        np.testing.assert_array_equal(source[i]["rgb"], PIXELS[i])
        assert source[i]["label"] == i % 3
        assert source[i]["id"] == source.ids[i]
    test = open_source(PHOTOS, tmp_path, "test")
    np.testing.assert_array_equal(test[-1]["rgb"], PIXELS[29])
    assert open_source(PHOTOS, tmp_path).ids == [*source.ids, *test.ids]
    assert set(source.read(3, ())) == {"id", "label"}
    with pytest.raises(IndexError):
        source[20]


def test_parts_are_by_hash_and_a_missing_split_is_named(photos, tmp_path):
    part = open_source(PHOTOS, tmp_path, "train[:50%]").ids
    whole = open_source(PHOTOS, tmp_path, "train").ids
    assert part == [x for x in whole if hash_percent(x.removeprefix("train/")) < 50]
    assert 0 < len(part) < 20
    assert set(open_source(PHOTOS, tmp_path, "train[50%:]").ids) == {*whole} - {*part}
    with pytest.raises(FileNotFoundError, match="no split 'val'; it has train, test"):
        open_source(PHOTOS, tmp_path, "val")


def test_tars_without_split_folders_are_split_by_hash(tmp_path):
    write_split(tmp_path / "flat", photo_shards(0, (30,)))
    write_texts(tmp_path / "flat")
    splits = [open_source("wds:flat", tmp_path, s) for s in ("train", "val", "test")]
    ids = [id_ for source in splits for id_ in source.ids]
    assert sorted(ids) == open_source("wds:flat", tmp_path).ids
    assert splits[0].ids == [x for x in sorted(ids) if hash_percent(x) < 70]


def test_a_source_pickles_and_serves_threads(photos, tmp_path):
    source = pickle.loads(pickle.dumps(open_source(PHOTOS, tmp_path, "train")))
    wrong = []

    def read(seed):
        for i in np.random.default_rng(seed).integers(0, 20, 60).tolist():
            if not np.array_equal(source[i]["rgb"], PIXELS[i]):
                wrong.append(i)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# Sentinel-2


def patch(bands, dtype="int16", seed=0):
    rng = np.random.default_rng(seed)
    return rng.integers(100, 9000, (bands, 6, 6)).astype(dtype)


def hot(*indices, count=5, dtype="float32"):
    out = np.zeros(count, dtype)
    out[list(indices)] = 1
    return out


def s2_members(arrays, labels):
    members = {}
    for i, (array, label) in enumerate(zip(arrays, labels, strict=True)):
        members[f"p{i}.s2_patch.pth"] = torch_bytes(array)
        members[f"p{i}.labels_5.pth"] = torch_bytes(label)
    return members


def write_bands(folder):
    """The order of 12 bands, which a file must state."""
    (folder / "bands.txt").write_text("\n".join(SENSORS["s2_l2a"].bands))


@pytest.fixture
def patches(tmp_path):
    """wds:ben: two patches of 12 bands with five classes."""
    folder = tmp_path / "ben"
    write_texts(folder, "abcde")
    write_bands(folder)
    members = s2_members([patch(12), patch(12, "float32", 1)], [hot(1), hot(0, 4)])
    write_split(folder / "train", [members])
    return folder


def test_patches_of_12_bands_are_l2a_with_an_rgb_composite(patches, tmp_path):
    source = open_source("wds:ben", tmp_path, "train")
    assert source.dataset.sensors == {"rgb": "rgb", "s2": "s2_l2a"}
    for i, dtype in enumerate(("int16", "float32")):
        want, record = patch(12, dtype, i).transpose(1, 2, 0), source[i]
        assert record["s2"].dtype == np.uint16
        np.testing.assert_array_equal(record["s2"], want)
        # Zavras et al.: bands 3, 2, 1 are red, green, blue; 2000 is white
        rgb = np.floor(np.clip(want[..., [3, 2, 1]] / 2000, 0, 1) * 255 + 0.5)
        np.testing.assert_array_equal(record["rgb"], rgb)
    assert source[1]["label"].tolist() == [1, 0, 0, 0, 1]
    assert source[1]["label"].dtype == np.uint8
    assert set(source.read(0, ("rgb",))) == {"id", "label", "rgb"}


@pytest.mark.parametrize("value", [np.nan, 0])
def test_a_few_missing_pixels_are_filled_if_allowed(tmp_path, value):
    array = patch(12, "float32", 1)
    array[:, 2, 3] = value  # NaN, or nodata of all bands
    array[4, 0, 0] = 0  # dark, and there in other bands
    write_texts(tmp_path / "ben", "abcde")
    write_bands(tmp_path / "ben")
    write_split(tmp_path / "ben" / "train", [s2_members([array], [hot(1)])])
    if np.isnan(value):
        with pytest.raises(ValueError, match=r"2\.78 % .*NaN or infinite"):
            open_source("wds:ben", tmp_path)[0]
    few = open_source("wds:ben", tmp_path, max_nodata=0.01)
    with pytest.raises(ValueError, match=r"p0: 2\.78 %.*allows 1 %"):
        few[0]
    s2 = open_source("wds:ben", tmp_path, max_nodata=0.05)[0]["s2"]
    want = array.reshape(12, -1).copy()
    there = np.delete(want, 2 * 6 + 3, axis=1)
    want[:, 2 * 6 + 3] = np.median(there, axis=1)
    np.testing.assert_array_equal(s2, want.reshape(12, 6, 6).transpose(1, 2, 0))


def test_patches_of_13_bands_are_l1c_and_their_order_can_be_set(tmp_path):
    folder = tmp_path / "ms"
    write_texts(folder)
    members = {"a.s2_patch.pth": torch_bytes(patch(13)), "a..cls": b"2"}
    write_split(folder / "test", [members])
    record = open_source("wds:ms", tmp_path)[0]
    assert record["label"] == 2
    np.testing.assert_array_equal(record["s2"], patch(13).transpose(1, 2, 0))
    bands = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split()
    (folder / "bands.txt").write_text("\n".join(bands))
    record = open_source("wds:ms", tmp_path)[0]
    for i, band in enumerate(SENSORS["s2_l1c"].bands):
        np.testing.assert_array_equal(
            record["s2"][..., i], patch(13)[bands.index(band)], err_msg=band
        )
    (folder / "bands.txt").write_text("\n".join(bands[1:]))
    with pytest.raises(ValueError, match=r"bands\.txt: .* are not the bands"):
        open_source("wds:ms", tmp_path)


def test_12_bands_without_their_order_are_refused(patches, tmp_path):
    bands = list(reversed(SENSORS["s2_l2a"].bands))
    (patches / "bands.txt").write_bytes(MARK + "\r\n".join(bands).encode())
    want = patch(12).transpose(1, 2, 0)[..., ::-1]
    np.testing.assert_array_equal(open_source("wds:ben", tmp_path)[0]["s2"], want)
    (patches / "bands.txt").unlink()
    words = (
        r"bands\.txt is missing, .* 12 bands of .*0\.tar: .*: B01 B02 .* B11 B12, if"
    )
    with pytest.raises(FileNotFoundError, match=words):
        open_source("wds:ben", tmp_path)


@pytest.mark.parametrize("width", [1, 5, 6])
def test_tars_may_be_numbered_with_zeros(photos, tmp_path, width):
    wanted = open_source(PHOTOS, tmp_path, "train")
    before = [record["rgb"] for record in wanted]
    for path in (photos / "train").glob("*.tar"):
        path.rename(path.with_name(f"{int(path.stem):0{width}d}.tar"))
    source = open_source(PHOTOS, tmp_path, "train")
    np.testing.assert_array_equal([record["rgb"] for record in source], before)
    (photos / "train" / f"{1:0{width}d}.tar").rename(photos / "lost.tar")
    with pytest.raises(
        FileNotFoundError, match=rf"but {1:0{width}d}\.tar \(1\) do not"
    ):
        open_source(PHOTOS, tmp_path, "train")


def test_files_that_macos_adds_are_no_samples(tmp_path):
    (shard,) = photo_shards(0, (3,))
    added = {}
    for name, data in shard.items():
        added |= {f"._{name}": b"Mac OS X", name: data}
    write_texts(tmp_path / "set")
    write_split(tmp_path / "set" / "test", [shard])
    want = list(open_source("wds:set", tmp_path, "test"))
    write_tar(tmp_path / "set" / "test" / "0.tar", added)
    found = list(open_source("wds:set", tmp_path, "test"))
    assert [r["id"] for r in found] == [r["id"] for r in want]
    for one, other in zip(found, want, strict=True):
        np.testing.assert_array_equal(one["rgb"], other["rgb"])


def test_two_tars_of_one_number_are_refused(photos, tmp_path):
    (photos / "train" / "00001.tar").write_bytes(b"")
    with pytest.raises(ValueError, match=r"00001\.tar and 1\.tar have the same number"):
        open_source(PHOTOS, tmp_path, "train")


@pytest.mark.parametrize("between", [False, True])
def test_a_key_that_occurs_twice_is_refused(tmp_path, capsys, between):
    """Also side by side, where one sample would hide the other."""
    write_texts(tmp_path / "a")
    folder = tmp_path / "a" / "test"
    folder.mkdir()
    keys = ["k", "other", "k"] if between else ["k", "k", "other"]
    with tarfile.open(folder / "0.tar", "w") as tar:
        for i, key in enumerate(keys):
            for end, data in (("png", image_bytes(PIXELS[i], "png")), ("cls", b"1")):
                info = tarfile.TarInfo(f"{key}.{end}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    (folder / "nshards.txt").write_text("1")
    with pytest.raises(ValueError, match=r"0\.tar: the key 'k' occurs twice"):
        open_source("wds:a", tmp_path)
    source = open_source("wds:a", tmp_path, on_error="skip")
    assert sorted(source.ids) == ["test/0/k", "test/0/other"]
    first = source.ids.index("test/0/k")
    np.testing.assert_array_equal(source[first]["rgb"], PIXELS[0])
    assert "occurs twice" in capsys.readouterr().out


MARK = b"\xef\xbb\xbf"


def test_texts_with_a_byte_order_mark_are_read(photos, tmp_path):
    before = open_source(PHOTOS, tmp_path, "train").dataset
    for path in photos.rglob("*.txt"):
        path.write_bytes(MARK + path.read_bytes().replace(b"\n", b"\r\n") + b"\r\n")
    assert open_source(PHOTOS, tmp_path, "train").dataset == before


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["a", "", "b"], "line 2 is empty, so it names no class"),
        (["", "a", "b"], "line 1 is empty, so it names no class"),
        (["a", "b", "a"], "lines 1 and 3 are both 'a'"),
    ],
)
def test_class_names_that_shift_or_repeat_are_refused(photos, tmp_path, lines, words):
    (photos / "classnames.txt").write_text("\n".join(lines))
    with pytest.raises(ValueError, match=rf"classnames\.txt: {words}"):
        open_source(PHOTOS, tmp_path, "train")


def test_eurosats_band_order_is_detected(tmp_path, real_data):
    """Its real 13-band files, as they are, and with B8A where SENSORS has it."""
    source = open_source("eurosat_ms", real_data)
    order = SENSORS["s2_l1c"].bands
    bands = "B01 B02 B03 B04 B05 B06 B07 B08 B09 B10 B11 B12 B8A".split()
    for i in range(0, 140, 10):
        want = source[i]["s2"].astype(np.int16)
        file = np.stack([want[..., order.index(band)] for band in bands])
        for name, array in (("as_is", file), ("moved", want.transpose(2, 0, 1))):
            folder = tmp_path / f"{name}_{i}"
            write_texts(folder)
            data = torch_bytes(np.ascontiguousarray(array))
            write_split(folder / "test", [{"a.s2_patch.pth": data, "a.cls": b"0"}])
        with pytest.raises(ValueError, match=r"B8A is last. Write .*bands\.txt"):
            open_source(f"wds:as_is_{i}", tmp_path)
        (tmp_path / f"as_is_{i}" / "bands.txt").write_text("\n".join(bands))
        for name in ("as_is", "moved"):
            found = open_source(f"wds:{name}_{i}", tmp_path)[0]["s2"]
            np.testing.assert_array_equal(found, source[i]["s2"])


def test_a_tar_written_by_webdataset_and_torch(tmp_path, golden):
    """tests/golden/make_wds.py wrote one dtype per sample, including uint16."""
    folder = tmp_path / "torch"
    write_texts(folder, [f"class {i}" for i in range(19)])
    write_bands(folder)
    (folder / "train").mkdir()
    shutil.copy(FOLDER / "wds_torch.tar", folder / "train" / "0.tar")
    (folder / "train" / "nshards.txt").write_text("1")
    with pytest.raises(ValueError, match="has the labels cls, labels_19, labels_5; ch"):
        open_source("wds:torch", tmp_path)
    source = open_source("wds:torch#labels_19", tmp_path)
    want = golden("wds_torch")
    for i in range(4):
        found = source[i]["s2"].transpose(2, 0, 1)
        np.testing.assert_array_equal(found, want[f"patch_{i}"])
        np.testing.assert_array_equal(source[i]["label"], want[f"labels_{i}"])
    (folder / "classnames_5.txt").write_text("a\nb\nc\nd\ne\n")
    five = open_source("wds:torch#labels_5", tmp_path)
    assert five.dataset.classes == tuple("abcde")
    np.testing.assert_array_equal(five[2]["label"], want["labels_2"][:5])
    assert open_source("wds:torch#cls", tmp_path)[3]["label"] == 3
    with pytest.raises(
        ValueError, match="no 'labels_10'; its labels are cls, labels_19"
    ):
        open_source("wds:torch#labels_10", tmp_path)


def test_captions_are_the_lines_of_a_text(tmp_path):
    text = b"a river\n\n two boats \n"
    members = {"a.jpg": image_bytes(PIXELS[0], "jpeg"), "a.txt": text}
    write_split(tmp_path / "caps" / "test", [members])
    source = open_source("wds:caps", tmp_path, "test")
    assert source.dataset.task == "captions"
    assert source[0]["captions"] == ("a river", "two boats")
    assert source[0]["rgb"].shape == (8, 8, 3)


# Faults


def rewrite(path, change):
    """Changes a tar's only sample without changing the counts beside it."""
    shard = path / "train" / "0.tar"
    members = {}
    with tarfile.open(shard) as tar:
        for member in tar:
            members[member.name] = tar.extractfile(member).read()
    change(members)
    write_tar(shard, members)


def test_a_cut_tar_is_named_and_read_up_to_the_cut(photos, tmp_path, capsys):
    path = photos / "train" / "2.tar"
    whole = path.read_bytes()
    path.write_bytes(whole[:4500])
    words = r"train/2\.tar: cut short: it ends at byte 4,500, but .* at byte .*; fetch"
    with pytest.raises(ValueError, match=words) as error:
        open_source(PHOTOS, tmp_path, "train")
    assert "on_error='skip' leaves" in str(error.value)
    source = open_source(PHOTOS, tmp_path, "train", on_error="skip")
    assert 16 <= len(source) < 20
    for i in range(len(source)):
        np.testing.assert_array_equal(source[i]["rgb"], PIXELS[i])
    assert "warning: " in capsys.readouterr().out


def test_a_tar_cut_in_its_first_sample_is_called_cut(photos, tmp_path):
    path = photos / "test" / "0.tar"
    path.write_bytes(path.read_bytes()[:2000])  # after s0000020.cls
    with pytest.raises(
        ValueError, match=r"test/0\.tar: cut short: it ends at byte 2,0"
    ):
        open_source(PHOTOS, tmp_path, "train")


def test_a_sample_without_a_member_is_named_or_left_out(photos, tmp_path, capsys):
    rewrite(photos, lambda members: members.pop("s0000003.cls"))
    words = r"0\.tar: sample 's0000003' has no cls, only webp"
    with pytest.raises(ValueError, match=words):
        open_source(PHOTOS, tmp_path, "train")
    source = open_source(PHOTOS, tmp_path, "train", on_error="skip")
    assert len(source) == 19
    assert "s0000003" in capsys.readouterr().out
    np.testing.assert_array_equal(source[3]["rgb"], PIXELS[4])


def test_counts_that_disagree_are_named(photos, tmp_path):
    (photos / "train" / "nsamples.txt").write_text("21")
    words = r"nsamples\.txt says 21 samples, but its tars hold 20"
    with pytest.raises(ValueError, match=words):
        open_source(PHOTOS, tmp_path, "train")
    (photos / "train" / "nsamples.txt").unlink()  # CLIP_benchmark writes none
    assert len(open_source(PHOTOS, tmp_path, "train")) == 20
    (photos / "train" / "nshards.txt").write_text("4")
    with pytest.raises(FileNotFoundError, match=r"says 4 tars, but 3\.tar \(1\) do"):
        open_source(PHOTOS, tmp_path, "train")
    (photos / "train" / "nshards.txt").write_text("2")
    with pytest.raises(ValueError, match=r"says 2 tars, but 2\.tar are there, too"):
        open_source(PHOTOS, tmp_path, "train")
    (photos / "train" / "nshards.txt").write_text("three")
    with pytest.raises(ValueError, match=r"nshards\.txt: 'three' is not the number of"):
        open_source(PHOTOS, tmp_path, "train")


@pytest.mark.parametrize(
    "name",
    ["classnames.txt", "zeroshot_classification_templates.txt", "train/nshards.txt"],
)
def test_the_error_for_a_missing_file_says_what_to_write(photos, tmp_path, name):
    (photos / name).unlink()
    with pytest.raises(FileNotFoundError, match=rf"{name} is missing; write "):
        open_source(PHOTOS, tmp_path, "train")


def test_a_folder_that_is_not_a_webdataset_is_refused(photos, tmp_path):
    with pytest.raises(FileNotFoundError, match="holds none of sets/eurosat, where"):
        open_source("wds:sets/eurosat", tmp_path)
    with pytest.raises(FileNotFoundError, match="to the folder that holds sets/wds"):
        open_source(PHOTOS)
    with pytest.raises(
        FileNotFoundError, match=r"sets: no train, val or test with 0\."
    ):
        open_source("wds:sets", tmp_path)
    path = photos / "zeroshot_classification_templates.txt"
    path.write_text("a photo of {}.\n")
    with pytest.raises(ValueError, match=r"template 'a photo of \{\}\.' has no \{c\}"):
        open_source(PHOTOS, tmp_path)
    write_split(tmp_path / "sound" / "test", [{"a.wav": b"x", "a.cls": b"0"}])
    with pytest.raises(ValueError, match=r"'a', has the members wav, cls, but neither"):
        open_source("wds:sound", tmp_path)


@pytest.mark.parametrize(("end", "kept"), [("tar.gz", 0), ("tgz", 0), ("tar.gz", 1)])
def test_the_error_for_compressed_tars_has_the_command_that_unpacks_them(
    photos, tmp_path, end, kept
):
    count = len(open_source(PHOTOS, tmp_path, "train"))
    for path in sorted((photos / "train").glob("*.tar"))[kept:]:
        with gzip.open(path.with_suffix(f".{end}"), "wb") as file:
            file.write(path.read_bytes())
        path.unlink()
    with pytest.raises(
        ValueError, match=rf"train/{kept}\.{end}: compressed tars"
    ) as error:
        open_source(PHOTOS, tmp_path, "train")
    os.system(str(error.value).rpartition("once: ")[2])
    assert len(open_source(PHOTOS, tmp_path, "train")) == count


@pytest.mark.parametrize("label", [b"3", b"-1", b"1.0", b"\xff", b""])
def test_a_label_out_of_range_is_named(photos, tmp_path, label):
    rewrite(photos, lambda members: members.update({"s0000002.cls": label}))
    source = open_source(PHOTOS, tmp_path, "train")
    words = r"0\.tar: train/0/s0000002: label .* is not a number from 0 to 2"
    with pytest.raises(ValueError, match=words):
        source[2]
    assert source[1]["label"] == 1


class Evil:
    def __reduce__(self):
        return os.system, ("touch ran",)


@pytest.mark.parametrize(
    ("member", "data", "words"),
    [
        ("s2_patch", pickle.dumps(Evil(), 2), "neither a zip archive nor written"),
        ("s2_patch", b"", "the file is empty"),
        ("s2_patch", torch_bytes(patch(12))[:900], "damaged, or not a torch file"),
        ("s2_patch", torch_bytes(patch(12, "float16")), "dtype float16 .*cannot hold"),
        ("s2_patch", torch_bytes(patch(13)), r"\(6, 6, 13\) is not \[h, w, 12\]"),
        ("s2_patch", torch_bytes(patch(12)[0]), r"\(6, 6\) is not \[h, w, 12\]"),
        ("s2_patch", torch_bytes(-patch(12)), "values from -.* but s2_l2a is in DN"),
        (
            "s2_patch",
            torch_bytes(patch(12, "float32") / np.float32(1e4)),
            "this looks like reflectance; s2_l2a is in DN: multiply by 10000",
        ),
        ("s2_patch", torch_bytes(patch(12, "float32") * np.nan), "100 % .*NaN or inf"),
        ("labels_5", torch_bytes(hot(1, count=6)), r"labels of shape \(6,\) .*ed 5 of"),
        ("labels_5", torch_bytes(hot(1) * 2), r"values \[0\. 2\.\], expected 5 of 0"),
    ],
)
def test_a_wrong_member_is_named(patches, tmp_path, member, data, words):
    rewrite(patches, lambda members: members.update({f"p1.{member}.pth": data}))
    source = open_source("wds:ben", tmp_path, "train")
    with pytest.raises(ValueError, match=rf"0\.tar: train/0/p1: .*{words}"):
        source[1]
    assert source[0]["s2"].shape == (6, 6, 12)


def test_a_pickle_that_would_run_code_is_refused(patches, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Evil(), 2))
    for member in ("s2_patch", "labels_5"):
        change = {f"p1.{member}.pth": out.getvalue()}
        rewrite(patches, lambda members, change=change: members.update(change))
        source = open_source("wds:ben", tmp_path, "train")
        with pytest.raises(ValueError, match=r"uses posix\.system, .* was run"):
            source[1]
    assert not (tmp_path / "ran").exists()


def test_a_cut_image_is_named(photos, tmp_path):
    for form in ("webp", "png", "jpeg"):
        data = image_bytes(PIXELS[5], form)
        cut = data[: len(data) * 2 // 3]
        rewrite(photos, lambda members, cut=cut: members.update({"s0000005.webp": cut}))
        source = open_source(PHOTOS, tmp_path, "train")
        with pytest.raises(ValueError, match="s0000005: unreadable or cut image"):
            source[5]


# Runs


@pytest.mark.parametrize(
    ("spec", "want"),
    [
        ("eurosat_rgb:val", ("eurosat_rgb", "val", 0)),
        ("eurosat_rgb:train[:90%]:64", ("eurosat_rgb", "train[:90%]", 64)),
        ("wds:sets/wds_eurosat:test", (PHOTOS, "test", 0)),
        ("wds:ben#labels_5:train[10%:]:32", ("wds:ben#labels_5", "train[10%:]", 32)),
    ],
)
def test_specs(spec, want):
    assert DatasetSpec.parse(spec) == DatasetSpec(*want)


@pytest.mark.parametrize("spec", ["wds:wds_eurosat", "wds::train", "eurosat", "a:b c"])
def test_malformed_specs(spec):
    with pytest.raises(ValueError, match="is not of the form name:split"):
        DatasetSpec.parse(spec)


def test_a_run_opens_it_in_tiles(photos, tmp_path):
    config = inspect.get_config()
    config.data_root = str(tmp_path)
    source = make_run(tmp_path / "w", config.lock()).open(f"{PHOTOS}:test:4")
    assert len(source) == 40
    np.testing.assert_array_equal(source[1]["rgb"], PIXELS[20][:4, 4:])


def run_stage(module, workdir, root, name, **settings):
    config = module.get_config()
    config.update(dataset=name, data_root=str(root), progress=False)
    for key, value in settings.items():
        config.pack[key] = value
    run_stages(config.lock(), workdir)


@pytest.mark.parametrize("name", [PHOTOS, "wds:ben"])
def test_a_pack_has_the_same_records_and_dataset(photos, patches, tmp_path, name):
    splits = ("train", "test") if name == PHOTOS else ("train",)
    out = tmp_path / "out"
    run_stage(pack, tmp_path / "w", tmp_path, name, out=str(out), splits=splits)
    dataset = get_dataset(name, tmp_path)
    shutil.rmtree(photos.parent)  # from here on there is only the pack
    shutil.rmtree(patches)
    packed = get_dataset(name, out)
    for field in ("name", "task", "sensors", "classes", "classnames", "templates"):
        assert getattr(packed, field) == getattr(dataset, field)
    for split in (*splits, "all", "train[:50%]"):
        source = open_source(name, out, split)
        for i in range(len(source)):
            number = source.ids[i][-7:] if name == PHOTOS else source.ids[i][-1]
            if name == PHOTOS:
                np.testing.assert_array_equal(source[i]["rgb"], PIXELS[int(number)])
                assert source[i]["label"] == int(number) % 3
            else:
                want = patch(12, seed=int(number)).transpose(1, 2, 0)
                np.testing.assert_array_equal(source[i]["s2"], want)


def test_packed_parts_are_those_of_the_archive(photos, tmp_path):
    want = {s: open_source(PHOTOS, tmp_path, s) for s in ("all", "train[:50%]")}
    out = tmp_path / "out"
    both = ("train", "test")
    run_stage(pack, tmp_path / "w", tmp_path, PHOTOS, out=str(out), splits=both)
    for split, source in want.items():
        assert split_digest(open_source(PHOTOS, out, split)) == split_digest(source)


def test_inspect_reports_the_contents(photos, tmp_path, capsys):
    run_stage(inspect, tmp_path / "w", tmp_path, PHOTOS)
    assert "river" in capsys.readouterr().out
    assert list((tmp_path / "w/inspect").glob("wds_*/contact_sheet.png"))
    with pytest.raises(FileNotFoundError, match=r"config\.dataset: root = "):
        run_stage(inspect, tmp_path / "w2", tmp_path, "wds:nowhere")
