"""Probes in stage evaluate: what is refused, encoded, reported and done again."""

import copy
import dataclasses
import json

import numpy as np
import pytest

from configs import evaluate
from rsclip_jax import api
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import Wrapper
from rsclip_jax.evals import probe
from rsclip_jax.main import run_stages
from rsclip_jax.records.outcomes import load_outcomes
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.evaluate import encoders as encoders_of
from rsclip_jax.stages.evaluate import probes, stage
from rsclip_jax.stages.evaluate.settings import Parts
from rsclip_jax.stages.shared.run import Run
from tests.helpers.runs import few_scenes, make_run, run_tiny

SETS = ("miniature:train", "miniature:val", "miniature:test")


def config_of(init, *, datasets=(), **settings):
    config = evaluate.get_config()
    config.update(init=str(init), datasets=datasets, progress=False)
    config.eval_batch_size = 16
    told = {"probes": (SETS,), "knn_k": 5, "shots": (2, 1), "shot_seeds": 2}
    config.evaluate.update({**told, **settings})
    return config.lock()


@pytest.fixture(scope="module")
def probed(tiny_run, tmp_path_factory):
    """The workdir of an evaluation with a probe, its test set evaluated, too."""
    workdir = tmp_path_factory.mktemp("probed") / "w"
    run_tiny(workdir, config_of(tiny_run, datasets=("miniature:test",)))
    return workdir


def test_every_sensor_is_probed_with_what_pins_it(probed, tiny_run):
    model = api.load(tiny_run)
    results = read_results(probed / "results.jsonl")
    found = [r for r in results if r.task in ("knn", "linear_probe")]
    each = [(r.sensor, r.task, r.shots) for r in found]
    assert each == [
        (sensor, task, shots)
        for sensor in ("rgb", "s1")
        for task, shots in (
            ("knn", None),
            ("linear_probe", 2),
            ("linear_probe", 1),
            ("linear_probe", None),
        )
    ]
    with few_scenes():
        run = make_run(probed, config_of(tiny_run))
        digests = [split_digest(run.open(spec)) for spec in SETS]
    for r in found:
        assert (r.dataset, r.split, r.n) == ("miniature", "test", 48)
        assert (r.train, r.train_digest) == (SETS[0], digests[0])
        assert r.split_digest == digests[2]
        if r.task == "linear_probe":
            assert (r.val, r.val_digest) == (SETS[1], digests[1])
        key = "clip" if r.sensor == "rgb" else r.sensor
        assert r.checkpoint == model.digests[key]
        assert r.prompts is None


def test_the_numbers_are_those_of_the_public_functions(probed, tiny_run):
    """On the stage's own batches: a probe's choices hang on the last bit of an input.

    In batches of another size the embeddings, unit vectors in float32, differ by
    rounding alone.
    """
    model = api.load(tiny_run)
    parts = []
    with few_scenes():
        run = make_run(probed, config_of(tiny_run))
        fed = encoders_of.feed_each(run, model, Parts(probes=(SETS,)))
        for spec in SETS:
            source = run.open(spec)
            found = encoders_of.encode(run, fed[spec], source)
            records = [source[i] for i in range(len(source))]
            np.testing.assert_array_equal(found.labels, [r["label"] for r in records])
            z = model.encode([r["s1"] for r in records], sensor="s1")
            np.testing.assert_allclose(found.z["s1"], z, atol=1e-5)
            parts.append(probe.Examples(found.z["s1"], found.labels))
    about = {"sensor": "s1", "classes": len(source.dataset.classes)}
    (linear,) = probe.linear_probe_records(*parts, **about)
    (knn,) = probe.knn_records(parts[0], parts[2], k=5, **about)
    results = read_results(probed / "results.jsonl")
    for want in (linear, knn):
        (found,) = [
            r.value
            for r in results
            if (r.sensor, r.task, r.shots) == ("s1", want["task"], None)
        ]
        assert found == want["value"]


def test_the_table_tells_all_examples_from_few(probed):
    results = read_results(probed / "results.jsonl")
    table = (probed / "evaluate" / "table.txt").read_text().splitlines()
    for sensor in ("rgb", "s1"):
        key = (sensor, "linear_probe")
        found = [r for r in results if (r.sensor, r.task) == key]
        lines = [x for x in table if f"linear_probe  {sensor} " in x]
        for r, line in zip(found, lines, strict=True):
            assert line.endswith(f"{100 * r.value:.1f} %")
            assert (f", {r.shots} a class" in line) == (r.shots is not None)


def test_a_split_is_encoded_once_and_datasets_are_kept(probed, tiny_run, monkeypatch):
    (kept,) = load_outcomes(probed / "evaluate" / "outcomes" / "after")
    assert kept.name == "miniature:test"
    assert list(kept.z) == ["rgb", "s1"]
    assert set(kept.pins["checkpoint"]) == {"rgb", "s1"}
    assert kept.labels.shape == (48,)
    encoded, real = [], Run.encode

    def spy(self, name, source, *args):
        encoded.append(f"{source.dataset.name}:{source.split}")
        return real(self, name, source, *args)

    monkeypatch.setattr(Run, "encode", spy)
    other = ("miniature:val", "miniature:train", "miniature:test")
    config = config_of(tiny_run, datasets=("miniature:test",), probes=(SETS, other))
    run_tiny(probed.parent / "again", config)
    assert sorted(encoded) == sorted(SETS)


def test_probe_data_that_changed_is_evaluated_anew(probed, tiny_run, monkeypatch):
    config = config_of(tiny_run, datasets=("miniature:test",))
    with few_scenes():
        run = make_run(probed, config)
        assert stage.is_evaluated(run)
        found = json.loads((probed / "evaluate" / "meta.json").read_text())["data"]
        assert set(found) == set(SETS)
        run.opened[SETS[0]].ids.reverse()
        try:
            assert not stage.is_evaluated(run)
        finally:
            run.opened[SETS[0]].ids.reverse()


def test_other_probes_want_another_workdir(probed, tiny_run):
    config = config_of(tiny_run, datasets=("miniature:test",), knn_k=6)
    with (
        few_scenes(),
        pytest.raises(ValueError, match=r"evaluate\.knn_k: 5 in the workdir, 6"),
    ):
        run_stages(config, probed)


def test_a_probe_that_fails_leaves_what_was_reported_and_the_workdir_free(
    tiny_run, tmp_path, monkeypatch
):
    def fail(*args, **more):
        raise ValueError("singular")

    monkeypatch.setattr(probes, "linear_probe_records", fail)
    config = config_of(tiny_run, datasets=("miniature:test",))
    with pytest.raises(ValueError, match=r"config\.evaluate\.probes: .*: singular"):
        run_tiny(tmp_path, config)
    tasks = [r.task for r in read_results(tmp_path / "results.jsonl")]
    assert {"zero_shot", "retrieval", "modality_gap", "knn"} <= set(tasks)
    monkeypatch.undo()
    # other settings are no other run: this one did not end
    results = run_tiny(tmp_path, config_of(tiny_run, shots=(), gap=False))
    assert {r.task for r in results} == {"knn", "linear_probe"}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"probes": SETS}, r"'miniature:train', which is not \(train, val, test\)"),
        ({"probes": (SETS[:2],)}, r"which is not \(train, val, test\)"),
        ({"probes": ((*SETS[:2], "miniature:tst"),)}, r"evaluate\.probes: .*'tst'"),
        ({"probes": ((*SETS[:2], "blind:val"),)}, "have no labels each"),
        (
            {"probes": ((*SETS[:2], "miniature_natural:test"),)},
            "'miniature:train' and 'miniature_natural:test' have different classes",
        ),
        (
            {"probes": (("miniature:train", "miniature:val", "miniature:all"),)},
            "'miniature:train' and 'miniature:all' share 64 records",
        ),
        (
            {"probes": (("miniature:train:16", "miniature:val", "miniature:train"),)},
            "'miniature:train:16' and 'miniature:train' share 64 records",
        ),
        ({"knn_k": 65}, r"knn_k = 65 .* 64 records of 'miniature:train'"),
        ({"knn_k": 0}, r"config\.evaluate\.knn_k = 0 is below 1"),
        ({"shot_seeds": 0}, r"config\.evaluate\.shot_seeds = 0 is below 1"),
        ({"shots": (1, 1)}, r"config\.evaluate\.shots = \(1, 1\) must be distinct"),
        ({"shots": (0,)}, r"config\.evaluate\.shots = \(0,\) must be"),
        ({"probes": ()}, r"config\.datasets is empty"),
    ],
)
def test_what_cannot_be_probed_is_refused_before_anything_is_encoded(
    tmp_path, settings, words
):
    with few_scenes():
        run = make_run(tmp_path, config_of("nowhere", **settings))
        run.opened["blind:val"] = blind = copy.copy(run.open(SETS[1]))
        blind.dataset = dataclasses.replace(blind.dataset, task="none")
        with pytest.raises(ValueError, match=words):
            stage.check_evaluate(run)


def test_an_empty_split_and_one_without_the_sensor_are_refused(tmp_path):
    config = config_of("nowhere")
    with few_scenes():
        run = make_run(tmp_path, config)
        source = run.open(SETS[1])
        empty = copy.copy(source)
        empty.ids, empty._records = [], []
        run.opened[SETS[1]] = empty
        with pytest.raises(ValueError, match="'miniature:val' has no records"):
            stage.check_evaluate(run)
    fed = {SETS[0]: {"rgb": 0}, SETS[1]: {"rgb": 0}, SETS[2]: {"s1": 0}}
    with pytest.raises(ValueError, match="no sensor that all three splits have"):
        probes.check_sensors((SETS,), fed)


class Sparse(Wrapper):
    """A split whose records are of the first two classes alone."""

    def read(self, i, keys):
        return {**self.source[i], "label": i % 2}


def test_a_class_that_training_lacks_is_named(tiny_run, tmp_path, capsys):
    config = config_of(tiny_run, shots=())
    with few_scenes():
        run = make_run(tmp_path, config)
        run.opened[SETS[0]] = Sparse(run.open(SETS[0]))
        stage.run_evaluate(run)
    said = capsys.readouterr().out
    names = run.open(SETS[2]).dataset.classnames
    assert f"{SETS[0]} has no example of {len(names) - 2} of {len(names)} class" in said
    assert all(name in said for name in names[2:])
    assert len(read_results(run.results)) == 4


def test_several_labels_are_probed_by_average_precision(tiny_run, tmp_path):
    sets = tuple(f"miniature_multi:{split}" for split in ("train", "val", "test"))
    results = run_tiny(tmp_path, config_of(tiny_run, probes=(sets,), shots=(1,)))
    assert {r.metric for r in results} == {"mAP_macro"}
    assert all(0 < r.value < 1 and r.ci95[0] < r.ci95[1] for r in results)
    assert len(results) == 6


def test_a_probe_cut_short_says_so(tiny_run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(probe, "MAX_ITER", 1)
    run_tiny(tmp_path, config_of(tiny_run, shots=()))
    assert "stopped before it converged" in capsys.readouterr().out
