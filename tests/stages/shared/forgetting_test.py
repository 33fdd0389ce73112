"""What stage evaluate says of a reference, against the records of both models."""

import dataclasses

import numpy as np
import pytest

from configs import evaluate
from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import captions_digest
from rsclip_jax.evals import search
from rsclip_jax.records.results import read_results
from rsclip_jax.report.table import format_table
from rsclip_jax.stages.evaluate.stage import is_evaluated
from rsclip_jax.stages.shared.forgetting import (
    check_forgetting,
    outcomes_of,
    report_forgetting,
)
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import save_clip
from tests.helpers.changed import ONE_CLASS, Captioned, Changed
from tests.helpers.outcomes import make_outcome
from tests.helpers.runs import few_scenes, make_run, run_tiny, tiny_config
from tests.helpers.shares import share_bounds


def config_of(init, reference, *sets, datasets=("miniature:test",), **more):
    config = evaluate.get_config()
    config.update(init=str(init), datasets=datasets, progress=False, **more)
    config.evaluate.update(reference=str(reference), forgetting=sets)
    config.eval_batch_size = 16
    return config.lock()


def forgotten(results):
    return {
        (r.dataset, r.sensor, r.metric): r for r in results if r.task == "forgetting"
    }


def test_a_patched_workdir_is_compared_with_what_it_patched(tiny_run, tmp_path):
    sets = ("miniature_natural:test", "miniature_multi:test")
    config = config_of(tiny_run, tiny_run, *sets)
    found = forgotten(run_tiny(tmp_path / "w", config))
    assert [key[2] for key in found] == ["accuracy", "mAP_macro"]
    first = read_results(tiny_run / "results.jsonl")
    (patched,) = forgotten(first).values()
    again = found["miniature_natural", "rgb", "accuracy"]
    for key in ("value", "before", "ci95", "p_value", "n", "per_class", "checkpoint"):
        assert getattr(again, key) == getattr(patched, key)
    clip = checkpoint.load_meta(tiny_run / "pretrain").digest
    assert again.reference == clip
    run = make_run(tmp_path / "w", config)
    with few_scenes():
        assert is_evaluated(run)
        other = config_of(tiny_run, tmp_path, *sets)
        assert not is_evaluated(make_run(tmp_path / "w", other))
    assert "forgetting  rgb" in format_table(list(found.values()))


def test_captions_are_forgotten_through_each_model_s_own_text(tiny_run, tmp_path):
    models = {"before": api.load(tiny_run, alpha=0.0), "after": api.load(tiny_run)}
    with few_scenes():
        run = make_run(tmp_path, tiny_config())
        source = Captioned(run.open("miniature:val"))
        report_forgetting(run, **outcomes_of(run, models, source))
        records = [source[i] for i in range(len(source))]
    found = forgotten(read_results(run.results))
    assert {key[1] for key in found} == {"text->rgb", "rgb->text"}
    texts = [t for r in records for t in r["captions"]]
    owners = np.array([i for i, r in enumerate(records) for _ in r["captions"]])
    bounds = []
    for model in models.values():
        z = model.encode_image([r["rgb"] for r in records])
        ztxt = model.encode_text(texts, truncate=True)
        bounds.append(share_bounds(ztxt @ z.T, owners, 10))
    lost = found["miniature", "text->rgb", "recall@10"]
    (low_0, high_0), (low_1, high_1) = bounds
    assert low_1 - high_0 - 1e-6 <= lost.value <= high_1 - low_0 + 1e-6
    assert lost.prompts == captions_digest([r["captions"] for r in records])
    assert lost.n == len(owners)


def test_the_search_is_over_the_run_s_devices(tmp_path, monkeypatch):
    monkeypatch.setattr(search, "_SMALL", 0)
    used = []
    tiles = search._Tiles.of
    monkeypatch.setattr(search._Tiles, "of", lambda *z: used.append(z[2]) or tiles(*z))
    run, one = make_run(tmp_path, tiny_config()), make_outcome(0, "captions")
    pins = {"stage": "evaluate", "step": 0, "checkpoint": {"rgb": "c"}}
    one = dataclasses.replace(one, pins={**one.pins, **pins})
    report_forgetting(run, one, one)
    assert used == [run.mesh] * 4  # both ways, before and after


def test_a_weight_file_is_a_reference(tiny_run, tmp_path):
    model = api.load(tiny_run)
    file = tmp_path / "clip.safetensors"
    save_clip(file, model.variant, model.params)
    config = config_of(tiny_run, file, "miniature:test")
    (found,) = forgotten(run_tiny(tmp_path / "w", config)).values()
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.reference == found.checkpoint == model.digests["clip"]


@pytest.mark.parametrize(
    ("reference", "sets", "said"),
    [
        ("", ("miniature:test",), r"config\.evaluate\.forgetting = .*reference to"),
        (
            "x.pt",
            (),
            r"config\.evaluate\.reference = 'x\.pt' needs datasets to compare on",
        ),
        ("x", ("minature:val",), r"evaluate\.forgetting: .*did you mean 'miniature'"),
    ],
)
def test_what_is_missing_is_said(tmp_path, reference, sets, said):
    with pytest.raises(ValueError, match=said):
        run_tiny(tmp_path / "w", config_of("x", reference, *sets))


def test_a_reference_that_is_none_is_said(tiny_run, tmp_path):
    config = config_of(tiny_run, tmp_path / "no.pt", "miniature:test")
    said = r"config\.evaluate\.reference = .*no\.pt'.*no such file"
    with pytest.raises(FileNotFoundError, match=said):
        run_tiny(tmp_path / "w", config)


@pytest.mark.parametrize("field", ["activation", "image_mean"])
def test_a_reference_that_says_another_variant_is_refused(tiny_run, tmp_path, field):
    """And before anything is evaluated."""
    model = api.load(tiny_run)
    other = {"activation": "gelu", "image_mean": (0.5, 0.5, 0.5)}[field]
    row = dataclasses.replace(model.variant, **{field: other})
    file = tmp_path / "clip.safetensors"
    save_clip(file, row, model.params)
    config = config_of(tiny_run, file, "miniature:test")
    with pytest.raises(ValueError, match=f"has {field} .*did not start from"):
        run_tiny(tmp_path / "w", config)
    assert read_results(tmp_path / "w/results.jsonl") == []


def test_a_set_of_one_class_tells_nothing(tmp_path):
    with few_scenes():
        run = make_run(tmp_path, config_of("x", "y", "x:val"))
        run.opened["x:val"] = Changed(run.open("miniature:val"), **ONE_CLASS)
        said = r"config\.evaluate\.forgetting = 'x:val' has one class, 'river'"
        with pytest.raises(ValueError, match=said):
            check_forgetting(run, "y", ("x:val",))
