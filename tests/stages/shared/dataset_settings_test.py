"""configs/patch.py and configs/align.py: a dataset file and a CLIP are enough."""

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

import rsclip_jax
from configs import align, align_sar, patch
from rsclip_jax.main import name_dataset, run_stages
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.stages.shared.dataset_settings import fill_in, find_parts
from rsclip_jax.stages.shared.workdir import differences
from rsclip_jax.train.checkpoint import load_meta
from rsclip_jax.weights import save_clip
from tests.helpers.runs import run_tiny

SET = """
reader = "csv"
table = "labels.csv"
[sensors]
rgb = "rgb"
s1 = "s1_grd"
[columns]
rgb = "photo"
s1 = "radar"
label = "class"
split = "split"
"""
SPLITS = ("train", "train", "val", "test")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A TOML file over a CSV of 64 pairs of two classes, red and blue."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    lines = ["photo,radar,class,split"]
    for i in range(64):
        label = i // 4 % 2
        picture = rng.integers(0, 80, (32, 32, 3), np.uint8)
        picture[..., 2 * label] += 150
        Image.fromarray(picture).save(folder / f"{i}.png")
        radar = rng.normal(-12, 3, (32, 32, 2)).astype(np.float32)
        tifffile.imwrite(folder / f"{i}.tif", radar, photometric="minisblack",
                         planarconfig="contig")  # fmt: skip
        lines.append(f"{i}.png,{i}.tif,{('red', 'blue')[label]},{SPLITS[i % 4]}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "mine.toml").write_text(SET)
    return folder / "mine.toml"


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """The file of a tiny random CLIP, which knows nothing."""
    variant, path = get_variant("mini"), tmp_path_factory.mktemp("clip") / "clip"
    save_clip(path, variant, jax.device_get(init_clip(variant, jax.random.key(0))))
    return str(path)


def small(config, stage, own, clip):
    """The config as the two flags leave it, with few steps."""
    config.data.dataset = str(own)
    config.init, config.progress, config.eval_batch_size = clip, False, 16
    config[stage].update(batch_size=16, steps=3, warmup=1, log_every=1)
    return config.lock()


def test_patching_needs_the_dataset_and_a_clip(own, clip, tmp_path, capsys):
    config = small(patch.get_config(), "patch", own, clip)
    records = run_tiny(tmp_path / "w", config)
    shown = capsys.readouterr().out
    for split in ("train", "val", "test"):
        assert f"config.patch.{split} = '{own}:{split}' (from {own})" in shown
    found = {(r.dataset, r.split) for r in records}
    assert {("mine", "val"), ("mine", "test"), ("miniature_natural", "val")} <= found
    # a random CLIP only guesses on the supported dataset, which cannot limit alpha
    assert "no better than guessing" in shown
    assert "no supported dataset limits alpha" in shown
    values = {
        r.alpha: r.value
        for r in records
        if (r.dataset, r.split, r.metric) == ("mine", "val", "accuracy")
    }
    best = max(values.values())
    alpha = load_meta(tmp_path / "w" / "patch").alpha
    assert alpha == min(a for a, value in values.items() if value == best)
    run_stages(config, tmp_path / "w")  # the same command again
    assert "patch: already done, skipped" in capsys.readouterr().out


@pytest.mark.slow
def test_aligning_needs_the_dataset_and_a_clip(own, clip, tmp_path):
    config = small(align.get_config(), "align", own, clip)
    records = run_tiny(tmp_path / "w", config)
    tasks = {(r.task, r.sensor) for r in records}
    assert {("zero_shot", "s1"), ("retrieval", "s1->rgb")} <= tasks
    model = rsclip_jax.load(tmp_path / "w")
    z = model.encode(np.full((2, 32, 32, 2), -12, np.float32), sensor="s1")
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1, rtol=1e-5)


def test_the_dataset_tells_splits_sensors_and_terms(own):
    config = align.get_config()
    config.data.dataset = str(own)
    filled, _ = fill_in(config.lock())
    assert filled.align.train == f"{own}:train"
    assert filled.align.test == (f"{own}:test",)
    assert filled.align.sensor == "s1"
    assert filled.align.losses == (("mse", 1.0), ("labels", 0.05))
    assert config.align.sensor == ""  # the config itself stays as it was
    config.data.dataset = "miniature"
    assert fill_in(config)[0].align.sensor == ("s1", "s2", "ir")
    config.data.dataset = "miniature_natural"
    with pytest.raises(ValueError, match="holds rgb, but stage align needs 'rgb' and"):
        fill_in(config)


def test_settings_that_are_given_stay(own):
    config = patch.get_config()
    config.data.dataset = str(own)
    config.patch.test = "eurosat_rgb:test"
    filled, lines = fill_in(config)
    assert filled.patch.test == "eurosat_rgb:test"
    assert filled.patch.val == f"{own}:val"
    assert len(lines) == 2


def test_other_configs_are_left_alone():
    config = align_sar.get_config()
    assert fill_in(config) == (config, [])
    config.data.dataset = "eurosat_rgb"
    with pytest.raises(ValueError, match=r"config\.data = eurosat_rgb has no effect"):
        fill_in(config)


def test_a_filled_config_may_be_run_again(own):
    config = patch.get_config()
    config.data.dataset = str(own)
    filled, _ = fill_in(config)
    assert fill_in(filled) == (filled, [])


def test_a_config_without_its_dataset_asks_for_it():
    with pytest.raises(ValueError, match=r"set --config\.data to the TOML file"):
        fill_in(patch.get_config())


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (("train", "train", "train", "test"), ("train[:90%]", "train[90%:]", "test")),
        (("train", "val", "val", "val"), ("train[:90%]", "train[90%:]", "val")),
        (("train",) * 4, ("train[:70%]", "train[70%:85%]", "train[85%:]")),
    ],
)
def test_a_part_of_train_stands_for_a_missing_split(own, tmp_path, words, want):
    table = (own.parent / "labels.csv").read_text().splitlines()
    rows = [line.rpartition(",")[0] for line in table[1:]]
    rows = [f"{row},{words[i % 4]}" for i, row in enumerate(rows)]
    (tmp_path / "mine.toml").write_text(f'folder = "{own.parent}"\n' + SET)
    (tmp_path / "labels.csv").write_text("\n".join([table[0], *rows]))
    config = patch.get_config()
    config.data.dataset = str(tmp_path / "mine.toml")
    assert tuple(find_parts(config).values()) == want


def test_the_flag_names_the_dataset_and_leaves_the_section_alone():
    given = ["main", "--config.data=mine.toml", "--config.data.threads=4", "--config=x"]
    want = ["main", "--config.data.dataset=mine.toml", *given[2:]]
    assert name_dataset(given) == want
    assert name_dataset(["-config.data", "a"]) == ["-config.data.dataset", "a"]


def test_a_newer_setting_that_is_off_does_not_refuse_an_older_workdir():
    old, new = {"patch": {"lr": 0.1}}, {"patch": {"lr": 0.1, "newer": False}}
    assert differences(old, new) == []
    new["patch"]["newer"] = True
    assert differences(old, new) == [
        "config.patch.newer: None in the workdir, True in this run"
    ]
