"""Embeddings of images, of sensor arrays and of texts, and the zero-shot head.

Each call moves its params to the device, which is free if they are there already;
OnDevice keeps them there between calls.
"""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rsclip_jax.data.catalog.prompts import fill_templates
from rsclip_jax.data.sensors import Sensor
from rsclip_jax.data.tokenizer import VOCAB_SIZE, count_tokens, tokenize
from rsclip_jax.data.tokenizer_files import count_tokens_by, tokenize_by
from rsclip_jax.losses import normalize
from rsclip_jax.models.clip import image_features, text_features
from rsclip_jax.models.compute import FLOAT32, Compute
from rsclip_jax.models.inputs import MAX_SHRINK, Image, fit_arrays, fit_images
from rsclip_jax.models.sensor import SensorSpec, sensor_features
from rsclip_jax.models.variants import Variant
from rsclip_jax.train.sharding import on_host, put_params


class OnDevice(Mapping):
    """Parameter trees by name, each moved to the device at its first use.

    mesh: where its axis "fsdp" has several devices, the params are split over them.
    """

    def __init__(self, trees: Mapping[str, dict], mesh: Mesh | None = None):
        self._trees = dict(trees)
        self._split = mesh if mesh and mesh.shape["fsdp"] > 1 else None
        self._moved: dict[str, dict] = {}

    def __getitem__(self, name: str) -> dict:
        if name not in self._moved:
            tree, mesh = self._trees[name], self._split
            moved = put_params(tree, mesh) if mesh else _on_device(tree)
            self._moved[name] = moved
        return self._moved[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._trees)

    def __len__(self) -> int:
        return len(self._trees)


def _on_device(tree: dict) -> dict:
    """Moves a tree from the host to the device; arrays of devices stay where they are.

    jax.device_put refuses those that are spread over several processes.
    """
    if all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(tree)):
        return tree
    return jax.device_put(tree)


# Images


@functools.partial(jax.jit, static_argnames=("variant", "compute"))
def encode_rgb(
    visual_params: dict,
    rgb: jax.Array,
    *,
    variant: Variant,
    compute: Compute = FLOAT32,
) -> jax.Array:
    """zimg [b, d] of uint8 RGB [b, h, w, 3] of the variant's size."""
    return normalize(image_features(visual_params, rgb, variant, compute))


@functools.partial(jax.jit, static_argnames=("spec", "compute"))
def encode_sensor(
    params: dict, x: jax.Array, *, spec: SensorSpec, compute: Compute = FLOAT32
) -> jax.Array:
    """z [b, d] of raw sensor values [b, h, w, c] of the spec's size."""
    return normalize(sensor_features(params, x, spec, compute))


def encode_images(
    params: Mapping,
    variant: Variant,
    images: Image | Sequence[Image],
    *,
    block: int = 64,
    max_shrink: float | None = MAX_SHRINK,
    value_range: tuple[float, float] | None = None,
    compute: Compute = FLOAT32,
) -> np.ndarray:
    """Unit-norm embeddings [n, d] of images of any size; see inputs.fit_images."""
    fitted = fit_images(images, variant.fit, max_shrink, value_range)
    visual = _on_device(params["visual"])
    encode = functools.partial(encode_rgb, visual, variant=variant, compute=compute)
    return _in_blocks(encode, fitted, block, variant.embed_dim)


def encode_arrays(
    params: dict,
    spec: SensorSpec,
    arrays: np.ndarray | Sequence[np.ndarray],
    held: Sensor,
    *,
    block: int = 64,
    max_shrink: float | None = MAX_SHRINK,
    compute: Compute = FLOAT32,
) -> np.ndarray:
    """Unit-norm embeddings [n, d] of a sensor's arrays; see inputs.fit_arrays."""
    fitted = fit_arrays(arrays, spec, held, max_shrink)
    params = _on_device(params)
    encode = functools.partial(encode_sensor, params, spec=spec, compute=compute)
    return _in_blocks(encode, fitted, block, spec.out_dim)


def _in_blocks(
    encode: Callable, arrays: Sequence[np.ndarray], block: int, dim: int
) -> np.ndarray:
    """One compiled shape for any number of inputs: the last block is padded.

    Fewer than `block` go in one block of the next power of two.
    """
    if block < 1:
        raise ValueError(f"block = {block}: at least one image is encoded at a time")
    block = min(block, 1 << max(len(arrays) - 1, 0).bit_length())
    out = []
    for i in range(0, len(arrays), block):
        part = list(arrays[i : i + block])
        padded = part + [np.zeros_like(part[0])] * (block - len(part))
        out.append(np.asarray(on_host(encode(np.stack(padded))))[: len(part)])
    return np.concatenate(out) if out else np.zeros((0, dim), np.float32)


# Texts


def make_head(
    params: Mapping,
    variant: Variant,
    classnames: Sequence[str],
    templates: str | Sequence[str],
    compute: Compute = FLOAT32,
) -> np.ndarray:
    """The zero-shot head [d, k] of CLIP params, float32.

    Mean over templates of unit-norm text embeddings, re-normalised, times
    exp(logit_scale), so that logits = zimg @ head.
    """
    ztxt = encode_prompts(params, variant, classnames, templates, compute)
    mean = ztxt.mean(axis=1)
    head = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    scale = np.exp(np.asarray(on_host(params["logit_scale"])))
    return (head.T * scale).astype(np.float32)


def encode_prompts(
    params: Mapping,
    variant: Variant,
    classnames: Sequence[str],
    templates: str | Sequence[str],
    compute: Compute = FLOAT32,
) -> np.ndarray:
    """Unit-norm embeddings [k, templates, d] of class names in templates."""
    prompts = fill_templates(classnames, templates)
    each = [p for of_class in prompts for p in of_class]
    ztxt = encode_texts(params, variant, each, compute=compute)
    return ztxt.reshape(len(prompts), len(prompts[0]), -1)


def encode_texts(
    params: Mapping,
    variant: Variant,
    texts: Sequence[str],
    *,
    truncate: bool = False,
    block: int = 256,
    compute: Compute = FLOAT32,
) -> np.ndarray:
    """Unit-norm embeddings [n, d] of texts, in blocks of one compiled shape.

    Raises ValueError for a text tower whose vocabulary is not the tokenizer's.
    """
    tokens = tokenize_for(variant, texts, truncate)
    if not len(tokens):
        return np.zeros((0, variant.embed_dim), np.float32)
    if variant.family == "clip":
        # The tower is causal: what follows every text's end token can be cut off.
        used = last_token(tokens, variant.end_token) + 1
        tokens = tokens[:, : min(-(-used // 8) * 8, variant.context_length)]
    block = min(block, -(-len(tokens) // 16) * 16)
    text_params = _on_device(params["text"])
    out = []
    for i in range(0, len(tokens), block):
        part = tokens[i : i + block]
        padded = np.concatenate([part, np.repeat(part[:1], block - len(part), axis=0)])
        z = _encode_tokens(text_params, padded, variant=variant, compute=compute)
        out.append(np.asarray(on_host(z))[: len(part)])
    return np.concatenate(out)


def tokenize_for(
    variant: Variant, texts: str | Sequence[str], truncate: bool = False
) -> np.ndarray:
    """int32 [n, context_length] of texts, by the variant's tokenizer; see tokenize.

    Raises ValueError for a text tower whose vocabulary is not the tokenizer's.
    """
    length = variant.context_length
    if variant.tokenizer is not None:
        ids = tokenize_by(variant.tokenizer, texts, length, truncate)
        if (largest := ids.max(initial=0)) >= variant.vocab_size:
            raise ValueError(
                f"the tokenizer of {variant.name} gives the id {largest}, and its text"
                f" tower has a vocabulary of {variant.vocab_size}: it is of another"
                " model"
            )
        return ids
    if variant.vocab_size != VOCAB_SIZE:
        raise ValueError(
            f"the text tower of {variant.name} has a vocabulary of"
            f" {variant.vocab_size} ids, CLIP's tokenizer {VOCAB_SIZE}: texts cannot be"
            " encoded by it"
        )
    return tokenize(texts, length, truncate)


def count_tokens_for(variant: Variant, texts: Sequence[str]) -> np.ndarray:
    """int64 [n]: the number of tokens of each text, special ones included."""
    if variant.tokenizer is not None:
        return count_tokens_by(variant.tokenizer, texts)
    return count_tokens(texts)


def last_token(tokens: np.ndarray, end_token: int = -1) -> int:
    """The index of the end token in the longest of texts [..., n]; -1: the largest id.

    Not the index before the zeros: 0 is padding and also the token of "!".
    """
    ends = tokens if end_token < 0 else tokens == end_token
    return int(ends.argmax(axis=-1).max(initial=0))


@functools.partial(jax.jit, static_argnames=("variant", "compute"))
def _encode_tokens(text_params, tokens, *, variant, compute):
    return normalize(text_features(text_params, jnp.asarray(tokens), variant, compute))
