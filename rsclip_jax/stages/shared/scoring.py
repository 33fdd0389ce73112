"""Scores of embeddings: zero-shot heads, captions, the modality gap."""

from collections.abc import Callable
from typing import Any

import numpy as np

from rsclip_jax import api
from rsclip_jax.data.catalog.prompts import (
    DATASET,
    captions_digest,
    get_templates,
    prompts_digest,
)
from rsclip_jax.data.pipeline.texts import read_captions
from rsclip_jax.data.types import Source
from rsclip_jax.evals.fuse import parts_of
from rsclip_jax.evals.modality_gap import gap_records
from rsclip_jax.evals.retrieval import text_retrieval_records
from rsclip_jax.evals.zero_shot import zero_shot_records
from rsclip_jax.models.inference import count_tokens_for
from rsclip_jax.records import outcomes
from rsclip_jax.stages.shared.run import Run


def zero_shot_head(clip: api.Model, source: Source, prompt_set: str = DATASET):
    """(head [d, k], prompts digest) of a labelled source's class names.

    prompt_set: the name of a set of templates; "dataset" is the dataset's templates.
    """
    dataset = source.dataset
    templates = get_templates(prompt_set, dataset.templates)
    head = clip.zero_shot(dataset.classnames, templates)
    return head, prompts_digest(dataset.classnames, templates)


def score(source: Source, z, labels, head, sensor: str) -> list[dict]:
    """Zero-shot records of embeddings through a head."""
    dataset = source.dataset
    return zero_shot_records(
        z @ head,
        labels,
        task=dataset.task,
        sensor=sensor,
        classnames=dataset.classnames,
    )


def report_gap(
    run: Run,
    stage: str,
    source: Source,
    outcome: outcomes.Outcome,
    pin: Callable[[str], dict[str, Any]],
) -> None:
    """Reports the gap between the modalities in a model's embeddings of a source.

    pin: returns the fields that identify the weights behind a sensor, "rgb->text".
    """
    for record in gap_records(outcome):
        sensor = record["sensor"]
        asked = {}
        if "text" in parts_of(sensor):
            kept = ("prompts", "prompt_set")
            asked = {key: outcome.pins[key] for key in kept if key in outcome.pins}
        run.report(stage, source, [record], **asked, **pin(sensor))


def score_captions(run: Run, clip: api.Model, source: Source, z: dict):
    """(retrieval records of a captioned source, digest of its captions).

    z: modality -> embeddings [n, d] of all images, in order.
    """
    ztxt, owners, digest = encode_captions(run, clip, source)
    return text_retrieval_records(z, ztxt, owners, mesh=run.mesh), digest


def encode_captions(
    run: Run, clip: api.Model, source: Source
) -> tuple[np.ndarray, np.ndarray, str]:
    """(ztxt [m, d], owners [m], digest) of a source's captions, in image order."""
    captions = read_captions(source)
    texts = [text for of_one in captions for text in of_one]
    each = list(dict.fromkeys(texts))  # captions are often repeated
    counts = count_tokens_for(clip.variant, each)
    log_truncated(run, source, counts, clip.variant.context_length)
    zeach = clip.encode_text(each, truncate=True)
    indices = {text: i for i, text in enumerate(each)}
    owners = np.repeat(np.arange(len(captions)), [len(x) for x in captions])
    return zeach[[indices[text] for text in texts]], owners, captions_digest(captions)


def log_truncated(run: Run, source: Source, counts: np.ndarray, length: int) -> None:
    """Logs how many distinct captions of a source are too long for a text tower.

    counts: the number of tokens of each caption.
    """
    if cut := int((counts > length).sum()):
        run.log(
            f"{source.spec}: {cut:,} of {len(counts):,} distinct captions have more"
            f" than {length} tokens and are truncated"
        )
