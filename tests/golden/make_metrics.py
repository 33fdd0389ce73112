"""Metrics as torchmetrics has them: metrics_out.npz, inputs and values.

python tests/golden/make_metrics.py, with torch and torchmetrics 1.9.0. In float64, from
float32 inputs. Ties are left out, for torchmetrics breaks them by place.
"""

from pathlib import Path

import numpy as np
import torch
from torchmetrics.classification import (
    BinaryCalibrationError,
    MulticlassAccuracy,
    MulticlassCalibrationError,
    MultilabelAveragePrecision,
)
from torchmetrics.retrieval import RetrievalHitRate, RetrievalMAP, RetrievalRecall

FOLDER = Path(__file__).parent
KS = (1, 5, 20)


def main() -> None:
    """One label each, several labels each, and retrieval of places and labels."""
    rng = np.random.default_rng(0)
    out = single(rng) | multi(rng) | retrieval(rng)
    np.savez_compressed(FOLDER / "metrics_out.npz", **out)


def single(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Class 7 has no example and is never found, so that macro leaves it out here."""
    labels = rng.integers(0, 7, 300)
    logits = rng.normal(size=(300, 8)).astype(np.float32)
    logits[np.arange(300), labels] += 1
    logits[:, 7] -= 9
    given = torch.tensor(logits, dtype=torch.float64), torch.tensor(labels)
    made = {
        "ece": MulticlassCalibrationError(8, n_bins=15, norm="l1"),
        "accuracy": MulticlassAccuracy(8, average="micro"),
        "accuracy@5": MulticlassAccuracy(8, average="micro", top_k=5),
        "mean_recall": MulticlassAccuracy(8, average="macro"),
    }
    values = {f"single/{k}": metric(*given).numpy() for k, metric in made.items()}
    return {"single/logits": logits, "single/labels": labels, **values}


def multi(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Class 5 has no example; it is not in macro, where torchmetrics counts it as 0."""
    targets = rng.integers(0, 2, (200, 6))
    targets[:, 5] = 0
    logits = (rng.normal(size=(200, 6)) + targets).astype(np.float32)
    given = torch.tensor(logits, dtype=torch.float64), torch.tensor(targets)
    pooled = [x.flatten() for x in given]
    values = {"multi/ece": BinaryCalibrationError(n_bins=15, norm="l1")(*pooled)}
    values["multi/mAP_micro"] = MultilabelAveragePrecision(6, average="micro")(*given)
    five = [x[:, :5] for x in given]
    values["multi/mAP_macro"] = MultilabelAveragePrecision(5, average="macro")(*five)
    values = {key: value.numpy() for key, value in values.items()}
    return {"multi/logits": logits, "multi/targets": targets, **values}


def retrieval(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """rgb -> s1 by place and by label, and from a prompt of each class; 4 has none."""
    rgb = rng.normal(size=(60, 12)).astype(np.float32)
    s1 = (rgb + rng.normal(size=rgb.shape)).astype(np.float32)
    head = rng.normal(size=(12, 5)).astype(np.float32)
    labels = rng.integers(0, 4, 60)
    out = {"rgb": rgb, "s1": s1, "head": head, "labels": labels}
    places, alike = np.eye(60), labels[:, None] == labels
    of_class = np.arange(5)[:, None] == labels
    for k in KS:
        out[f"recall@{k}"] = score(RetrievalRecall(top_k=k), rgb, s1, places)
        out[f"hit@{k}"] = score(RetrievalHitRate(top_k=k), rgb, s1, places)
        skip = {"empty_target_action": "skip", "top_k": k}
        out[f"mAP@{k}"] = score(RetrievalMAP(**skip), rgb, s1, alike)
        out[f"text/mAP@{k}"] = score(RetrievalMAP(**skip), head.T, s1, of_class)
    return {f"retrieval/{key}": value for key, value in out.items()}


def score(metric, queries, gallery, relevant) -> np.ndarray:
    scores = queries.astype(float) @ gallery.T.astype(float)
    scores -= scores.min() - 1  # torchmetrics takes what is not above 0 as not relevant
    asked = np.arange(len(scores))[:, None].repeat(scores.shape[1], axis=1)
    parts = (scores, relevant.astype(bool), asked)
    scores, relevant, asked = (torch.tensor(x).flatten() for x in parts)
    return metric(scores, relevant, indexes=asked).numpy()


if __name__ == "__main__":
    main()
