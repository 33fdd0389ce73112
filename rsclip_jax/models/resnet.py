"""Residual networks: CLIP's modified one, and the plain one of sensor encoders."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from rsclip_jax.models.compute import FLOAT32, Compute, Dense, keep_product
from rsclip_jax.models.vit import Features

BATCH_NORM_EPS = 1e-5  # torch's default, used by all CLIPs and encoders
EXPANSION = 4  # ratio of a block's output channels to its inner ones


class FrozenBatchNorm(nn.Module):
    """Batch normalisation with stored statistics that are never updated.

    mean and var are params without a gradient, so there is no mutable state, and
    fine-tuning on small batches cannot spoil them.
    """

    scale_init: nn.initializers.Initializer = nn.initializers.ones
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, c] -> the same shape; in between it is float32."""
        c = x.shape[-1:]
        scale = self.param("scale", self.scale_init, c)
        bias = self.param("bias", nn.initializers.zeros, c)
        mean = jax.lax.stop_gradient(self.param("mean", nn.initializers.zeros, c))
        var = jax.lax.stop_gradient(self.param("var", nn.initializers.ones, c))
        factor = scale * jax.lax.rsqrt(var + BATCH_NORM_EPS)
        x = (x - mean[None, None, None]) * factor[None, None, None]
        return self.compute.cast(x + bias[None, None, None])


def convolve(
    x: jax.Array, channels: int, size: int, stride: int, name: str, compute: Compute
) -> jax.Array:
    """A size x size convolution without a bias, padded as in torch's ResNets."""
    layer = nn.Conv(
        channels,
        (size, size),
        strides=stride,
        padding=size // 2,
        use_bias=False,
        # He's scale, because statistics frozen at 0 and 1 do not normalise activations.
        kernel_init=nn.initializers.he_normal(),
        dtype=compute.dtype,
        precision=compute.precision,
        name=name,
    )
    return keep_product(layer(x))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions with a shortcut; EXPANSION * planes channels out.

    antialias: average pools after the 3x3 convolution and before the shortcut's
    convolution replace their strides, as in CLIP.
    """

    planes: int
    stride: int
    antialias: bool
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.compute
        stride, window = (1, self.stride) if self.antialias else (self.stride, 1)
        out = EXPANSION * self.planes
        zeros = nn.initializers.zeros  # starts as the shortcut alone, as in CLIP, timm
        y = convolve(x, self.planes, 1, 1, "conv1", c)
        y = nn.relu(FrozenBatchNorm(compute=c, name="bn1")(y))
        y = convolve(y, self.planes, 3, stride, "conv2", c)
        y = nn.relu(FrozenBatchNorm(compute=c, name="bn2")(y))
        y = convolve(_mean_pool(y, window), out, 1, 1, "conv3", c)
        y = FrozenBatchNorm(zeros, c, name="bn3")(y)
        if self.stride > 1 or x.shape[-1] != out:
            x = convolve(_mean_pool(x, window), out, 1, stride, "downsample_conv", c)
            x = FrozenBatchNorm(compute=c, name="downsample_bn")(x)
        return nn.relu(x + y)


def _mean_pool(x: jax.Array, window: int) -> jax.Array:
    return nn.avg_pool(x, (window, window), (window, window)) if window > 1 else x


def run_stages(
    x: jax.Array,
    *,
    width: int,
    layers: Sequence[int],
    antialias: bool,
    compute: Compute,
) -> tuple[jax.Array, Features]:
    """layer1_0, layer1_1, ... of the calling module, and every block's output.

    Each stage doubles the channels; each but the first halves the grid.
    """
    features, make = {}, compute.recomputed(Bottleneck)
    for i, depth in enumerate(layers):
        for j in range(depth):
            name = f"layer{i + 1}_{j}"
            stride = 2 if i and not j else 1
            x = make(width * 2**i, stride, antialias, compute, name=name)(x)
            features[name] = x
    return x, features


class AttentionPool(nn.Module):
    """One multi-head attention whose query is the mean of all positions."""

    heads: int
    out_dim: int
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[b, h, w, c] -> [b, out_dim], float32."""
        b, h, w, c = x.shape
        depth = c // self.heads
        init = nn.initializers.normal(c**-0.5)
        positions = self.param("positional_embedding", init, (1 + h * w, c))

        def project(y, name):
            return Dense(c, init, compute=self.compute, name=name)(y)

        x = x.reshape(b, h * w, c).astype(jnp.float32)
        x = jnp.concatenate([x.mean(axis=1, keepdims=True), x], axis=1)
        x = x + positions[None]
        q = project(x[:, 0], "q_proj").reshape(b, self.heads, depth)
        k = project(x, "k_proj").reshape(b, -1, self.heads, depth)
        v = project(x, "v_proj").reshape(b, -1, self.heads, depth)
        precision = self.compute.precision
        scores = jnp.einsum(
            "bhd,bnhd->bhn",
            q * depth**-0.5,
            k,
            precision=precision,
            preferred_element_type=jnp.float32,
        )
        weights = self.compute.cast(jax.nn.softmax(scores, axis=-1))
        pooled = jnp.einsum("bhn,bnhd->bhd", weights, v, precision=precision)
        pooled = pooled.reshape(b, c).astype(jnp.float32)
        return Dense(self.out_dim, init, name="c_proj")(pooled)


class ModifiedResNet(nn.Module):
    """CLIP's residual network (Radford et al. 2021, section 2.4).

    It starts with three convolutions and an average pool, has antialiased strides, and
    pools by attention. The last grid's side is image_size / 32.
    """

    image_size: int
    width: int
    layers: tuple[int, ...]
    heads: int
    out_dim: int
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, Features]:
        """Normalised image [b, h, w, 3] -> features [b, out_dim], per-block ones.

        Raises ValueError if the image is not image_size x image_size x 3.
        """
        want = (self.image_size, self.image_size, 3)
        if image.shape[1:] != want:
            raise ValueError(
                f"this encoder takes images of [h, w, bands] = {want}, got"
                f" {image.shape[1:]}: resize the image or select its bands first"
            )
        x, c = image.astype(jnp.float32), self.compute
        for i, channels in enumerate((self.width // 2, self.width // 2, self.width)):
            x = convolve(x, channels, 3, 1 if i else 2, f"conv{i + 1}", c)
            x = nn.relu(FrozenBatchNorm(compute=c, name=f"bn{i + 1}")(x))
        stem = _mean_pool(x, 2)
        x, features = run_stages(
            stem,
            width=self.width,
            layers=self.layers,
            antialias=True,
            compute=c,
        )
        pool = AttentionPool(self.heads, self.out_dim, c, name="attnpool")
        return pool(x), {"stem": stem, **features}


class ResNet(nn.Module):
    """torchvision's and timm's bottleneck ResNet over any number of bands.

    He et al. 2016 (arXiv 1512.03385), with the stride in the 3x3 convolution. width 64
    and layers (3, 4, 6, 3) make ResNet-50. A linear map to out_dim replaces the
    classifier; with out_dim 0 the features are the mean of the last grid.
    """

    bands: int
    width: int
    layers: tuple[int, ...]
    out_dim: int
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, Features]:
        """Normalised image [b, h, w, bands] -> features [b, out_dim], per-block ones.

        Any h and w. Raises ValueError for another number of bands.
        """
        if image.shape[-1] != self.bands:
            raise ValueError(
                f"this encoder takes images of {self.bands} bands, got"
                f" {image.shape[-1]}: select the bands first"
            )
        x, c = image.astype(jnp.float32), self.compute
        x = convolve(x, self.width, 7, 2, "conv1", c)
        x = nn.relu(FrozenBatchNorm(compute=c, name="bn1")(x))
        stem = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        x, features = run_stages(
            stem,
            width=self.width,
            layers=self.layers,
            antialias=False,
            compute=c,
        )
        feats = pooled = x.astype(jnp.float32).mean(axis=(1, 2))
        if self.out_dim:
            init = nn.initializers.normal(pooled.shape[-1] ** -0.5)
            feats = Dense(self.out_dim, init, name="proj")(pooled)
        features = {"stem": stem, **features, "pooled": pooled}
        return feats, features
