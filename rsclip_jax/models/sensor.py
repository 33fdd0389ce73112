"""Sensor encoders: a vision transformer over C bands, and its input's scale."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rsclip_jax.data.sensors import Sensor
from rsclip_jax.models.variants import Variant
from rsclip_jax.models.vit import VisionTransformer


@dataclasses.dataclass(frozen=True)
class SensorSpec:
    """All that a sensor encoder's params do not say; stored beside them as JSON.

    clip_style True is the layout of CLIP's visual tower (ln_pre, no patch bias, no bias
    after); False is timm's ViT (patch bias, linear map with bias).
    """

    sensor: str
    modality: str
    bands: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    clip_sigma: float
    image_size: int
    patch_size: int
    width: int
    layers: int
    heads: int
    out_dim: int
    activation: str = "gelu"
    eps: float = 1e-6
    clip_style: bool = False

    @classmethod
    def from_json(cls, values: dict) -> "SensorSpec":
        """The spec of a stored dict: JSON turns tuples into lists."""
        fields: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in values.items()
        }
        return cls(**fields)


def vit_spec(
    sensor: Sensor,
    *,
    image_size: int,
    patch_size: int,
    width: int,
    layers: int,
    heads: int,
    out_dim: int,
) -> SensorSpec:
    """A timm-style ViT for a sensor: pre-norm, exact GELU, eps 1e-6, class token."""
    return SensorSpec(
        **_input_fields(sensor),
        image_size=image_size,
        patch_size=patch_size,
        width=width,
        layers=layers,
        heads=heads,
        out_dim=out_dim,
    )


def clip_spec(sensor: Sensor, variant: Variant) -> SensorSpec:
    """CLIP's visual tower over the sensor's bands instead of RGB.

    Raises ValueError for a ResNet.
    """
    if isinstance(variant.vision_layers, tuple):
        raise ValueError(
            f"config.align.student = 'clip': {variant.name} is a ResNet, and these are"
            " not widened to a sensor's bands; 'vit' trains an encoder of its own"
        )
    return SensorSpec(
        **_input_fields(sensor),
        image_size=variant.image_size,
        patch_size=variant.patch_size,
        width=variant.vision_width,
        layers=variant.vision_layers,
        heads=variant.vision_heads,
        out_dim=variant.embed_dim,
        activation=variant.activation,
        eps=variant.layer_norm_eps,
        clip_style=True,
    )


def _input_fields(sensor: Sensor) -> dict[str, Any]:
    return {
        "sensor": sensor.name,
        "modality": sensor.modality,
        "bands": sensor.bands,
        "mean": sensor.mean,
        "std": sensor.std,
        "clip_sigma": sensor.clip_sigma,
    }


def make_sensor_encoder(
    spec: SensorSpec, *, dtype: jnp.dtype = jnp.float32, remat: bool = False
) -> VisionTransformer:
    """The module of a spec: apply(..., normalised [b, h, w, c]) -> (f, features)."""
    return VisionTransformer(
        image_size=spec.image_size,
        patch_size=spec.patch_size,
        bands=len(spec.bands),
        width=spec.width,
        layers=spec.layers,
        heads=spec.heads,
        out_dim=spec.out_dim,
        activation=spec.activation,
        eps=spec.eps,
        ln_pre=spec.clip_style,
        patch_bias=not spec.clip_style,
        proj_bias=not spec.clip_style,
        dtype=dtype,
        remat=remat,
    )


def init_sensor(spec: SensorSpec, rng: jax.Array) -> dict:
    """Random params of a sensor encoder."""
    image = jnp.zeros((1, spec.image_size, spec.image_size, len(spec.bands)))
    return jax.jit(make_sensor_encoder(spec).init)(rng, image)["params"]


def sensor_shapes(spec: SensorSpec) -> dict:
    """The shapes of a spec's params (ShapeDtypeStructs), without computing any."""
    return jax.eval_shape(lambda rng: init_sensor(spec, rng), jax.random.key(0))


def normalize_sensor(x: jax.Array, spec: SensorSpec) -> jax.Array:
    """Raw values [b, h, w, c] in the file's units -> what the encoder sees, float32."""
    mean = jnp.asarray(spec.mean, jnp.float32)[None, None, None]
    std = jnp.asarray(spec.std, jnp.float32)[None, None, None]
    x = (x.astype(jnp.float32) - mean) / std
    return jnp.clip(x, -spec.clip_sigma, spec.clip_sigma)


def sensor_features(params: dict, x: jax.Array, spec: SensorSpec) -> jax.Array:
    """Features [b, d] of raw sensor values [b, h, w, c]."""
    encoder = make_sensor_encoder(spec)
    return encoder.apply({"params": params}, normalize_sensor(x, spec))[0]


def inflate_params(visual: dict, bands: int) -> dict:
    """A CLIP visual tower's params for `bands` bands instead of 3.

    Each band gets the mean of the RGB kernels times 3 / bands, so a scene equal in all
    bands gives the patch embedding what a grey RGB image gave it.
    """
    kernel = visual["patch_embed"]["kernel"]  # [p, p, 3, width]
    grey = np.asarray(kernel).mean(axis=2, keepdims=True)
    inflated = np.repeat(grey, bands, axis=2) * np.float32(3 / bands)
    return {**visual, "patch_embed": {**visual["patch_embed"], "kernel": inflated}}
