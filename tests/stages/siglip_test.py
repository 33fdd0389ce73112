"""A SigLIP through the stages: patched by its sigmoid, teacher, measured, exported."""

import json
import shutil

import jax
import numpy as np
import pytest

import rsclip_jax
from configs import export
from rsclip_jax.data import tokenizer_files
from rsclip_jax.main import run_stages
from rsclip_jax.records.results import read_results
from rsclip_jax.weights import save_clip
from tests.helpers.runs import run_tiny, tiny_config
from tests.helpers.siglips import toy_params, toy_variant


@pytest.fixture(scope="module")
def siglip(tmp_path_factory):
    folder = tmp_path_factory.mktemp("siglip") / "toy"
    variant = toy_variant()
    save_clip(folder, variant, toy_params(variant), "hf")
    return folder


@pytest.fixture(scope="module")
def run(siglip, tmp_path_factory):
    """A workdir patched by loss "sigmoid", aligned and evaluated."""
    config = tiny_config(("patch", "align", "evaluate"), init=str(siglip), variant="")
    with config.unlocked():
        config.patch.loss = "sigmoid"
    workdir = tmp_path_factory.mktemp("siglip_run")
    run_tiny(workdir, config)
    return workdir


def test_it_is_patched_and_a_teacher(run, siglip):
    start, model = rsclip_jax.load(siglip), rsclip_jax.load(run)
    assert model.variant == start.variant
    tuned = rsclip_jax.load(run, alpha=1.0).params["visual"]["pool"]["probe"]
    assert np.any(tuned != start.params["visual"]["pool"]["probe"])
    for name in ("text", "logit_scale", "logit_bias"):
        same = np.testing.assert_array_equal
        jax.tree.map(same, model.params[name], start.params[name])
    assert rsclip_jax.load(run, alpha=0.0).digest == start.digest
    assert model.sensors["s1"].spec.pool == "map"
    assert model.encode(np.zeros((1, 32, 32, 2), np.float32) - 10).shape == (1, 48)
    found = {(r.task, r.sensor) for r in read_results(run / "results.jsonl")}
    assert {("zero_shot", "rgb"), ("retrieval", "s1->rgb")} <= found


def test_a_workdir_carries_its_tokenizer(run, tmp_path, monkeypatch):
    copy = tmp_path / "elsewhere"
    shutil.copytree(run, copy)
    want = rsclip_jax.load(run).encode_text("a river")
    monkeypatch.setattr(tokenizer_files, "_registered", {})
    np.testing.assert_array_equal(rsclip_jax.load(copy).encode_text("a river"), want)
    monkeypatch.setattr(tokenizer_files, "_registered", {})
    (copy / "align" / "tokenizer.json").unlink()
    with pytest.raises(ValueError, match=r"align: tokenizer\.json.* missing"):
        rsclip_jax.load(copy)


def test_it_is_exported_for_transformers(run, tmp_path):
    config = export.get_config()
    config.update(init=str(run), progress=False)
    with pytest.raises(ValueError, match=r"'open_clip' is not written .*use 'hf'"):
        run_stages(config, tmp_path / "a")
    config.export.layout = "hf"
    run_stages(config, tmp_path / "w")
    folder = tmp_path / "w" / "export"
    made, found = rsclip_jax.load(run), rsclip_jax.load(folder / "clip")
    assert found.digest == made.digest
    assert json.loads((folder / "clip" / "config.json").read_text())["model_type"] == (
        "siglip"
    )
    assert "SiglipModel" in (folder / "README.md").read_text()
    spec, _ = rsclip_jax.weights.load_encoder(folder / "s1")
    assert spec == made.sensors["s1"].spec


@pytest.mark.parametrize(
    ("init", "loss", "words"),
    [("siglip", "flyp", "'flyp' is for models of family 'clip'"), ("", "sigmoid", "")],
)
def test_a_loss_of_the_other_family_is_refused(siglip, tmp_path, init, loss, words):
    config = tiny_config(("patch",) if init else ("pretrain", "patch"))
    with config.unlocked():
        config.patch.loss = loss
        if init:
            config.update(init=str(siglip), variant="")
    words = words or "'sigmoid' is for models of family 'siglip', but mini is of 'clip'"
    with pytest.raises(ValueError, match=words):
        run_tiny(tmp_path / "w", config)
