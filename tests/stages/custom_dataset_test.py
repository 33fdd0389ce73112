"""A set of the user's own through the stages: packed, inspected, evaluated."""

import json
import shutil

import jax
import numpy as np
import pytest
import tifffile
from PIL import Image

from configs import evaluate, inspect, pack
from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import SATELLITE_TEMPLATES
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.sources.digests import labels_digest, split_digest
from rsclip_jax.data.sources.wrappers import TiledSource
from rsclip_jax.main import run_stages
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.stages.shared.closing import close
from rsclip_jax.train import checkpoint, resume
from rsclip_jax.weights import save_clip
from tests.helpers.align import batches_of
from tests.helpers.marks import slow
from tests.helpers.results import make_result
from tests.helpers.runs import make_run, run_tiny, tiny_config
from tests.helpers.shares import assert_share

SET = """
reader = "csv"
table = "labels.csv"
[sensors]
rgb = "rgb"
ir = "my_thermal.toml"
[columns]
rgb = "photo"
ir = "thermal"
label = "class"
split = "split"
"""
SENSOR = """
modality = "ir"
bands = ["T1", "T2"]
unit = "DN"
dtype = "uint16"
wavelengths = [10.8, 12.0]
resolution = [100, 100]
mean = [500, 500]
std = [100, 100]
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A TOML file over 16 training records and 8 of val and test, two classes."""
    folder, rng = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    lines = ["photo,thermal,class,split"]
    for i in range(32):
        split = ("train", "train", "val", "test")[i % 4]
        photo, thermal = f"{i}.png", f"{i}.tif"
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(
            folder / photo
        )
        array = rng.integers(1, 1000, (32, 32, 2), np.uint16)
        tifffile.imwrite(
            folder / thermal, array, photometric="minisblack", planarconfig="contig"
        )
        lines.append(f"{photo},{thermal},{('sea', 'dry_land')[i // 4 % 2]},{split}")
    (folder / "labels.csv").write_text("\n".join(lines))
    (folder / "my_thermal.toml").write_text(SENSOR)
    (folder / "my_set.toml").write_text(SET)
    return folder


def run_pack(own, out, workdir):
    config = pack.get_config()
    config.update(dataset=str(own / "my_set.toml"), progress=False)
    config.pack.update(out=str(out), workers=1)
    run_stages(config.lock(), workdir)


def test_a_pack_is_read_through_the_same_file(own, tmp_path, capsys):
    run_pack(own, tmp_path / "out", tmp_path / "w")
    assert "pack: my_set:train 16 records" in capsys.readouterr().out
    path = str(own / "my_set.toml")
    manifest = tmp_path / "out" / "my_set" / "train" / "manifest.json"
    assert str(own) not in manifest.read_text()
    sensors = json.loads(manifest.read_text())["sensors"]
    assert sensors["ir"]["sensor"] == "my_thermal.toml"

    # elsewhere, and without the archive
    moved = tmp_path / "moved"
    moved.mkdir()
    for name in ("my_set.toml", "my_thermal.toml"):
        (moved / name).write_text((own / name).read_text())
    for split in ("train", "val", "all", "train[:50%]"):
        want = open_source(path, "", split)
        found = open_source(str(moved / "my_set.toml"), tmp_path / "out", split)
        assert split_digest(found) == split_digest(want)
        assert found.dataset.classes == want.dataset.classes == ("dry_land", "sea")
        assert found.dataset.classnames == ("dry land", "sea")
        for i in range(0, len(want), 5):
            for key in ("rgb", "ir"):
                np.testing.assert_array_equal(found[i][key], want[i][key])
            assert found[i]["label"] == want[i]["label"]

    # a file that says something else of the records is not that of the pack
    other = SET.replace('rgb = "photo"', 'rgb = "picture"')
    (moved / "my_set.toml").write_text(other)
    words = r"my_set\.toml has changed since it was packed; pack it again into another"
    with pytest.raises(ValueError, match=words):
        open_source(str(moved / "my_set.toml"), tmp_path / "out", "val")


def test_a_table_that_was_changed_is_packed_anew_and_not_read_as_it_was(own, tmp_path):
    copy = shutil.copytree(own, tmp_path / "copy")
    run_pack(copy, tmp_path / "out", tmp_path / "w")
    table = copy / "labels.csv"
    lines = table.read_text().replace("0.png,0.tif,sea", "0.png,0.tif,dry_land")
    table.write_text(lines)
    words = r"labels\.csv has changed since it was packed"
    with pytest.raises(ValueError, match=words):
        open_source(str(copy / "my_set.toml"), tmp_path / "out", "train")
    with pytest.raises(ValueError, match=r"was begun with .*: the archive .* changed"):
        run_pack(copy, tmp_path / "out", tmp_path / "w2")


def test_inspect_shows_it(own, tmp_path, capsys):
    config = inspect.get_config()
    config.update(dataset=str(own / "my_set.toml"), progress=False)
    run_stages(config.lock(), tmp_path / "w")
    said = capsys.readouterr().out
    assert "dry land" in said or "dry_land" in said
    summary = json.loads((tmp_path / "w/inspect/my_set/summary.json").read_text())
    assert summary["dataset"] == "my_set"
    assert summary["splits"]["train"]["classes"] == [8, 8]
    assert summary["sensors"]["ir"]["bands"] == ["T1", "T2"]
    assert (tmp_path / "w/inspect/my_set/contact_sheet.png").exists()


def test_it_is_evaluated_under_its_files_stem(own, tmp_path, capsys):
    row, name = get_variant("mini"), str(own / "my_set.toml")
    params = jax.device_get(init_clip(row, jax.random.key(0)))
    save_clip(tmp_path / "clip.safetensors", row, params)
    config = evaluate.get_config()
    config.update(init=str(tmp_path / "clip.safetensors"), progress=False)
    config.datasets = (f"{name}:test[:100%]:16",)
    config.eval_batch_size = 16
    results = run_tiny(tmp_path / "w", config.lock())
    (record,) = (r for r in results if r.metric == "accuracy")
    model = api.load(tmp_path / "clip.safetensors")
    source = TiledSource(open_source(name, "", "test"), 16)
    z = model.encode_image([source[i]["rgb"] for i in range(len(source))])
    head = model.zero_shot(["dry land", "sea"], SATELLITE_TEMPLATES)
    labels = np.array([source[i]["label"] for i in range(len(source))])
    assert_share(record.value, z @ head, labels)
    assert (record.dataset, record.split) == ("my_set", "test[:100%]")
    assert record.split_digest == split_digest(source)


SWAPPED = 'classes = ["sea", "dry_land"]\n' + SET


@pytest.fixture
def copied(own, tmp_path):
    """The set in a folder where its files may change."""
    return shutil.copytree(own, tmp_path / "set")


@pytest.mark.slow
def test_a_training_does_not_go_on_with_other_data(copied, tmp_path):
    config = tiny_config(("pretrain",))
    with config.unlocked():
        config.pretrain.update(train=(f"{copied}/my_set.toml:train",), test=())
    workdir = tmp_path / "w"
    run_tiny(workdir, config)
    stage = workdir / "pretrain"
    source = open_source(str(copied / "my_set.toml"), "", "train")
    digests = {"my_set:train": split_digest(source)}
    digests["my_set:train labels"] = labels_digest(source)
    assert checkpoint.load_meta(stage).data == digests
    assert resume.begun_sources(stage) == {
        "compute": {"precision": "float32"},
        "data": digests,
    }
    shutil.rmtree(stage / "params")  # as if it was killed before it was done
    (copied / "my_set.toml").write_text(SWAPPED)
    old = digests["my_set:train"]
    words = f"data my_set:train: '{old}' then, .*choose another --workdir, or remove"
    with pytest.raises(ValueError, match=f"(?s){words}"):
        run_tiny(workdir, config)


RELABELLED = ("0.png,0.tif,sea", "0.png,0.tif,dry_land")


@pytest.mark.slow
def test_labels_that_changed_under_the_same_ids_are_noticed(copied, tmp_path, capsys):
    config = tiny_config(("pretrain",))
    with config.unlocked():
        config.pretrain.update(train=(f"{copied}/my_set.toml:train",), test=())
    workdir, table = tmp_path / "w", copied / "labels.csv"
    run_tiny(workdir, config)
    before = split_digest(open_source(str(copied / "my_set.toml"), "", "train"))
    capsys.readouterr()
    run_tiny(workdir, config)
    assert "warning" not in capsys.readouterr().out
    table.write_text(table.read_text().replace(*RELABELLED))
    assert split_digest(open_source(str(copied / "my_set.toml"), "", "train")) == before
    run_tiny(workdir, config)
    said = capsys.readouterr().out
    assert "warning: the training data of pretrain has changed since" in said
    assert "my_set:train labels; to train on it, remove" in said
    shutil.rmtree(workdir / "pretrain" / "params")  # begun, and not done
    words = r"data my_set:train labels: '\w+' then, '\w+' now\nchoose another --workdir"
    with pytest.raises(ValueError, match=words):
        run_tiny(workdir, config)


def test_labels_are_the_archives_and_the_packs_alike(copied, tmp_path):
    run_pack(copied, tmp_path / "out", tmp_path / "w")
    path, found = str(copied / "my_set.toml"), set()
    for split in ("train", "val", "train[:50%]"):
        want, packed = (open_source(path, x, split) for x in ("", tmp_path / "out"))
        assert labels_digest(packed) == labels_digest(want) != ""
        tiles = labels_digest(TiledSource(packed, 16))
        assert tiles == labels_digest(TiledSource(want, 16))
        found |= {labels_digest(want), tiles}
    assert len(found) == 6
    # another class in the table is another head, though no label of val is another
    before = labels_digest(open_source(path, "", "val"))
    table = copied / "labels.csv"
    table.write_text(table.read_text().replace("0.png,0.tif,sea", "0.png,0.tif,bog"))
    assert labels_digest(open_source(path, "", "val")) != before
    assert labels_digest(open_source("miniature", "", "val")) == ""


@pytest.mark.parametrize("change", [slow("file"), "labels"])
def test_data_that_changed_is_evaluated_anew(copied, tmp_path, capsys, change):
    row, toml = get_variant("mini"), copied / "my_set.toml"
    params = jax.device_get(init_clip(row, jax.random.key(0)))
    save_clip(tmp_path / "clip.safetensors", row, params)
    config = evaluate.get_config()
    config.update(init=str(tmp_path / "clip.safetensors"), progress=False)
    config.update(datasets=(f"{toml}:test",), eval_batch_size=16)
    workdir, config = tmp_path / "w", config.lock()
    first = run_tiny(workdir, config)
    capsys.readouterr()
    assert run_tiny(workdir, config) == first
    assert "already done, skipped" in capsys.readouterr().out
    if change == "file":
        toml.write_text(SWAPPED)
    else:
        table = copied / "labels.csv"
        table.write_text(
            table.read_text().replace("3.png,3.tif,sea", "3.png,3.tif,bog")
        )
    second = run_tiny(workdir, config)
    same = second[0].split_digest == first[0].split_digest
    assert same == (change == "labels")
    assert "already done" not in capsys.readouterr().out
    toml.unlink()  # what is gone has not changed
    assert run_tiny(workdir, config) == second


def test_pairs_of_it_are_batches_of_training(own, tmp_path):
    config = tiny_config(("align",))
    with config.unlocked():
        config.align.update(train=f"{own / 'my_set.toml'}:train", sensor="ir")
    run = make_run(tmp_path, config)
    source = run.open(config.align.train)
    sizes = {"rgb": 32, "ir": 32}
    batch = next(iter(batches_of(run, [source], sizes)))
    assert batch["rgb"].shape == (16, 32, 32, 3)
    assert batch["ir"].shape == (16, 32, 32, 2)
    assert sorted(batch["label"].tolist()) == [0] * 8 + [1] * 8


def test_two_sets_of_one_stem_are_refused(own, copied, tmp_path, monkeypatch):
    config = evaluate.get_config()
    files = [str(folder / "my_set.toml") for folder in (own, copied)]
    config.datasets = tuple(f"{file}:test" for file in files)
    words = f"config.datasets: {files[0]} and {files[1]} are both 'my_set' in results"
    with pytest.raises(ValueError, match=words):
        run_tiny(tmp_path / "w", config.lock())
    monkeypatch.chdir(own)
    run = make_run(tmp_path, config)
    for spec in ("my_set.toml:val", f"{own}/my_set.toml:test"):  # one file is no two
        run.open(spec)


def test_the_closing_table_has_its_test_sets_alone(own, tmp_path, capsys):
    """They are told from validation sets by what config.patch calls them."""
    config = tiny_config(("patch",))
    with config.unlocked():
        config.patch.update(test=f"{own}/my_set.toml:test:16", supported_test=())
    run = make_run(tmp_path, config)
    made = {"dataset": "my_set", "tile": 16, "alpha": 0}
    run.write(make_result(**made, split=split) for split in ("val", "test"))
    close(run)
    lines = [line for line in capsys.readouterr().out.split("\n") if "my_set" in line]
    assert len(lines) == 1
    assert "test:16" in lines[0]
