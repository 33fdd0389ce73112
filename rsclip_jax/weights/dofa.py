"""DOFA's patch embedding: a small transformer that makes a kernel for each wavelength.

Xiong et al. 2024 (arXiv 2403.15356), in the names of the authors' and torchgeo's files.
A sensor's wavelengths are fixed, so its kernel is computed once; the rest is an
ordinary ViT, which trains and exports as such.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

PREFIXES = ("patch_embed.weight_generator.", "patch_embed.fclayer.")
RADAR_UM = 3.75  # stands for Sentinel-1's bands in DOFA's training
_GENERATOR = "patch_embed.weight_generator"
_LAYER = f"{_GENERATOR}.transformer_encoder.layers.0"
_HEADS, _EPS, _SCALE = 4, 1e-5, 0.01  # torch's encoder layer has eps 1e-5


def make_kernel(
    read: Callable[[str], np.ndarray], wavelengths: Sequence[float]
) -> tuple[np.ndarray, np.ndarray]:
    """(kernel [width, bands, patch, patch], bias [width]) in torch's order of axes.

    read(name) returns a tensor of the file; wavelengths are in micrometres, one per
    band, in the sensor's order.
    """
    with jax.default_matmul_precision("highest"):
        waves = _embed(np.asarray(wavelengths), len(read(f"{_GENERATOR}.bias_token").T))
        inner = jax.nn.relu(_dense(read, "patch_embed.fclayer.w1", waves))
        waves = waves + jax.nn.relu(_dense(read, "patch_embed.fclayer.w2", inner))
        tokens = read(f"{_GENERATOR}.weight_tokens")
        last = read(f"{_GENERATOR}.bias_token")
        out = _encoder_layer(read, jnp.concatenate([tokens, waves, last]))
        made = out[len(tokens) : -1] + waves
        kernel = _dense(read, f"{_GENERATOR}.fc_weight", made) * _SCALE
        bias = _dense(read, f"{_GENERATOR}.fc_bias", out[-1:])[0] * _SCALE
    patch = round((kernel.shape[1] / len(bias)) ** 0.5)
    kernel = kernel.reshape(len(waves), patch, patch, len(bias))
    return np.asarray(kernel.transpose(3, 0, 1, 2)), np.asarray(bias)


def _embed(wavelengths: np.ndarray, width: int) -> np.ndarray:
    """Sines and cosines of wavelengths in nanometres: [bands, width]."""
    # In float32 throughout, as DOFA was trained: the angles are thousands of radians.
    half = np.float32(width // 2)
    omega = 1 / np.float32(10000) ** (np.arange(half, dtype=np.float32) / half)
    angles = wavelengths.astype(np.float32)[:, None] * np.float32(1000) * omega[None]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)


def _encoder_layer(read, x: jax.Array) -> jax.Array:
    """torch's TransformerEncoderLayer, LayerNorm after each half: [n, width]."""
    n, width = x.shape
    qkv = x @ read(f"{_LAYER}.self_attn.in_proj_weight").T
    qkv = qkv + read(f"{_LAYER}.self_attn.in_proj_bias")[None]
    q, k, v = qkv.reshape(n, 3, _HEADS, width // _HEADS).transpose(1, 2, 0, 3)
    weights = jax.nn.softmax(q @ k.swapaxes(1, 2) * (width // _HEADS) ** -0.5)
    mixed = (weights @ v).transpose(1, 0, 2).reshape(n, width)
    x = _norm(read, "norm1", x + _dense(read, f"{_LAYER}.self_attn.out_proj", mixed))
    inner = jax.nn.gelu(_dense(read, f"{_LAYER}.linear1", x), approximate=False)
    return _norm(read, "norm2", x + _dense(read, f"{_LAYER}.linear2", inner))


def _norm(read, name: str, x: jax.Array) -> jax.Array:
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    x = (x - mean) / jnp.sqrt(variance + _EPS)
    return (
        x * read(f"{_LAYER}.{name}.weight")[None] + read(f"{_LAYER}.{name}.bias")[None]
    )


def _dense(read, name: str, x: jax.Array | np.ndarray) -> jax.Array:
    return x @ read(f"{name}.weight").T + read(f"{name}.bias")[None]
