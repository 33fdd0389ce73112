"""Texts through a CLIP: embeddings and the zero-shot head."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rsclip_jax.data.catalog.prompts import fill_templates
from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.losses import normalize
from rsclip_jax.models.clip import text_features
from rsclip_jax.models.variants import Variant


def make_head(
    params: dict,
    variant: Variant,
    classnames: Sequence[str],
    templates: str | Sequence[str],
) -> np.ndarray:
    """The zero-shot head [d, k] of CLIP params, float32.

    Mean over templates of unit-norm text embeddings, re-normalised, times
    exp(logit_scale), so that logits = zimg @ head.
    """
    mean = encode_prompts(params, variant, classnames, templates).mean(axis=1)
    head = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    return (head.T * np.exp(np.asarray(params["logit_scale"]))).astype(np.float32)


def encode_prompts(
    params: dict,
    variant: Variant,
    classnames: Sequence[str],
    templates: str | Sequence[str],
) -> np.ndarray:
    """Unit-norm embeddings [k, templates, d] of class names in templates."""
    prompts = fill_templates(classnames, templates)
    ztxt = encode_texts(params, variant, [p for row in prompts for p in row])
    return ztxt.reshape(len(prompts), len(prompts[0]), -1)


def encode_texts(
    params: dict,
    variant: Variant,
    texts: Sequence[str],
    *,
    truncate: bool = False,
    block: int = 256,
) -> np.ndarray:
    """Unit-norm embeddings [n, d] of texts, in blocks of one compiled shape."""
    tokens = tokenize(texts, context_length=variant.context_length, truncate=truncate)
    # The tower is causal: what follows every text's end token can be cut off.
    used = last_token(tokens) + 1
    tokens = tokens[:, : min(-(-used // 8) * 8, variant.context_length)]
    block = min(block, -(-max(len(tokens), 1) // 16) * 16)
    out = []
    for i in range(0, len(tokens), block):
        part = tokens[i : i + block]
        padded = np.concatenate([part, np.repeat(part[:1], block - len(part), axis=0)])
        z = _encode_tokens(params["text"], padded, variant=variant)
        out.append(np.asarray(z)[: len(part)])
    if not out:
        return np.zeros((0, variant.embed_dim), np.float32)
    return np.concatenate(out)


def last_token(tokens: np.ndarray) -> int:
    """Where the longest of the texts [..., n] has its end token, the largest id.

    Not where the zeros begin: 0 is padding and also the token of "!".
    """
    return int(tokens.argmax(axis=-1).max(initial=0))


@functools.partial(jax.jit, static_argnames="variant")
def _encode_tokens(text_params, tokens, *, variant):
    return normalize(text_features(text_params, jnp.asarray(tokens), variant))
