"""Offsets of tar members against Python's tarfile, in all of its formats."""

import gzip
import os
import tarfile

import pytest

from rsclip_jax.data.codecs.tars import walk_once, walk_tar
from tests.helpers.tars import write_tar

LONG = "folder/" * 20 + "s1.webp"
NAMES = ["s0.webp", "s0.cls", "deep/" * 18 + "s1.cls", LONG, "größe.png", "s2.cls"]


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_members_have_tarfiles_offsets(tmp_path, form):
    data = {name: bytes([i]) * (300 * i) for i, name in enumerate(NAMES)}
    path = write_tar(tmp_path / "0.tar", data, form)
    with tarfile.open(path, "a", format=form) as tar:  # no files, so not told
        for kind in (tarfile.DIRTYPE, tarfile.SYMTYPE):
            info = tarfile.TarInfo("other")
            info.type = kind
            tar.addfile(info)
    found = list(walk_tar(path))
    assert [member.name for member in found] == NAMES
    whole = path.read_bytes()
    for name, offset, size in found:
        assert whole[offset : offset + size] == data[name]


def test_a_long_name_in_two_fields_of_the_header(tmp_path):
    path = write_tar(tmp_path / "0.tar", {LONG: b"x"}, tarfile.USTAR_FORMAT)
    assert [tuple(m) for m in walk_tar(path)] == [(LONG, 512, 1)]


def test_sizes_beyond_octal_digits(tmp_path):
    """16 GiB of a sparse file: GNU writes the size in base 256, pax in a field."""
    size = 2**34
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        info = tarfile.TarInfo("big")
        info.size = size
        header = info.tobuf(form)
        path = tmp_path / "0.tar"
        with path.open("wb") as file:
            file.write(header)
            file.truncate(len(header) + size + 1024)
        assert [tuple(m) for m in walk_tar(path)] == [("big", len(header), size)]


def test_a_cut_tar_names_the_byte_and_yields_the_members_before(tmp_path):
    members = {"a.cls": b"1", "a.webp": bytes(2000), "b.cls": b"2"}
    path = write_tar(tmp_path / "0.tar", members, tarfile.USTAR_FORMAT)
    whole = path.read_bytes()
    # headers at 0, 1024 and 3584
    for end, told, words in (
        (2000, ["a.cls"], r"0\.tar: cut short: it ends at byte 2,000, but a member of"),
        (3584, ["a.cls", "a.webp"], "a header is missing at byte 3,584"),
        (3700, ["a.cls", "a.webp"], "a header is missing at byte 3,584"),
        (4608, list(members), "a header is missing at byte 4,608"),
        (0, [], "it ends at byte 0, but a header is missing at byte 0"),
    ):
        path.write_bytes(whole[:end])
        found = []
        with pytest.raises(ValueError, match=words + ".*; fetch it again"):
            found += walk_tar(path)  # what came before the error is kept
        assert [member.name for member in found] == told


@pytest.mark.parametrize("offset", [1024 + 5, 1024 + 130, 1024 + 150])
def test_a_damaged_header_is_named(tmp_path, offset):
    path = write_tar(tmp_path / "0.tar", {"a": b"1", "b": b"2"}, tarfile.USTAR_FORMAT)
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x55
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"0\.tar: .* at byte 1,024: damaged, or not"):
        list(walk_tar(path))


def test_the_error_for_a_gzipped_tar_has_the_command_that_unpacks_it(tmp_path):
    path = write_tar(tmp_path / "a 0.tar", {"s0.cls": b"7"})
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(ValueError, match=r"a 0\.tar: compressed by gzip") as error:
        list(walk_tar(path))
    os.system(str(error.value).rpartition("once: ")[2])
    assert [m.name for m in walk_tar(path)] == ["s0.cls"]


@pytest.mark.parametrize("size", ["-0", "+1", " 1", "1_0", "seven", "", "1" * 20])
def test_a_size_of_pax_that_is_no_number_is_named(tmp_path, size):
    info = tarfile.TarInfo("a")
    info.pax_headers = {"size": size}
    path = tmp_path / "0.tar"
    path.write_bytes(info.tobuf(tarfile.PAX_FORMAT) + bytes(1024))
    with pytest.raises(
        ValueError, match=r"0\.tar: a pax field has a size of .* byte 1,"
    ):
        list(walk_tar(path))


@pytest.mark.parametrize("field", [b"-0000000001\0", b"+0000000001\0", b"0o000000007 "])
def test_a_size_in_octal_digits_has_no_sign(tmp_path, field):
    path = write_tar(tmp_path / "0.tar", {"a": b""}, tarfile.USTAR_FORMAT)
    header = bytearray(path.read_bytes())
    header[124:136] = field
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header[:512])
    path.write_bytes(header)
    with pytest.raises(ValueError, match=r"0\.tar: .* instead of a number at byte 0"):
        list(walk_tar(path))


def test_a_field_of_pax_has_the_length_that_it_says(tmp_path):
    info = tarfile.TarInfo("a")
    info.pax_headers = {"comment": "x" * 40}
    whole = info.tobuf(tarfile.PAX_FORMAT) + bytes(1024)
    path = tmp_path / "0.tar"
    path.write_bytes(whole)
    assert [member.name for member in walk_tar(path)] == ["a"]
    for length in (b"00", b"01", b"99", b"-2", b"xy"):
        path.write_bytes(whole.replace(b"52 comment", length + b" comment"))
        with pytest.raises(ValueError, match=r"0\.tar: a pax field has a.* length"):
            list(walk_tar(path))


def test_fields_of_pax_larger_than_any_name_are_not_read(tmp_path):
    path = tmp_path / "0.tar"
    info = tarfile.TarInfo("a")
    info.type, info.size = tarfile.XHDTYPE, 2**20 + 1
    path.write_bytes(info.tobuf(tarfile.USTAR_FORMAT))
    with path.open("ab") as file:
        file.truncate(2**21)
    with pytest.raises(
        ValueError, match=r"0\.tar: a name or pax fields of 1,048,577 b"
    ):
        list(walk_tar(path))


def test_a_name_that_is_in_a_tar_twice_is_named(tmp_path):
    path = write_tar(tmp_path / "0.tar", {"a": b"1", "b": b"2"})
    assert list(walk_once(path)) == list(walk_tar(path))
    with tarfile.open(path, "a") as tar:
        tar.addfile(tarfile.TarInfo("a"))
    with pytest.raises(ValueError, match=r"0\.tar: 'a' is in it twice"):
        list(walk_once(path))
