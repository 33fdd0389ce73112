"""config.align.cache: training is what it is without, and what it refuses."""

import dataclasses
import functools
import json

import jax
import numpy as np
import pytest

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.data.sources.wrappers import Wrapper
from rsclip_jax.models.clip import image_features
from rsclip_jax.stages.align import stage as align
from rsclip_jax.stages.align.settings import settings_of
from rsclip_jax.stages.align.teacher import check_cache, make_teaching
from tests.helpers.align import distil, make_student, teacher
from tests.helpers.runs import few_scenes, make_run, tiny_config

VIT = {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "heads": 1}
TURNS = {"flip_ud": True, "rotate": True, "speckle_looks": 4.0}


def config_with(augment=None, **settings):
    config = tiny_config()
    with config.unlocked():
        config.align.update(student="vit", vit=VIT, **settings)
        config.align.augment.update(augment or {})
    return config


class Torn(Wrapper):
    """A source some of whose sensors cannot be read; counts what is read."""

    def __init__(self, source, torn):
        super().__init__(source)
        self.torn, self.reads = torn, []

    def read(self, index, keys):
        self.reads += keys
        for key in keys:
            if index in self.torn.get(key, ()):
                raise ValueError(f"{key} of {index} is torn")
        return self.source[index]


TORN = {"rgb": (3, 20, 21), "s1": (5, 21, 40)}


def train(folder, torn=TORN, **settings):
    """(the curve of eight steps, the student, the source) of an alignment."""
    settings = {"steps": 8, "losses": (("mse", 1.0), ("info_nce", 0.1)), **settings}
    config = config_with(augment=TURNS, **settings)
    config.data.on_error = "skip"
    run = make_run(folder, config)
    with few_scenes():
        source = Torn(run.open("miniature:train"), torn)
        run.opened["miniature:train"] = source
        check_cache(run, settings_of(run), [source])
        begun = {"s1": make_student(run, get_sensor("s1_grd"))}
        student = distil(run, begun, [source], {})
    lines = (folder / "align" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines], student, source


@pytest.mark.slow
def test_training_with_the_cache_is_training_without(tmp_path, capsys):
    """Order, views, noise, stand-ins for what cannot be read, and the loss."""
    plain, _, _ = train(tmp_path / "off")
    shared = str(tmp_path / "shared")
    kept, _, built = train(tmp_path / "d4", cache="d4", cache_dir=shared)
    exact, _, reused = train(tmp_path / "exact", cache="exact", cache_dir=shared)
    for curve in (kept, exact):
        for key in ("loss", "mse", "info_nce", "grad_norm"):
            got, want = ([line[key] for line in c] for c in (curve, plain))
            np.testing.assert_allclose(got, want, rtol=1e-5)
    assert len({line["loss"] for line in plain}) == len(plain) == 8
    assert built.reads.count("rgb") >= 64
    # eight looked at again, three looked for again and their stand-ins
    assert reused.reads.count("rgb") < 25
    assert not (tmp_path / "d4" / "align" / "teacher_features").exists()
    assert "64 records x 8 view(s) x 64 x 4 bytes" in capsys.readouterr().out


def test_the_features_are_the_teachers_of_the_turned_picture(tmp_path):
    """And with them neither the tower nor a picture is part of a step."""
    run = make_run(tmp_path, config_with(augment={"rotate": True}, cache="exact"))
    with few_scenes():
        source = run.open("miniature:train")
        taught = make_teaching(run, settings_of(run), teacher(), [source], ("s1",))
        assert jax.tree.leaves((taught.frozen, taught.sizes)) == []
        places = [0, 17, 63]
        found = [
            taught.train[0][i]["teacher"][view] for i in places for view in range(8)
        ]
        turned = [
            np.rot90(np.fliplr(rgb) if view >= 4 else rgb, view % 4)
            for rgb in (source[i]["rgb"] for i in places)
            for view in range(8)
        ]
    encode = jax.jit(functools.partial(image_features, variant=teacher().variant))
    want = encode(teacher().params["visual"], np.stack(turned))
    np.testing.assert_allclose(np.stack(found), want, rtol=1e-4, atol=1e-5)
    batch = {"teacher": found[0]}
    assert taught.encode(taught.frozen, batch) is found[0]


def test_an_image_without_turns_has_one_view(tmp_path):
    still = {"flip_lr": False, "flip_ud": False, "rotate": False}
    run = make_run(tmp_path, config_with(augment=still, cache="exact"))
    with few_scenes():
        source = run.open("miniature:train")
        taught = make_teaching(run, settings_of(run), teacher(), [source], ("s1",))
        assert taught.train[0][0]["teacher"].keys() == {0}
        assert (tmp_path / "align" / "teacher_features" / "meta.json").exists()
        changed = dataclasses.replace(
            teacher().variant, activation="gelu", image_mean=(0.5, 0.5, 0.5)
        )
        for other, words in (
            ({"digest": "b"}, "teacher digest: 'a' in the cache, 'b' in"),
            ({"variant": changed}, "(?s)activation: .*teacher image_mean: "),
        ):
            clip = dataclasses.replace(teacher(), **other)
            with pytest.raises(ValueError, match=words):
                make_teaching(run, settings_of(run), clip, [source], ("s1",))
        check_cache(run, settings_of(run), [source])
        run.config.align.augment.rotate = True
        for start in (
            lambda: check_cache(run, settings_of(run), [source]),
            lambda: make_teaching(run, settings_of(run), teacher(), [source], ()),
        ):
            with pytest.raises(ValueError, match=r"\[0\] in the cache, .* \[1, 2, 3\]"):
                start()
        other_set = run.open("miniature_multi:train")
        with pytest.raises(ValueError, match="dataset name: 'miniature:train' in the"):
            check_cache(run, settings_of(run), [other_set])
        run.config.overwrite = True
        check_cache(run, settings_of(run), [other_set])


def test_each_of_several_sets_has_features_of_its_own(tmp_path):
    run = make_run(tmp_path, config_with(augment={"flip_lr": False}, cache="exact"))
    with few_scenes():
        train = [run.open(f"miniature:{split}") for split in ("train", "val")]
        taught = make_teaching(run, settings_of(run), teacher(), train, ("s1",))
        encode = jax.jit(functools.partial(image_features, variant=teacher().variant))
        for kept, source in zip(taught.train, train, strict=True):
            assert kept.ids == source.ids
            want = encode(teacher().params["visual"], source[5]["rgb"][None])[0]
            found = kept[5]["teacher"][0]
            np.testing.assert_allclose(found, want, rtol=1e-4, atol=1e-5)
        check_cache(run, settings_of(run), train)
        folder = tmp_path / "align" / "teacher_features"
        assert {path.name for path in folder.iterdir()} == {
            "miniature_train",
            "miniature_val",
        }
        (folder / "miniature_val").rename(folder / "away")
        (folder / "miniature_train").rename(folder / "miniature_val")
        with pytest.raises(ValueError, match="dataset name: 'miniature:train' in the"):
            check_cache(run, settings_of(run), train)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache": "d8"}, r"config\.align\.cache = 'd8' .* 'off', 'exact', 'd4'"),
        ({"cache_dir": "x"}, r"cache_dir = 'x' .*'exact' or 'd4'"),
        (
            {"cache": "d4", "augment": {"crop_scale": (0.5, 1.0), "jitter": 0.4}},
            r"cache = 'd4', but config\.align\.augment has crop_scale = \(0\.5, 1\.0\),"
            r" jitter = 0\.4: .* set crop_scale = \(1\.0, 1\.0\), jitter ="
            r" 0\.0, or --config\.align\.cache=off",
        ),
        ({"cache": "exact", "augment": {"crop_pixels": 20}}, "crop_pixels = 20"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_anything_starts(
    tmp_path, settings, words
):
    run = make_run(tmp_path, config_with(**settings))
    with few_scenes(), pytest.raises(ValueError, match=words):
        align.check_align(run)
