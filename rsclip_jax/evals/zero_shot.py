"""Zero-shot classification through text: the head, and its scores as records."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from rsclip_jax import metrics, resample
from rsclip_jax.data.prompts import fill_templates
from rsclip_jax.data.tokenizer import tokenize
from rsclip_jax.losses import normalize
from rsclip_jax.models.clip import text_features
from rsclip_jax.models.variants import Variant
from rsclip_jax.resample import known, rounded


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


def zero_shot_records(
    logits: np.ndarray,
    labels: np.ndarray,
    *,
    task: str,
    sensor: str,
    classnames: Sequence[str],
) -> list[dict]:
    """accuracy and mean_recall (task "single") or mAP_macro and mAP_micro ("multi").

    Of one label also accuracy@5, where there are more than five classes; of both ece,
    the calibration error (metrics.calibration_gaps). accuracy and mAP_macro have their
    per_class, all a bootstrap interval "ci95". A value is None where no class
    of several labels has an example.
    """
    scored = _score_single if task == "single" else _score_multi
    base = {"sensor": sensor, "task": "zero_shot", "n": len(labels)}
    gaps = metrics.calibration_gaps(logits, labels)
    found = scored(logits, labels, classnames)
    found["ece"] = {
        "value": known(metrics.calibration_error(logits, labels)),
        "ci95": rounded(resample.calibration_interval(gaps)),
    }
    return [{**base, "metric": metric, **one} for metric, one in found.items()]


def _score_single(logits, labels, classnames) -> dict[str, dict]:
    hits = metrics.in_top_k(logits, labels)
    per_class = metrics.per_class_accuracy(logits, labels)
    found = {"accuracy": {**_share(hits), "per_class": _named(classnames, per_class)}}
    if logits.shape[1] > 5:
        found["accuracy@5"] = _share(metrics.in_top_k(logits, labels, 5))
    found["mean_recall"] = {
        "value": known(metrics.mean_recall(logits, labels)),
        "ci95": rounded(resample.mean_recall_interval(hits, labels)),
    }
    return found


def _score_multi(logits, labels, classnames) -> dict[str, dict]:
    per_class = metrics.average_precision(logits, labels)
    ci95 = resample.map_intervals(logits, labels)
    found: dict[str, dict] = {
        f"mAP_{average}": {
            "value": known(metrics.mean_ap(logits, labels, average)),
            "ci95": rounded(ci95[average]),
        }
        for average in ("macro", "micro")
    }
    found["mAP_macro"]["per_class"] = _named(classnames, per_class)
    return found


def _share(hits: np.ndarray) -> dict:
    ci95 = rounded(resample.share_interval(hits))
    return {"value": float(np.mean(hits)), "ci95": ci95}


def _named(classnames: Sequence[str], values: np.ndarray) -> dict[str, float | None]:
    # JSON has no nan; a class without examples has no value
    return {
        name: None if np.isnan(v) else round(float(v), 6)
        for name, v in zip(classnames, values, strict=True)
    }
