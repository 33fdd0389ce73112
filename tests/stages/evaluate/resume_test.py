"""Another evaluation in one workdir: what is new is measured, the rest stays."""

import pytest

from rsclip_jax.records.meta import read_meta
from rsclip_jax.records.outcomes import load_outcomes
from rsclip_jax.stages.evaluate.settings import Parts
from rsclip_jax.stages.shared.run import Run
from tests.helpers.evaluate import config_of
from tests.helpers.results import make_result
from tests.helpers.runs import run_tiny

SETS = ("miniature:train", "miniature:val", "miniature:test")


@pytest.fixture
def encoded(monkeypatch):
    """The splits that are encoded, in order."""
    found, real = [], Run.encode

    def spy(self, name, source, *args):
        found.append(f"{source.dataset.name}:{source.split}")
        return real(self, name, source, *args)

    monkeypatch.setattr(Run, "encode", spy)
    return found


def config(init, *datasets, **evaluate):
    made = config_of(init, *datasets)
    with made.unlocked():
        made.evaluate.update(gap=False, shots=(), knn_k=5, **evaluate)
    return made.lock()


def test_what_is_new_is_measured_and_the_rest_keeps_every_byte(
    tiny_run, tmp_path, encoded, capsys
):
    workdir, file = tmp_path / "w", tmp_path / "w" / "results.jsonl"
    run_tiny(workdir, config(tiny_run, "miniature:val", "miniature_multi:val"))
    first = file.read_text()
    assert encoded == ["miniature:val", "miniature_multi:val"]

    # one dataset less, in other batches: nothing to do, and nothing is dropped
    fewer = config(tiny_run, "miniature:val")
    fewer.eval_batch_size = 8
    run_tiny(workdir, fewer)
    assert file.read_text() == first
    assert len(encoded) == 2
    assert "evaluate: already done, skipped" in capsys.readouterr().out

    # one more, and a probe: only these
    more = config(tiny_run, "miniature:val", "miniature:test", probes=(SETS,))
    results = run_tiny(workdir, more)
    assert file.read_text().startswith(first)
    assert sorted(encoded[2:]) == sorted(SETS)
    said = capsys.readouterr().out
    assert "result(s) of miniature:val, miniature_multi:val" in said
    added = results[len(first.splitlines()) :]
    assert {f"{r.dataset}:{r.split}" for r in added} == {"miniature:test"}
    assert {"zero_shot", "knn", "linear_probe"} <= {r.task for r in added}
    kept = load_outcomes(workdir / "evaluate" / "outcomes" / "after")
    names = {"miniature:val", "miniature_multi:val", "miniature:test"}
    assert {outcome.name for outcome in kept} == names
    assert "miniature_multi" in (workdir / "evaluate" / "table.txt").read_text()
    run_tiny(workdir, more)
    assert "evaluate: already done, skipped" in capsys.readouterr().out

    # as one evaluation of all of it would have measured
    once = run_tiny(
        tmp_path / "once",
        config(tiny_run, *sorted(names, key=len), probes=(SETS,)),
    )
    assert sorted(map(repr, once)) == sorted(map(repr, results))


def test_an_evaluation_in_another_precision_is_measured_again(
    tiny_run, tmp_path, encoded
):
    workdir = tmp_path / "w"
    run_tiny(workdir, config(tiny_run, "miniature:val", "miniature_multi:val"))
    narrow = config(tiny_run, "miniature:val")
    narrow.precision = "bfloat16"
    results = run_tiny(workdir, narrow)
    assert encoded[2:] == ["miniature:val"]
    assert {r.dataset for r in results} == {"miniature"}
    assert read_meta(workdir / "evaluate").precision == "bfloat16"
    run_tiny(workdir, narrow)
    assert len(encoded) == 3


PROBE = ("d:train", "d:val", "d:test")


@pytest.mark.parametrize(
    ("result", "part"),
    [
        ({}, Parts(datasets=("d:test",))),
        ({"tile": 64, "task": "retrieval"}, Parts(datasets=("d:test:64",))),
        ({"task": "forgetting"}, Parts(forgetting=("d:test",))),
        ({"task": "knn", "train": "d:train"}, Parts(probes=(PROBE,))),
        (
            {"task": "linear_probe", "train": "d:train", "val": "d:val"},
            Parts(probes=(PROBE,)),
        ),
    ],
)
def test_a_result_belongs_to_one_kind_of_part(result, part):
    made = make_result(stage="evaluate", **result)
    assert part.holds(made)
    assert part.holds(made.to_json())
    others = [
        Parts(datasets=("d:test",)),
        Parts(datasets=("d:test:64",)),
        Parts(forgetting=("d:test",)),
        Parts(probes=(PROBE,)),
    ]
    assert sum(other.holds(made) for other in others) == 1
    assert not Parts(datasets=("e:test",), forgetting=("d:val",)).holds(made)
