"""Stage align at toy size: a teacher, a small student, the config and the curve."""

import functools
import json

import jax

from rsclip_jax import api
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import get_variant
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
