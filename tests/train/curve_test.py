"""The curve's files: what an object store has of them, and lines that are not its."""

import jax.numpy as jnp
import numpy as np
import pytest

from rsclip_jax.io.json_lines import read_json_lines
from rsclip_jax.io.paths import as_path
from rsclip_jax.train.curve import Curve, NonFiniteError
from rsclip_jax.train.settings import TrainSettings
from tests.helpers.object_store import BUCKET, environment, serving

SETTINGS = TrainSettings(2, 10, 0.1, log_every=1)


def add(curve, step, loss):
    metrics = {"loss": jnp.asarray(loss), "grad_norm": jnp.asarray(1.0)}
    curve.add(step, metrics, np.arange(2) + 10 * step)


def test_an_object_store_has_the_records_when_the_error_names_their_file(tmp_path):
    """There, lines wait for others; those of the step that ends training must not."""
    with serving(tmp_path / "log") as variables, environment(variables):
        folder = as_path(f"gs://{BUCKET}/curve")
        curve = Curve(folder, SETTINGS, 0, name_records=lambda rows: map(str, rows))
        add(curve, 1, 0.5)
        add(curve, 2, np.nan)
        with pytest.raises(NonFiniteError, match=r"step 2 \(records: gs://"):
            add(curve, 3, 0.5)
        (fault,) = read_json_lines(folder / "nonfinite.jsonl")
        assert (fault["step"], fault["records"]) == (2, ["20", "21"])
        assert [x["step"] for x in read_json_lines(folder / "metrics.jsonl")] == [1]


@pytest.mark.parametrize("line", ['{"loss": 1.0}', '{"step": "2"}'])
def test_a_line_without_a_step_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1}}\n{line}\n')
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2: its step is .*remo"):
        Curve(tmp_path, SETTINGS, 1)
    assert path.read_text().endswith(f"{line}\n")


def test_a_training_shorter_than_log_every_has_an_empty_curve(tmp_path):
    Curve(tmp_path, TrainSettings(8, 2, 0.1, log_every=10), 0)
    assert (tmp_path / "metrics.jsonl").read_text() == ""
