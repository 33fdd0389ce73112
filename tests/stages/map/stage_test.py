"""Stage map on mosaics of known tiles: it says what evaluate says, and where."""

import json

import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine
from rasterio.windows import Window

import rsclip_jax
from configs import map as configs_map
from rsclip_jax.data.datasets import open_source
from rsclip_jax.evals.maps import softmax
from rsclip_jax.main import run_stages
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.map import rows as rows_of
from rsclip_jax.train import sharding
from tests.helpers.mosaics import TRANSFORM, write_mosaic, write_scene
from tests.helpers.runs import few_scenes, one_device

COLUMNS = 7  # 48 scenes: the last row has one without values


def config_of(init, scene, **settings):
    config = configs_map.get_config()
    top = {k: settings.pop(k) for k in ("classes", "sensor") if k in settings}
    config.update(init=str(init), scene=str(scene), progress=False, **top)
    config.eval_batch_size = 16
    config.map.update({"unit": "dB", **settings})
    return config.lock()


def make_map(monkeypatch, workdir, *args, **settings):
    monkeypatch.setattr(sharding, "make_mesh", lambda shape: one_device())
    run_stages(config_of(*args, **settings), workdir)
    return workdir / "map"


def read(path):
    with rasterio.open(path) as file:
        return file.read().transpose(1, 2, 0), file.profile, file.tags()


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """(scene of the miniature's test radar, its records, the dataset)."""
    path = tmp_path_factory.mktemp("world") / "s1.tif"
    with few_scenes():
        source = open_source("miniature", "", "test")
        records = [source[i] for i in range(len(source))]
    write_mosaic(path, [r["s1"] for r in records], COLUMNS, nodata=0)
    return path, records, source.dataset


@pytest.fixture
def mapped(tiny_run, world, tmp_path, monkeypatch):
    path, _, dataset = world
    return make_map(
        monkeypatch,
        tmp_path / "w",
        tiny_run,
        path,
        sensor="s1_grd",
        classes=dataset.classnames,
        templates=dataset.templates,
        sentences=("a satellite photo of a river.",),
    )


def test_the_map_is_what_evaluate_finds_on_the_same_tiles(
    tiny_run, world, mapped, capsys
):
    _, records, dataset = world
    classes, profile, tags = read(mapped / "class.tif")
    side = records[0]["s1"].shape[0]
    assert (profile["driver"], profile["dtype"]) == ("GTiff", "uint8")
    assert profile["transform"] == TRANSFORM @ Affine.scale(side)
    flat = classes.reshape(-1)
    assert (flat[len(records) :] == 0).all()  # no values
    found = flat[: len(records)].astype(int) - 1
    right = found == [r["label"] for r in records]
    (want,) = (
        r.value
        for r in read_results(tiny_run / "results.jsonl")
        if (r.stage, r.dataset, r.sensor) == ("evaluate", "miniature", "s1")
        if (r.task, r.metric) == ("zero_shot", "accuracy")
    )
    assert right.mean() == want
    assert json.loads(tags["CLASSES"]) == {
        str(i): c for i, c in enumerate(dataset.classnames, 1)
    }
    model = rsclip_jax.load(tiny_run)
    z = model.encode([r["s1"] for r in records], "s1")
    head = model.zero_shot(dataset.classnames, dataset.templates)
    probability, profile, _ = read(mapped / "probability.tif")
    each = probability.reshape(-1, len(dataset.classnames))[: len(records)]
    np.testing.assert_allclose(each, softmax(z @ head), atol=1e-5)
    sure, _, _ = read(mapped / "confidence.tif")
    np.testing.assert_array_equal(sure[..., 0], probability.max(axis=-1))
    heat, _, _ = read(mapped / "similarity.tif")
    ztxt = model.encode_text("a satellite photo of a river.")
    each = heat.reshape(-1, 1)[: len(records)]
    np.testing.assert_allclose(each, z @ ztxt.T, atol=1e-5)
    assert np.isnan(heat.reshape(-1)[len(records) :]).all()


def test_areas_are_those_of_the_raster(mapped, world):
    classes, profile, _ = read(mapped / "class.tif")
    told = json.loads((mapped / "areas.geojson").read_text())
    cell = abs(profile["transform"].a * profile["transform"].e)
    names = world[2].classnames
    for i, name in enumerate(names, 1):
        total = sum(
            f["properties"]["area"]
            for f in told["features"]
            if f["properties"]["class"] == name
        )
        assert total == pytest.approx((classes == i).sum() * cell)
    lon, lat = told["features"][0]["geometry"]["coordinates"][0][0]
    assert 10 < lon < 11  # the west of UTM zone 32, 45 degrees north
    assert 44 < lat < 46


def test_the_report_shows_the_map(mapped):
    page = (mapped.parent / "report.html").read_text()
    assert "data:image/png;base64," in page
    assert "Map of s1" in page
    assert (mapped / "quicklook.png").read_bytes().startswith(b"\x89PNG")


def test_other_words_encode_nothing_again(tiny_run, world, mapped, monkeypatch, capsys):
    """A finished map is skipped; new words use the kept embeddings."""
    workdir, settings = mapped.parent, {"sensor": "s1_grd"}
    names, templates = world[2].classnames, world[2].templates
    before = read(mapped / "class.tif")[0]

    def never(*_):
        raise AssertionError("a tile was read again")

    monkeypatch.setattr(rows_of.Reader, "row", never)
    two = (names[1], names[0])
    make_map(monkeypatch, workdir, tiny_run, world[0], classes=two, **settings)
    assert set(np.unique(read(mapped / "class.tif")[0])) <= {0, 1, 2}
    settings |= {"classes": names, "templates": templates}
    make_map(monkeypatch, workdir, tiny_run, world[0], **settings)
    np.testing.assert_array_equal(read(mapped / "class.tif")[0], before)
    capsys.readouterr()
    make_map(monkeypatch, workdir, tiny_run, world[0], **settings)
    assert "skipped" in capsys.readouterr().out
    with pytest.raises(AssertionError, match="read again"):
        make_map(monkeypatch, workdir, tiny_run, world[0], **settings, min_valid=0.9)


def test_a_map_goes_on_where_it_was_stopped(
    tiny_run, world, mapped, tmp_path, monkeypatch
):
    rows, made = rows_of.Reader.row, []

    def stopped(self, index, mesh):
        made.append(index)
        if made == [0, 1, 2]:
            raise KeyboardInterrupt
        return rows(self, index, mesh)

    monkeypatch.setattr(rows_of.Reader, "row", stopped)
    names, templates = world[2].classnames, world[2].templates
    settings = {"sensor": "s1_grd", "classes": names, "templates": templates}
    with pytest.raises(KeyboardInterrupt):
        make_map(monkeypatch, tmp_path / "s", tiny_run, world[0], **settings)
    folder = make_map(monkeypatch, tmp_path / "s", tiny_run, world[0], **settings)
    assert made == [0, 1, 2, 2, 3, 4, 5, 6]
    for name in ("class.tif", "probability.tif"):
        np.testing.assert_array_equal(read(folder / name)[0], read(mapped / name)[0])


def test_overlapping_tiles_are_blended_and_edges_are_padded(
    tiny_run, world, tmp_path, monkeypatch
):
    """A scene whose sides are no multiple of the stride, in strips of a few tiles."""
    rng = np.random.default_rng(0)
    array = rng.normal(-15, 4, (75, 90, 2)).astype(np.float32)
    array[20:24, 30:40] = -99  # a hole
    write_scene(tmp_path / "a.tif", array, nodata=-99)
    names = ("river", "forest", "town")
    settings = {"sensor": "s1_grd", "classes": names, "stride": 16, "tile": 32}
    folder = make_map(
        monkeypatch, tmp_path / "w", tiny_run, tmp_path / "a.tif", **settings
    )
    probability, profile, _ = read(folder / "probability.tif")
    assert probability.shape == (5, 6, 3)
    assert profile["transform"] == TRANSFORM @ Affine.scale(16)
    scene = rsclip_jax.open_scene(tmp_path / "a.tif", "s1_grd", unit="dB")
    model = rsclip_jax.load(tiny_run)
    head = model.zero_shot(names)
    by_hand = np.zeros((5, 6, 3))
    count = np.zeros((5, 6, 1))
    for row in range(4):
        for column in range(5):
            record = scene.read(Window(16 * column, 16 * row, 32, 32))
            tile, valid = record["s1"], record["valid"]
            for i in range(2):
                tile[~valid, i] = np.median(tile[valid, i])
            part = np.s_[row : row + 2, column : column + 2]
            by_hand[part] += softmax(model.encode(tile, "s1") @ head)[0]
            count[part] += 1
    np.testing.assert_allclose(probability, by_hand / count, atol=1e-5)

    class Narrow(type(scene)):
        most_pixels = 32 * 64

    from rsclip_jax.stages.map import stage

    monkeypatch.setattr(
        stage,
        "open_scene",
        lambda *a, **k: Narrow(*(getattr(scene, f) for f in scene.__match_args__)),
    )
    narrow = make_map(
        monkeypatch, tmp_path / "n", tiny_run, tmp_path / "a.tif", **settings
    )
    np.testing.assert_allclose(
        read(narrow / "probability.tif")[0], probability, atol=1e-6
    )


def test_a_narrow_edge_is_mapped_and_a_hole_is_not(
    tiny_run, tmp_path, monkeypatch, capsys
):
    """The edge tiles have a tenth of a tile in the scene, all of it with values."""
    array = np.random.default_rng(0).normal(-15, 4, (67, 96, 2)).astype(np.float32)
    array[:32, :32] = -99
    write_scene(tmp_path / "a.tif", array, nodata=-99)
    settings = {"sensor": "s1_grd", "classes": ("river", "forest"), "tile": 32}
    args = (tiny_run, tmp_path / "a.tif")
    folder = make_map(monkeypatch, tmp_path / "w", *args, **settings)
    classes = read(folder / "class.tif")[0][..., 0]
    assert classes.shape == (3, 3)
    assert (classes == 0).tolist()[0] == [True, False, False]
    assert (classes[1:] > 0).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"classes": ("river",)}, r"classes = \('river',\): name at least two"),
        ({"classes": ("a", "a")}, "each once"),
        ({"stride": 5, "tile": 32}, "stride = 5 does not divide the tile of 32"),
        ({"templates": ("a photo",)}, "without {c} for the name"),
        ({"min_valid": 0.0}, r"min_valid = 0\.0 should be above 0"),
        ({"sensor": "s2_l2a"}, r"config\.scene: .*s2_l2a"),
        ({"sensor": ""}, r"config\.scene: .*config\.sensor="),
        ({"crs": "EPSG:1"}, r"config\.scene: .*EPSG:1"),
    ],
)
def test_what_cannot_be_mapped_is_named(
    tiny_run, world, tmp_path, monkeypatch, settings, words
):
    given = {"sensor": "s1_grd", "classes": ("river", "forest"), **settings}
    with pytest.raises(ValueError, match=words):
        make_map(monkeypatch, tmp_path / "w", tiny_run, world[0], **given)
    assert not (tmp_path / "w" / "map" / "class.tif").exists()


def test_a_model_without_an_encoder_of_the_sensor_is_named(
    tiny_run, world, tmp_path, monkeypatch
):
    array = np.full((40, 40, 1), 290, np.float32)
    write_scene(tmp_path / "ir.tif", array)
    with pytest.raises(ValueError, match=r"encodes rgb, s1, and the scene .* ir_bt"):
        make_map(
            monkeypatch,
            tmp_path / "w",
            tiny_run,
            tmp_path / "ir.tif",
            sensor="ir_bt",
            unit="",
            classes=("river", "forest"),
        )
