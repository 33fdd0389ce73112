"""Sensor encoders: a ViT or ResNet over C bands, and the scale of its input."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rsclip_jax.data.sensors import SENSORS, Sensor, get_sensor
from rsclip_jax.data.sensors.bands import band_indices
from rsclip_jax.data.types import Ground
from rsclip_jax.models.clip import tower_fields
from rsclip_jax.models.compute import FLOAT32, Compute
from rsclip_jax.models.resnet import EXPANSION, ResNet
from rsclip_jax.models.variants import Variant, with_tuples
from rsclip_jax.models.vit import VisionTransformer
from rsclip_jax.train.sharding import make_on


@dataclasses.dataclass(frozen=True)
class SensorSpec:
    """Everything about a sensor encoder but its params; stored beside them as JSON.

    bands, mean, std, clip_sigma: the encoder's input is
    clip((x - mean) / std, -clip_sigma, clip_sigma) of x in the sensor's units, with the
    bands in this order. image_size: images are fitted to it. layers: a number for a
    ViT; four numbers, one a stage, for a ResNet, which uses only width, layers and
    out_dim. The other sizes are VisionTransformer's; their defaults make timm's ViT.
    unit, dtype, valid, nodata, saturated and level are copied from the sensor, so that
    a custom sensor's file is not needed; older files lack them. An unbounded end of
    valid is None, because JSON has no infinity. pixels, metres: the ground of the
    training images before they were fitted, see Ground; 0 where it is not known.
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
    layers: int | tuple[int, ...]
    heads: int
    out_dim: int
    activation: str = "gelu"
    eps: float = 1e-6
    ln_pre: bool = False
    patch_bias: bool = True
    proj_bias: bool = True
    mlp_width: int = 0
    pool: str = "token"
    class_token: bool = True
    registers: int = 0
    prefix_positions: bool = True
    rope: float = 0.0
    gated: bool = False
    layer_scale: bool = False
    patch_offset: int = 0
    unit: str = ""
    dtype: str = ""
    valid: tuple[float | None, float | None] = (None, None)
    nodata: float | None = None
    level: str = ""
    saturated: float | None = None
    pixels: int = 0
    metres: float = 0.0

    @property
    def ground(self) -> Ground:
        """The ground of an image that the encoder was trained on."""
        return Ground(self.pixels, self.metres)

    @property
    def is_resnet(self) -> bool:
        """Whether the encoder is a ResNet, not a ViT."""
        return isinstance(self.layers, tuple)

    @property
    def pooled_width(self) -> int:
        """Channels of the pooled features, before the map to out_dim."""
        return self.width * 2**3 * EXPANSION if self.is_resnet else self.width

    @property
    def first_layer(self) -> str:
        """The name of the layer that takes the bands."""
        return "conv1" if self.is_resnet else "patch_embed"

    @classmethod
    def from_json(cls, values: Mapping) -> "SensorSpec":
        """The spec of a stored dict."""
        return cls(**with_tuples(values))


@dataclasses.dataclass(frozen=True, eq=False)
class SensorEncoder:
    """An encoder, the digest of its weights and its number of training steps."""

    spec: SensorSpec
    params: dict
    digest: str
    steps: int = 0

    def __iter__(self) -> Iterator[Any]:
        """Unpacks as (spec, params), as in save_encoder(path, *encoder)."""
        return iter((self.spec, self.params))


_OF_SENSOR = tuple(
    "modality bands mean std clip_sigma unit dtype nodata saturated level".split()
)
_INPUT = ("sensor", "valid", "pixels", "metres", *_OF_SENSOR)


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
        **input_fields(sensor),
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
            f"student 'clip': {variant.name} is a ResNet, which cannot be widened to a"
            " sensor's bands; student 'vit' trains an encoder from scratch"
        )
    return SensorSpec(
        **input_fields(sensor),
        image_size=variant.image_size,
        patch_size=variant.patch_size,
        width=variant.vision_width,
        layers=variant.vision_layers,
        heads=variant.vision_heads,
        activation=variant.activation,
        eps=variant.layer_norm_eps,
        mlp_width=variant.vision_mlp_width,
        **tower_fields(variant),
    )


def input_fields(sensor: Sensor) -> dict[str, Any]:
    """The fields of a spec that describe the encoder's input from a sensor."""
    valid = tuple(end if math.isfinite(end) else None for end in sensor.valid)
    same = {name: getattr(sensor, name) for name in _OF_SENSOR}
    return {"sensor": sensor.name, "valid": valid, **same}


def spec_sensor(spec: SensorSpec) -> Sensor:
    """The sensor whose arrays an encoder takes, from SENSORS or from the spec itself.

    Raises FileNotFoundError if an older spec lacks it and the sensor's file is gone.
    """
    if spec.sensor in SENSORS or not spec.dtype:
        return get_sensor(spec.sensor)
    low, high = spec.valid
    unknown = (math.nan,) * len(spec.bands)  # an encoder does not use them
    return Sensor(
        spec.sensor,
        wavelengths=unknown,
        resolution=unknown,
        valid=(-math.inf if low is None else low, math.inf if high is None else high),
        **{name: getattr(spec, name) for name in _OF_SENSOR},
    )


def make_sensor_encoder(
    spec: SensorSpec, compute: Compute = FLOAT32
) -> VisionTransformer | ResNet:
    """The module of a spec: apply(..., normalised [b, h, w, c]) -> (f, features)."""
    values = dataclasses.asdict(spec)
    bands = len(spec.bands)
    if spec.is_resnet:
        sizes = {name: values[name] for name in ("width", "layers", "out_dim")}
        return ResNet(**sizes, bands=bands, compute=compute)
    fields = {k: v for k, v in values.items() if k not in _INPUT}
    return VisionTransformer(**fields, bands=bands, compute=compute)


def init_sensor(spec: SensorSpec, rng: jax.Array, mesh: Mesh | None = None) -> dict:
    """Random params of a sensor encoder; mesh: as for init_clip."""

    def init(rng):
        image = jnp.zeros((1, spec.image_size, spec.image_size, len(spec.bands)))
        return make_sensor_encoder(spec).init(rng, image)["params"]

    return make_on(mesh, init, rng)


def sensor_shapes(spec: SensorSpec) -> dict:
    """The shapes of a spec's params (ShapeDtypeStructs), without computing any."""
    return jax.eval_shape(lambda rng: init_sensor(spec, rng), jax.random.key(0))


def add_map(
    spec: SensorSpec, params: dict, out_dim: int, rng: jax.Array
) -> tuple[SensorSpec, dict]:
    """(spec, params) with a random linear map from the pooled features to out_dim.

    Pretrained encoders have no map to CLIP's width; alignment trains one.
    """
    width = spec.pooled_width
    kernel = jax.random.normal(rng, (width, out_dim)) * width**-0.5
    new = {"kernel": np.asarray(kernel), "bias": np.zeros(out_dim, np.float32)}
    spec = dataclasses.replace(spec, out_dim=out_dim, proj_bias=True)
    return spec, {**params, "proj": new}


def normalize_sensor(x: jax.Array, spec: SensorSpec) -> jax.Array:
    """Raw values [b, h, w, c] in the file's units -> the encoder's float32 input.

    Raises ValueError for a spec without a scale.
    """
    if not spec.mean:
        raise ValueError(
            f"the encoder of {spec.sensor} has no mean and std: give them in the"
            " sensor's file, or measure them"
        )
    mean = jnp.asarray(spec.mean, jnp.float32)[None, None, None]
    std = jnp.asarray(spec.std, jnp.float32)[None, None, None]
    x = (x.astype(jnp.float32) - mean) / std
    return jnp.clip(x, -spec.clip_sigma, spec.clip_sigma)


def input_indices(spec: SensorSpec, held: Sensor) -> tuple[int, ...]:
    """The indices of the encoder's bands in the arrays of sensor `held`, by name.

    Raises ValueError with both lists and units if bands are missing or units differ.
    """
    unit = spec_sensor(spec).unit
    return band_indices(held, spec.bands, unit, f"an encoder of {spec.sensor}")


def sensor_features(
    params: dict, x: jax.Array, spec: SensorSpec, compute: Compute = FLOAT32
) -> jax.Array:
    """Features [b, d] of raw sensor values [b, h, w, c], float32."""
    encoder = make_sensor_encoder(spec, compute)
    return encoder.apply({"params": params}, normalize_sensor(x, spec))[0]


def inflate_params(visual: dict, bands: int) -> dict:
    """A CLIP visual tower's params for `bands` bands instead of 3.

    Each band gets the mean of the RGB kernels times 3 / bands, so a scene equal in all
    bands has the same patch embedding as a grey RGB image.
    """
    kernel = np.asarray(visual["patch_embed"]["kernel"])  # [p, p, 3, width]
    names = tuple(f"new {i}" for i in range(bands))
    inflated = adapt_kernel(kernel, ("R", "G", "B"), names, missing="spread")
    return {**visual, "patch_embed": {**visual["patch_embed"], "kernel": inflated}}


def adapt_kernel(
    kernel: np.ndarray,
    source: Sequence[str],
    target: Sequence[str],
    *,
    missing: str = "error",
) -> np.ndarray:
    """A first layer's kernel [h, w, bands, width] for other bands, matched by name.

    Bands in both lists keep their kernel, in target's order. If the lists differ,
    `missing` decides:
        "error" raises ValueError with both lists.
        "zero" drops bands that target lacks, as if they were zero after normalisation,
            and gives new bands a kernel of zeros.
        "spread" gives new bands the mean kernel times the ratio of the numbers of
            bands, and keeps the sum over bands, so that a scene with equal bands has
            the same output as before (RGB to C bands: the mean times 3 / C, as I3D
            inflates).
    """
    source, target = tuple(source), tuple(target)
    if kernel.shape[2] != len(source) or len(set(source)) != len(source):
        raise ValueError(
            f"a kernel over {kernel.shape[2]} bands does not fit the band names"
            f" {source}: give that many distinct names"
        )
    if missing not in ("error", "zero", "spread"):
        raise ValueError(f"missing {missing!r}: use 'error', 'zero' or 'spread'")
    dropped = [band for band in source if band not in target]
    new = [band for band in target if band not in source]
    kept = len(target) - len(new)
    if (dropped or new) and (missing == "error" or (missing == "zero" and not kept)):
        raise ValueError(
            f"the encoder's bands are {source}, the sensor's {target}: not in the"
            f" sensor {dropped}, not in the encoder {new}; missing 'zero' treats the"
            " first as zeros, 'spread' keeps the sum over bands"
        )
    filler = kernel.mean(axis=2) * np.float32(len(source) / len(target))
    filler = filler if missing == "spread" else np.zeros_like(filler)
    parts = [kernel[:, :, source.index(b)] if b in source else filler for b in target]
    out = np.stack(parts, axis=2)
    if missing == "spread" and kept and (dropped or new):
        off = kernel.sum(axis=2) - out.sum(axis=2)
        out = out + off[:, :, None] / len(target)
    return out.astype(kernel.dtype)
