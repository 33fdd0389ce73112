"""Files that say what their values are: names, nodata, scale, offset, baseline.

The same scenes in each form give the same records.
"""

import numpy as np
import pytest
import rasterio
from PIL import Image

from rsclip_jax.data.codecs.notes import noting
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import SENSORS
from rsclip_jax.data.sources.files import read_sensor
from tests.helpers.geotiffs import write_by_gdal

L1C = SENSORS["s2_l1c"].bands
NAME = "S2A_MSIL{}_20230613T103031_{}_R108_T32TQM_20230613T141500_{}.tif"


@pytest.fixture(scope="module")
def scenes():
    source = open_source("miniature", split="test")
    return [source[i] for i in range(0, 60, 20)]


def write(path, array, **say):
    """[h, w, bands] as a GeoTIFF; say: what the file says of itself."""
    path.parent.mkdir(parents=True, exist_ok=True)
    h, w, count = array.shape
    tags, options = say.pop("tags", {}), {"dtype": array.dtype, "driver": "GTiff"}
    options |= {"nodata": say.pop("nodata", None), "height": h, "width": w}
    with rasterio.open(path, "w", count=count, **options) as file:
        file.write(np.moveaxis(array, -1, 0))
        file.update_tags(**tags)
        for name, value in say.items():
            setattr(file, name, value)


def open_set(folder, sensors, more="", **options):
    text = f'reader = "folder"\nfolder = "files"\n[sensors]\n{sensors}\n{more}'
    (folder / "mine.toml").write_text(text)
    return open_source(folder / "mine.toml", **options)


S1, S2 = 's1 = "s1_grd"', 's2 = "s2_l1c"'
RADAR = {
    "as they are": (lambda x: x, {}),
    "other order": (lambda x: x[..., ::-1], {"descriptions": ("VH", "VV")}),
    "SNAP": (
        lambda x: x[..., ::-1],
        {"descriptions": ("Sigma0_VH_db", "Sigma0_VV_db")},
    ),
    "hundredths": (lambda x: np.rint(100 * x).astype("int16"), {"scales": (0.01,) * 2}),
    "stretched": (
        lambda x: np.rint((x + 60) * 500).astype("uint16"),
        {"scales": (0.002,) * 2, "offsets": (-60.0,) * 2},
    ),
    "float64": (lambda x: x.astype("float64"), {}),
}


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
class TestRadar:
    @pytest.mark.parametrize("form", RADAR)
    def test_each_form_gives_the_same_records(self, scenes, tmp_path, form):
        change, say = RADAR[form]
        for i, scene in enumerate(scenes):
            write(tmp_path / f"files/{i}.tif", change(scene["s1"]), **say)
        source = open_set(tmp_path, S1)
        exact = form not in ("hundredths", "stretched")
        for i, scene in enumerate(scenes):
            got = source[i]["s1"]
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, scene["s1"], atol=0 if exact else 0.006)

    def test_band_files_that_call_themselves_another_band_are_refused(
        self, scenes, tmp_path
    ):
        paths = tuple(tmp_path / f"{band}.tif" for band in ("VV", "VH"))
        s1, want = SENSORS["s1_grd"], scenes[0]["s1"]
        for names in (("VV", "VH"), ("", ""), ("VH", "VV")):
            for i, path in enumerate(paths):
                write(path, want[..., i : i + 1], descriptions=(names[i],))
            if names[0] != "VH":
                np.testing.assert_array_equal(read_sensor(paths, s1), want)
        with pytest.raises(ValueError, match="of VV, VH, but call their bands VH, VV"):
            read_sensor(paths, s1)

    @pytest.mark.parametrize("value", [0.0, -99.0, -9999.0, np.nan])
    def test_pixels_that_a_file_declares_missing_are(self, scenes, tmp_path, value):
        want = scenes[0]["s1"]
        array = want.copy()
        array[:, 20:] = value
        write(tmp_path / "files/0.tif", array, nodata=value)
        with pytest.raises(ValueError, match=r"0\.tif: 37\.5 % of the s1_grd pixels"):
            open_set(tmp_path, S1)[0]
        got = open_set(tmp_path, S1, max_nodata=0.5)[0]["s1"]
        np.testing.assert_array_equal(got[:, :20], want[:, :20])
        median = np.median(want[:, :20], axis=(0, 1))
        np.testing.assert_allclose(got[:, 20:], np.broadcast_to(median, (32, 12, 2)))

    def test_numbers_from_0_on_with_an_offset_keep_their_0(self, scenes, tmp_path):
        db = np.maximum(scenes[0]["s1"], -60)
        db[1, 2] = -60, -20
        numbers = np.rint((db + 60) * 500).astype(np.uint16)
        numbers[3, 4] = 0  # in both: no measurement
        write(tmp_path / "a.tif", numbers, scales=(0.002,) * 2, offsets=(-60.0,) * 2)
        got = read_sensor(tmp_path / "a.tif", SENSORS["s1_grd"])
        np.testing.assert_allclose(got[1, 2], (-60, -20), atol=0.01)
        assert (got[3, 4] == 0).all()

    def test_a_declared_0_of_one_polarisation_is_missing(self, scenes, tmp_path):
        db = scenes[0]["s1"].copy()
        db[1, 2, 0] = 0
        write(tmp_path / "a.tif", db, nodata=0)
        with pytest.raises(ValueError, match=r"missing \(nodata or masked"):
            read_sensor(tmp_path / "a.tif", SENSORS["s1_grd"])

    def test_power_with_a_pixel_below_0_is_refused(self, scenes, tmp_path):
        power = (10 ** (scenes[0]["s1"] / 10)).astype(np.float32)
        power[5, 5, 0] = -1e-6
        write(tmp_path / "files/0.tif", power)
        with pytest.raises(ValueError, match=r"0\.tif: .*linear power.* 10 \* log10"):
            open_set(tmp_path, S1)[0]

    def test_integers_are_read_by_the_datasets_scale(self, scenes, tmp_path):
        want = scenes[0]["s1"]
        write(tmp_path / "files/0.tif", np.rint(100 * want).astype(np.int16))
        with pytest.raises(ValueError, match=r"scale = 0\.01 for s1 in the dataset's"):
            open_set(tmp_path, S1)[0]
        got = open_set(tmp_path, S1, "[scale]\ns1 = 0.01")[0]["s1"]
        np.testing.assert_allclose(got, want, atol=0.006)
        each = "[scale]\ns1 = [0.01, 0.02]\n[offset]\ns1 = [0, 3]"
        got = open_set(tmp_path, S1, each)[0]["s1"]
        np.testing.assert_allclose(got, want * [1, 2] + [0, 3], atol=0.02)


DN = {
    "as they are": ("1C_0", 0, {}),
    "a product's name": ("1C_N0510", 1000, {}),
    "tags in reflectance": (
        "1C_N0510", 1000, {"scales": (1e-4,) * 13, "offsets": (-0.1,) * 13}
    ),
    "tags in DN": ("x", 1000, {"offsets": (-1000.0,) * 13}),
    "scale alone": ("x", 0, {"scales": (1e-4,) * 13}),
    "metadata": ("x", 1000, {"tags": {"PROCESSING_BASELINE": "04.00"}}),
    "metadata as a number": ("x", 1000, {"tags": {"processing_baseline": "5.1"}}),
    "empty metadata beside a name": (
        "1C_N0510", 1000, {"tags": {"PROCESSING_BASELINE": " "}}
    ),
    "an id in the metadata": (
        "x", 1000, {"tags": {"PRODUCT_URI": NAME.format("1C", "N0400", "0")}}
    ),
    "an old baseline": ("1C_N0204", 0, {}),
    "BigEarthNet's own": ("2A_N9999", 0, {}),
    "other order": ("x", 0, {"descriptions": tuple(L1C[::-1])}),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
class TestSentinel2:
    @pytest.mark.parametrize("form", DN)
    def test_each_form_gives_the_same_reflectance(self, scenes, tmp_path, form):
        name, higher, say = DN[form]
        level, _, baseline = name.partition("_")
        file = NAME.format(level, baseline, 0) if baseline else f"{name}.tif"
        want = scenes[0]["s2"]
        array = (want + higher).astype(np.uint16)
        write(
            tmp_path / "files" / file,
            array[..., ::-1] if "descriptions" in say else array,
            **say,
        )
        with noting() as notes:
            got = open_set(tmp_path, S2)[0]["s2"]
        assert got.dtype == np.uint16
        np.testing.assert_array_equal(got, want)
        by = "by name" if "descriptions" in say else "by position"
        kinds = [note.kind for note in notes]
        assert by in kinds
        assert ("offset" in kinds) == (
            higher > 0 and not {*say} & {"scales", "offsets"}
        )

    def test_nodata_stays_and_noise_below_0_is_counted(self, scenes, tmp_path):
        array = (np.maximum(scenes[0]["s2"], 20) + 1000).astype(np.uint16)
        array[0, 0], array[0, 1, 3], array[0, 2, 3] = 0, 993, 0
        write(tmp_path / "files" / NAME.format("1C", "N0510", 0), array)
        with noting() as notes:
            got = open_set(tmp_path, S2)[0]["s2"]
        assert (got[0, 0] == 0).all()
        assert (got[0, 1, 3], got[0, 2, 3]) == (0, 0)
        np.testing.assert_array_equal(got[1:], array[1:] - 1000)
        assert [n.amount for n in notes if n.kind == "negative"] == [1]

    def test_values_that_contradict_the_name_are_refused_unless_said(
        self, scenes, tmp_path
    ):
        """Someone subtracted 1000 and kept the product's name."""
        want = scenes[0]["s2"]
        write(tmp_path / "files" / NAME.format("1C", "N0510", 0), want)
        with pytest.raises(
            ValueError, match=r"baseline of 04\.00 .* \[offset\] s2 = 0"
        ):
            open_set(tmp_path, S2)[0]
        got = open_set(tmp_path, S2, "[offset]\ns2 = 0")[0]["s2"]
        np.testing.assert_array_equal(got, want)

    def test_missing_pixels_do_not_contradict_the_name(self, scenes, tmp_path):
        array = (scenes[0]["s2"] + 1000).astype(np.int16)
        array[:8] = -9999
        path = tmp_path / "files" / NAME.format("1C", "N0510", 0)
        write(path, array, nodata=-9999)
        got = read_sensor(path, SENSORS["s2_l1c"], max_nodata=0.3)
        np.testing.assert_array_equal(got[8:], array[8:] - 1000)

    def test_signed_dn_a_little_below_0_are_read(self, scenes, tmp_path):
        want = scenes[0]["s2"].astype(np.int16)
        want[3, 4, :5] = -13
        write(tmp_path / "files/a.tif", want)
        got = open_set(tmp_path, S2)[0]["s2"]
        np.testing.assert_array_equal(got, np.maximum(want, 0))


def test_a_picture_of_a_sensor_with_more_bits_is_refused(tmp_path):
    (tmp_path / "files").mkdir()
    deep = np.full((8, 8), 3000, np.uint16)
    Image.fromarray(deep).save(tmp_path / "files/a.png")
    with pytest.raises(ValueError, match=r"a\.png: s2_nir has uint16 .* to GeoTIFF"):
        open_set(tmp_path, 'nir = "s2_nir"')[0]


@pytest.mark.parametrize("value", [0, 65535])
@pytest.mark.parametrize("compress", [None, "lzw"])  # the fast decoder, and GDAL
def test_dn_that_a_file_declares_missing_are(scenes, tmp_path, value, compress):
    want = np.maximum(scenes[0]["s2"], 1)
    array = want.copy()
    array[:4] = value
    path = write_by_gdal(
        tmp_path / "a.tif",
        array,
        nodata=value,
        **({"compress": compress} if compress else {}),
    )
    sensor = SENSORS["s2_l1c"]
    with pytest.raises(ValueError, match=r"a\.tif: 12\.5 % of the s2_l1c pixels"):
        read_sensor(path, sensor)
    got = read_sensor(path, sensor, max_nodata=0.2)
    np.testing.assert_array_equal(got[4:], want[4:])
    np.testing.assert_array_equal(got[0, 0], np.median(want[4:], (0, 1)).astype("u2"))


def test_no_value_in_some_bands_is_a_dark_pixel(scenes, tmp_path):
    array = np.maximum(scenes[0]["s2"], 1)
    array[3, 4, 10] = 0
    path = write_by_gdal(tmp_path / "a.tif", array, nodata=0)
    np.testing.assert_array_equal(read_sensor(path, SENSORS["s2_l1c"]), array)
