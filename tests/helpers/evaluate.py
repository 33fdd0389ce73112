"""Stage evaluate at toy size: its config, a model, and the values it reports."""

import jax

from configs import evaluate
from rsclip_jax import api
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.sensor import SensorEncoder, init_sensor, vit_spec
from rsclip_jax.models.variants import get_variant
from rsclip_jax.records.results import read_results
from rsclip_jax.stages.evaluate import encoders as encoders_of
from rsclip_jax.stages.evaluate import stage
from rsclip_jax.stages.evaluate.settings import read_settings


def config_of(init, *datasets, **more):
    config = evaluate.get_config()
    config.update(init=str(init), datasets=datasets, progress=False, **more)
    config.eval_batch_size = 16
    return config.lock()


def model_of(sensor):
    """A random CLIP with a random encoder of a sensor."""
    row, key = get_variant("mini"), sensor.modality
    sizes = {"image_size": 32, "patch_size": 8, "width": 16, "layers": 1, "heads": 1}
    spec = vit_spec(sensor, **sizes, out_dim=row.embed_dim)
    params = jax.device_get(init_sensor(spec, jax.random.key(1)))
    clip = jax.device_get(init_clip(row, jax.random.key(0)))
    return api.Model(row, clip, {key: SensorEncoder(spec, params, "b", 1)}, "a")


def evaluate_source(run, model, source):
    encoders = encoders_of.make_encoders(run, model)
    fed = encoders_of.feed_all(run, model, encoders, source.dataset)
    settings = read_settings(run.config)
    stage.evaluate_source(run, model, fed, source, settings)


def values_of(run, model, source):
    """{(sensor, metric): value} of evaluating a source."""
    before = len(read_results(run.results)) if run.results.exists() else 0
    evaluate_source(run, model, source)
    records = read_results(run.results)[before:]
    return {(r.sensor, r.metric): r.value for r in records}
