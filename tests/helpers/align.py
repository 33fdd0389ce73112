"""Stage align at toy size: a teacher, a small student, the config and the curve."""

import functools
import json

import jax

from rsclip_jax import api
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
from rsclip_jax.stages.align import scale, stage, students
from rsclip_jax.stages.align.settings import settings_of
from rsclip_jax.stages.shared import training
from tests.helpers.runs import tiny_config

SMALL = {"image_size": 32, "patch_size": 16, "width": 16, "layers": 1, "heads": 1}


@functools.cache
def teacher():
    variant = get_variant("mini")
    params = jax.device_get(init_clip(variant, jax.random.key(3)))
    return api.Model(variant, params, {}, "a")


def config_with(**settings):
    config = tiny_config()
    with config.unlocked():
        config.align.update(settings)
    return config


def losses_of(workdir):
    lines = (workdir / "align" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def read_as(**told):
    return {**tiny_config().align.pretrained.to_dict(), **told}


def batches_of(run, sources, sizes):
    """The training batches of stage align."""
    data = training.TrainingData(sources, sizes)
    return training.make_batches(run, "align", settings_of(run).training, data)


# The stage's functions with the run's own settings, and the teacher of the tests.


def make_student(run, sensor):
    return students.make_student(run, settings_of(run), teacher(), sensor)


def scaled_sensor(run, source, key):
    return scale.scaled_sensor(run, settings_of(run), source, key)


def distil(run, encoders, train, scales):
    return stage.distil(run, settings_of(run), teacher(), encoders, train, scales)
