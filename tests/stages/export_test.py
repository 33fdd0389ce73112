"""Stage export: what it writes reads back as what the run made, at any alpha."""

import json
import re
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import rsclip_jax
from configs import export
from rsclip_jax.interpolate import interpolate
from rsclip_jax.main import run_stages
from rsclip_jax.models.clip import init_clip
from rsclip_jax.records import results
from rsclip_jax.report.numbers import value_text
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import load_encoder, save_clip
from tests.golden import OPENAI_HEADS, toy_variant
from tests.helpers import evaluate, runs


def config_of(init, **settings):
    config = export.get_config()
    config.update(init=str(init), progress=False)
    config.export.update(**settings)
    return config.lock()


def run_export(workdir, init, **settings):
    run_stages(config_of(init, **settings), workdir)
    return workdir / "export"


@pytest.mark.parametrize(
    ("layout", "name"),
    [("open_clip", "clip"), ("hf", "clip")],
)
def test_every_layout_holds_the_run_s_models(tiny_run, tmp_path, layout, name):
    folder = run_export(tmp_path / "w", tiny_run, layout=layout)
    made, found = rsclip_jax.load(tiny_run), rsclip_jax.load(folder / name)
    assert found.variant == made.variant
    assert found.digests["clip"] == made.digests["clip"]
    spec, params = load_encoder(folder / "s1")
    want_spec, want = made.sensors["s1"]
    assert spec == want_spec
    jax.tree.map(np.testing.assert_array_equal, params, want)


@pytest.mark.slow
def test_openais_layout_is_one_file_of_what_its_code_builds(tiny_run, tmp_path):
    with pytest.raises(ValueError, match="width of a visual head"):
        run_export(tmp_path / "mini", tiny_run, layout="openai")
    row = toy_variant("quick_gelu", vision_width=64, **OPENAI_HEADS)
    params = jax.device_get(init_clip(row, jax.random.key(0)))
    save_clip(tmp_path / "a.safetensors", row, params)
    folder = run_export(tmp_path / "w", tmp_path / "a.safetensors", layout="openai")
    found = rsclip_jax.load(folder / "clip.safetensors")
    jax.tree.map(np.testing.assert_array_equal, found.params, params)


def test_a_clip_of_another_workdir_keeps_its_history(tiny_run, tmp_path):
    """Aligned elsewhere: the card still says that the CLIP was patched, and how."""
    other = tmp_path / "other"
    shutil.copytree(tiny_run / "align", other / "align")
    folder = run_export(tmp_path / "w", other)
    card = (folder / "README.md").read_text()
    assert "chosen on validation data" in card
    assert checkpoint.load_meta(tiny_run / "patch").sources["theta_1"]["digest"] in card


def test_the_card_says_method_alpha_sources_and_results(tiny_run, tmp_path):
    folder = run_export(tmp_path / "w", tiny_run)
    card = (folder / "README.md").read_text()
    meta = checkpoint.load_meta(tiny_run / "patch")
    assert f"**alpha = {meta.alpha:g}**, chosen on validation data" in card
    for source in meta.sources.values():
        assert source["digest"] in card
    assert meta.digest in card
    assert "VV, VH" in card
    assert str(tiny_run) not in card  # it is read on other machines
    ours = {meta.digest, checkpoint.load_meta(tiny_run / "align").digest}
    records = results.read_results(tiny_run / "results.jsonl")
    exact = [r for r in records if set(r.checkpoint.split("+")) <= ours]
    assert exact
    assert len(exact) < len(records)
    for r in exact:
        shots = f", {r.shots} a class" if r.shots is not None else ""
        value = value_text(r.value, r.metric, r.task)
        assert f"| {r.metric}{shots} | {value} | {r.n} |" in card


def test_the_card_s_commands_run(tiny_run, tmp_path, monkeypatch):
    folder = run_export(tmp_path / "w", tiny_run)
    code = (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]
    ours = [line for line in code.splitlines() if "rsclip_jax." in line]
    assert len(ours) == 2
    monkeypatch.chdir(folder)
    for line in ours:
        exec(line, {"rsclip_jax": rsclip_jax})


def test_the_student_and_the_text_tower_go_out_as_one_clip(tiny_run, tmp_path):
    """It scores as in the run, and only stages that need no RGB take it."""
    made = run_export(tmp_path / "w", tiny_run, with_text=("s1",)) / "clip_s1"
    config = evaluate.config_of(made, "miniature:test")
    found = runs.run_tiny(tmp_path / "evaluated", config)
    want = results.read_results(tiny_run / "results.jsonl")
    key = ("dataset", "task", "metric", "sensor")

    def values(rows):
        kept = [r for r in rows if r.stage == "evaluate" and "rgb" not in r.sensor]
        return {tuple(getattr(r, k) for k in key): r.value for r in kept}

    same = {k: v for k, v in values(want).items() if k[0] == "miniature"}
    ours = values(found)
    assert ours
    assert ours == {k: same[k] for k in ours}
    assert ("miniature", "zero_shot", "accuracy", "s1") in ours
    with pytest.raises(ValueError, match=r"'patch' needs a CLIP of RGB.*bands of s1"):
        runs.run_tiny(
            tmp_path / "patched", runs.tiny_config(("patch",), init=str(made))
        )
    with pytest.raises(ValueError, match=r"with_text = \(\).*lose its text tower"):
        run_export(tmp_path / "again", made)
    again = run_export(tmp_path / "again", made, with_text=("s1",))
    models = (rsclip_jax.load(again / "clip_s1"), rsclip_jax.load(made))
    assert models[0].digests == models[1].digests
    with pytest.raises(ValueError, match=r"\('s2',\): the model has encoders of \['s1"):
        run_export(tmp_path / "other", tiny_run, with_text=("s2",))


@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_another_alpha_mixes_the_run_s_own_ends(tiny_run, tmp_path, alpha):
    folder = run_export(tmp_path / "w", tiny_run, alpha=alpha)
    theta_0, _ = checkpoint.load_product(tiny_run / "pretrain")
    theta_1 = checkpoint.load_trained(tiny_run / "patch")
    want = interpolate(theta_0["visual"], theta_1, alpha)
    found = rsclip_jax.load(folder / "clip")
    jax.tree.map(np.testing.assert_array_equal, found.params["visual"], want)
    jax.tree.map(np.testing.assert_array_equal, found.params["text"], theta_0["text"])
    assert not (folder / "s1").exists()
    card = (folder / "README.md").read_text()
    assert f"**alpha = {alpha:g}**." in card
    assert "chose alpha" not in card
    assert "align" not in card.split("## Sources")[1].split("## Results")[0]


def test_the_chosen_alpha_is_the_product_bit_for_bit(tiny_run):
    alpha = checkpoint.load_meta(tiny_run / "patch").alpha
    mixed, made = rsclip_jax.load(tiny_run, alpha=alpha), rsclip_jax.load(tiny_run)
    assert mixed.digests["clip"] == made.digests["clip"]
    assert mixed.sensors == {}


def test_ends_that_changed_are_not_mixed(tiny_run, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(tiny_run, copy)
    meta = json.loads((copy / "patch" / "meta.json").read_text())
    meta["sources"]["theta_1"]["digest"] = "0" * 16
    (copy / "patch" / "meta.json").write_text(json.dumps(meta))
    with pytest.raises(ValueError, match=r"from theta_1 with digest 0{16}"):
        rsclip_jax.load(copy, alpha=0.5)
    shutil.rmtree(copy / "patch" / "checkpoints")
    with pytest.raises(FileNotFoundError, match="no checkpoint"):
        rsclip_jax.load(copy, alpha=0.5)


def test_a_weight_file_is_converted(tmp_path):
    save_clip(tmp_path / "a.safetensors", "mini", init_clip("mini", jax.random.key(0)))
    init = tmp_path / "a.safetensors"
    folder = run_export(tmp_path / "w", init, layout="hf", dtype="float16")
    made, found = rsclip_jax.load(init), rsclip_jax.load(folder / "clip")
    halved = jax.tree.map(
        lambda x: np.asarray(x).astype(np.float16).astype(np.float32), made.params
    )
    jax.tree.map(np.testing.assert_array_equal, found.params, halved)
    card = (folder / "README.md").read_text()
    assert "Converted, not trained further." in card
    assert "No result was measured with exactly these weights." in card
    with pytest.raises(ValueError, match=r"alpha = 0\.5: .*is not a workdir"):
        run_export(tmp_path / "x", init, alpha=0.5)


def test_a_finished_export_is_not_written_again(tiny_run, tmp_path, capsys):
    folder = run_export(tmp_path / "w", tiny_run)
    before = (folder / "README.md").stat().st_mtime_ns
    run_export(tmp_path / "w", tiny_run)
    assert "already done" in capsys.readouterr().out
    assert (folder / "README.md").stat().st_mtime_ns == before
    with pytest.raises(ValueError, match=r"config\.export\.layout: 'open_clip' in the"):
        run_export(tmp_path / "w", tiny_run, layout="hf")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"layout": "timm"}, r"config\.export\.layout = 'timm' is not known; use open"),
        ({"dtype": "int8"}, r"config\.export\.dtype = 'int8' is not known; use float"),
        ({"alpha": 1.5}, r"config\.export\.alpha = 1\.5 must lie between 0 and 1"),
    ],
)
def test_bad_settings_are_named(tiny_run, tmp_path, settings, words):
    with pytest.raises(ValueError, match=words):
        run_export(tmp_path / "w", tiny_run, **settings)


def test_without_a_model_it_says_how_to_give_one(tmp_path):
    with pytest.raises(ValueError, match=r"set --config\.init to the workdir"):
        run_stages(config_of(""), tmp_path / "w")


def test_the_cards_snippets_of_programs_run_without_the_package(tiny_run, tmp_path):
    folder = run_export(tmp_path / "w", tiny_run, programs=("stablehlo",))
    card = (folder / "README.md").read_text()
    snippets = re.findall(r"```python\n(from jax.*?)```", card, re.DOTALL)
    assert len(snippets) == 3  # image, text, s1
    code = "\n".join(f"{s}\nassert z.shape == (2, 64)" for s in snippets)
    command = [sys.executable, "-I", "-c", code]
    subprocess.run(command, check=True, timeout=120, cwd=folder)
    assert card.count(".stablehlo | ") == 6  # its name, and its file with a sha256
    with pytest.raises(ValueError, match=r"export\.programs = \('tflite',\)"):
        run_export(tmp_path / "v", tiny_run, programs=("tflite",))
