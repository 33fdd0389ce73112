"""The contact sheet: what it shows is checked on its pixels."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from PIL import Image

from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sensors import SENSORS, Sensor
from rsclip_jax.report.contact_sheet import (
    Row,
    draw_contact_sheet,
    fit_tile,
    render,
    save_contact_sheet,
    views_of,
)
from tests.helpers.runs import few_scenes

RGB, S1, S2, IR = (SENSORS[n] for n in ("rgb", "s1_grd", "s2_l1c", "ir_bt"))


def corners_of(tile, sheet):
    """(y, x) of each corner at which the sheet has exactly these pixels."""
    h, w = tile.shape[:2]
    corners = np.argwhere((sheet == tile[0, 0]).all(-1)).tolist()
    return [
        (y, x) for y, x in corners if np.array_equal(sheet[y : y + h, x : x + w], tile)
    ]


def noise(seed, side=100, bands=3):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (side, side, bands), dtype=np.uint8)


def rows_of(side):
    names = ("a river", "a lake")
    return [
        Row(
            name,
            [{"id": f"x/{i}{j}", "rgb": noise(10 * i + j, side)} for j in range(3)],
        )
        for i, name in enumerate(names)
    ]


def test_at_scale_1_a_tile_holds_the_example_s_pixels():
    rows = rows_of(100)
    sheet = draw_contact_sheet(rows, {"rgb": RGB}, "t")
    at = [[corners_of(r["rgb"], sheet) for r in row.records] for row in rows]
    assert all(len(found) == 1 for row in at for found in row)
    (first, second) = ([found[0] for found in row] for row in at)
    assert len({y for y, _ in first}) == len({y for y, _ in second}) == 1
    assert [x for _, x in first] == [x for _, x in second]
    assert first[0][1] < first[1][1] < first[2][1]
    assert first[0][0] + 100 < second[0][0]


def test_a_small_image_is_enlarged_by_a_whole_factor():
    rows = rows_of(32)
    sheet = draw_contact_sheet(rows, {"rgb": RGB}, "t")
    large = rows[1].records[2]["rgb"].repeat(4, 0).repeat(4, 1)
    assert len(corners_of(large, sheet)) == 1


def test_a_large_image_is_shrunk_by_area_and_no_shape_is_lost():
    flat = np.full((512, 256, 3), 90, np.uint8)
    flat[:256] = 30
    tile = fit_tile(flat, 128)
    assert (tile[:, :32] == 255).all()
    assert (tile[:, 96:] == 255).all()
    assert (tile[:64, 32:96] == 30).all()
    assert (tile[64:, 32:96] == 90).all()


def test_names_and_ids_are_written_beside_and_below():
    """There is ink beside and below, and other ink for other words."""
    rows = rows_of(100)
    sheet = draw_contact_sheet(rows, {"rgb": RGB}, "t")
    renamed = [dataclasses.replace(rows[0], title="a sea"), rows[1]]
    other = draw_contact_sheet(renamed, {"rgb": RGB}, "t")
    y, x = corners_of(rows[0].records[0]["rgb"], sheet)[0]
    v = corners_of(rows[0].records[0]["rgb"], other)[0][1]
    shared = min(x, v)
    assert (sheet[y : y + 100, :x] < 128).any()
    assert (sheet[y : y + 100, :shared] != other[y : y + 100, :shared]).any()
    below = sheet[y + 100 : y + 126, x : x + 100]
    assert (below < 150).any()
    assert (below != sheet[y + 100 : y + 126, x + 106 : x + 206]).any()


def test_every_sensor_has_its_views():
    headings = {s.name: [v.heading for v in views_of(s)] for s in SENSORS.values()}
    colours = ["true colour: B04, B03, B02", "false colour: B08, B04, B03"]
    assert headings["rgb"] == ["as is"]
    assert headings["s1_grd"] == ["VV, VH, VV - VH"]
    assert headings["s1_vh_8bit"] == ["VH"]
    assert headings["s2_l1c"] == headings["s2_l2a"] == colours
    assert headings["ir_bt"] == ["BT"]
    assert all(headings.values())


def permuted(sensor: Sensor, order) -> Sensor:
    fields = ("bands", "wavelengths", "resolution", "mean", "std")
    moved = {f: tuple(getattr(sensor, f)[i] for i in order) for f in fields}
    return dataclasses.replace(sensor, **moved)


@pytest.mark.parametrize(
    ("sensor", "order"),
    [(S1, [1, 0]), (S2, [12, *range(12)]), (S2, [*range(8), 9, 10, 11, 12, 8])],
    ids=["s1_grd", "s2_l1c, turned", "s2_l1c, B8A last as in EuroSAT"],
)
def test_bands_are_found_by_name_wherever_they_stand(sensor, order):
    moved = permuted(sensor, order)
    rng = np.random.default_rng(0)
    array = rng.normal(-12, 4, (16, 16, len(order))).astype(np.float32)
    pairs = zip(views_of(sensor), views_of(moved), strict=True)
    for here, there in pairs:
        (a,), _ = render([array], here)
        (b,), _ = render([array[..., order]], there)
        np.testing.assert_array_equal(a, b)


def stretched(values):
    """One band's numbers as bytes, on its own: numpy's sorted quantiles."""
    low, high = np.percentile(values, [2, 98])
    return np.clip((values - low) / (high - low), 0, 1) * 255


def test_colours_are_bands_between_the_quantiles_of_all_that_is_shown():
    rng = np.random.default_rng(1)
    arrays = [rng.integers(0, 9000, (8, 9, 13)).astype(np.uint16) for _ in range(3)]
    views = dict(zip(("true", "false"), views_of(S2), strict=True))
    for name, bands in (("true", (3, 2, 1)), ("false", (7, 3, 2))):
        pictures, _ = render(arrays, views[name])
        for channel, band in enumerate(bands):
            want = stretched(np.stack(arrays)[..., band].astype(np.float64))
            got = np.stack(pictures)[..., channel]
            assert np.abs(got - want).max() <= 0.51


def test_radar_is_vv_vh_and_their_ratio():
    rng = np.random.default_rng(2)
    array = rng.normal((-11, -18), 4, (12, 12, 2)).astype(np.float32)
    (picture,), _ = render([array], views_of(S1)[0])
    wide = array.astype(np.float64)
    bands = (wide[..., 0], wide[..., 1], wide[..., 0] - wide[..., 1])
    for channel, band in enumerate(bands):
        assert np.abs(picture[..., channel] - stretched(band)).max() <= 0.51


def test_a_warmer_pixel_is_brighter_and_the_range_is_given():
    ramp = np.linspace(280, 320, 101, dtype=np.float32).reshape(1, -1, 1)
    (picture,), shown = render([ramp], views_of(IR)[0])
    assert shown == "280.8 to 319.2"
    light = picture[0].astype(float) @ [0.2126, 0.7152, 0.0722]
    assert (np.diff(light[3:-3]) > 0).all()
    ends = matplotlib.colormaps["inferno"]([0.0, 1.0])[:, :3]
    np.testing.assert_array_equal(picture[0, [0, -1]], np.rint(255 * ends))


def test_composites_give_the_range_of_each_channel_and_it_is_written():
    ramps = np.stack([np.linspace(0, top, 101) for top in range(100, 1400, 100)], -1)
    array = ramps.reshape(1, 101, 13).astype(np.uint16)
    _, shown = render([array], views_of(S2)[0])
    there = array[:, 1:]  # the first pixel is 0 in all bands: missing
    want = [np.percentile(there[..., band], [2, 98]) for band in (3, 2, 1)]
    assert shown == "; ".join(f"{low:.4g} to {high:.4g}" for low, high in want)
    pair = np.float32([[[-20, -25], [-5, -10]]]).repeat(100, 0).repeat(50, 1)
    _, shown = render([pair], views_of(S1)[0])
    assert shown == "-20 to -5; -25 to -10; 5 to 5"
    # a third line of the heading, of other ink where the range is another
    one, other = (
        draw_contact_sheet([Row("a", [{"id": "x", "s1": x}])], {"s1": S1}, "t")
        for x in (pair, pair + 1)
    )
    width = min(one.shape[1], other.shape[1])
    rows = np.argwhere((one[:, :width] != other[:, :width]).any(-1))[:, 0]
    assert rows.size
    assert 36 + 2 * 16 <= rows.min() <= rows.max() < 90


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (2, 2), (3, 3), (5, 3)])
def test_bands_of_no_known_colours_are_shown_each(count, shown):
    bands = tuple(f"X{i}" for i in range(count))
    same = (1.6,) * count
    fields = {"wavelengths": same, "resolution": same, "mean": same, "std": same}
    row = Sensor("my.toml", "ir", bands, "DN", "uint16", **fields)
    views = views_of(row)
    assert [view.heading for view in views] == list(bands[:shown])
    rng = np.random.default_rng(3)
    array = rng.integers(0, 900, (9, 9, count)).astype(np.uint16)
    for i, view in enumerate(views):
        (picture,), _ = render([array], view)
        want = stretched(array[..., i].astype(np.float64))
        assert np.abs(picture[..., 0] - want).max() <= 0.51


def test_nan_is_magenta_and_constants_are_drawn():
    array = np.full((6, 6, 2), -12, np.float32)
    array[2, 3, 1] = np.nan
    (picture,), _ = render([array], views_of(S1)[0])
    magenta = (picture == (255, 0, 255)).all(-1)
    assert np.argwhere(magenta).tolist() == [[2, 3]]
    (empty,), _ = render([np.full_like(array, np.nan)], views_of(S1)[0])
    assert (empty == (255, 0, 255)).all()


def test_the_miniature_has_a_block_for_every_view(tmp_path):
    with few_scenes():
        source = open_source("miniature", split="val")
        records = [source[i] for i in range(4)]
    rows = [Row("first", records[:2]), Row("", records[2:3])]
    sensors = {k: SENSORS[n] for k, n in source.dataset.sensors.items()}
    sheet = draw_contact_sheet(rows, sensors, "miniature")
    lefts = []
    for key, sensor in sensors.items():
        for view in views_of(sensor):
            pictures, _ = render([r[key] for r in records[:3]], view)
            large = pictures[2].repeat(4, 0).repeat(4, 1)
            ((_, x),) = corners_of(large, sheet)
            lefts.append(x)
    assert len(lefts) == 5
    assert np.diff(lefts).min() >= 2 * 128
    save_contact_sheet(tmp_path / "deep" / "sheet.png", rows, sensors, "miniature")
    with Image.open(tmp_path / "deep" / "sheet.png") as image:
        np.testing.assert_array_equal(np.array(image), sheet)


def test_nothing_to_show_is_an_error():
    with pytest.raises(ValueError, match="needs a record"):
        draw_contact_sheet([Row("a", [])], {"rgb": RGB}, "t")


def test_the_first_caption_stands_under_its_image_and_is_kept_short():
    rows = rows_of(100)
    plain = draw_contact_sheet(rows, {"rgb": RGB}, "t")
    rows[0].records[1]["captions"] = ("a lake", "not shown " * 30)
    short = draw_contact_sheet(rows, {"rgb": RGB}, "t")
    assert short.shape[0] == plain.shape[0] + 2 * 13  # a line in both rows
    [(y, x)] = corners_of(rows[0].records[1]["rgb"], short)
    below = short[y + 100 :, x : x + 100] < 200
    [(y, x)] = corners_of(rows[0].records[0]["rgb"], short)
    beside = short[y + 100 :, x : x + 100] < 200
    assert below[30:42].any()
    assert not beside[30:42].any()
    rows[0].records[1]["captions"] = ("word " * 100,)
    long = draw_contact_sheet(rows, {"rgb": RGB}, "t")
    assert long.shape[0] == plain.shape[0] + 2 * 5 * 13


def test_missing_pixels_are_left_out_of_a_picture_and_its_stretch():
    array = np.random.default_rng(0).integers(500, 900, (8, 9, 13), np.uint16)
    view = views_of(SENSORS["s2_l1c"])[0]
    (whole,), shown = render([array], view)
    for value in (0, 65535):
        spoiled = array.copy()
        spoiled[0, :3] = value
        spoiled[5, 5, 1] = value  # of one band: a measurement
        (picture,), found = render([spoiled], view)
        magenta = (picture == (255, 0, 255)).all(-1)
        assert np.argwhere(magenta).tolist() == [[0, 0], [0, 1], [0, 2]]
        far = np.abs(picture[1:5].astype(int) - whole[1:5]).max()
        assert far <= 20, (shown, found)
