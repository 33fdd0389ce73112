"""A workdir as a whole run leaves it, made without training anything."""

import dataclasses
import json
from pathlib import Path

import numpy as np

from rsclip_jax.data.types import Dataset, Source
from rsclip_jax.records.outcomes import Outcome, save_outcome
from rsclip_jax.records.results import Result
from rsclip_jax.report.gallery import save_thumbnails, thumbnails_path

HOSTILE = "<script>\"x\"</script> & 'y'"
CLASSES = ("river", "forest", HOSTILE)
N, D = 30, 8


@dataclasses.dataclass
class Scenes(Source):
    """A source of N scenes whose pictures are noise."""

    dataset: Dataset
    ids: list[str]

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng(index)
        return {
            "id": self.ids[index],
            "rgb": rng.integers(0, 256, (16, 16, 3), np.uint8),
            "s1": rng.normal(-12, 3, (16, 16, 2)).astype(np.float32),
        }


def make_outcome(dataset: str, sensors=("rgb",), seed: int = 0, **pins) -> Outcome:
    """Embeddings near their classes' texts; the head has the logits' scale in it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(N) % len(CLASSES)
    text = unit(rng.normal(size=(len(CLASSES), D)))
    z = {s: unit(text[labels] + 0.6 * rng.normal(size=(N, D))) for s in sensors}
    return Outcome(
        {"stage": "align", "dataset": dataset, "split": "test", "task": "single"}
        | pins,
        tuple(f"{dataset}/{i}" for i in range(N)),
        {key: value.astype(np.float32) for key, value in z.items()},
        labels=labels,
        classnames=CLASSES,
        head=(14 * text.T).astype(np.float32),
    )


def unit(x: np.ndarray) -> np.ndarray:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def make_source(outcome: Outcome) -> Scenes:
    """The scenes that an outcome is of."""
    sensors = {key: {"rgb": "rgb", "s1": "s1_grd"}[key] for key in outcome.z}
    row = Dataset("scenes", "miniature", "single", sensors, classnames=CLASSES)
    return Scenes(row, list(outcome.ids))


def make_record(
    stage: str, dataset: str, value: float | None, step: int, **more
) -> Result:
    record = {
        "stage": stage,
        "dataset": dataset,
        "split": "test",
        "sensor": "rgb",
        "task": "zero_shot",
        "metric": "accuracy",
        "value": value,
        "n": 1000 + step,
        "step": step,
        "prompts": "0123456789abcdef",
        "checkpoint": f"{stage}{step}".ljust(16, "f"),
        "split_digest": "fedcba9876543210",
    }
    if value is not None:
        record["ci95"] = [value - 0.03, value + 0.02]
        record["per_class"] = {c: value + 0.01 * i for i, c in enumerate(CLASSES)}
    return Result(**{**record, **more})


def make_records() -> list[Result]:
    """Of patch a sweep over validation and test sets, of align a sensor, and so on."""
    records = []
    for split in ("val", "test"):
        for dataset, slope in (("scenes", 0.5), ("photos", -0.3)):
            for alpha in (0.0, 0.5, 1.0):
                value, step = 0.5 + slope * alpha**2, 9 * (alpha > 0)
                more = {"split": split, "alpha": alpha}
                records.append(make_record("patch", dataset, value, step, **more))
    for step, value in ((0, 0.1), (7, 0.6)):
        records.append(make_record("align", "scenes", value, step, sensor="s1"))
        more = {"sensor": "rgb->s1", "task": "retrieval", "metric": "recall@10"}
        more["per_class"] = None
        records.append(make_record("align", "scenes", value / 2, step, **more))
    rank = {"task": "retrieval", "metric": "median_rank", "ci95": None}
    return [*records, make_record("evaluate", "scenes", 12.5, 7, **rank)]


CONFIG = {
    "stages": ["patch", "align", "evaluate"],
    "seed": 0,
}
PATCH = {
    "stage": "patch",
    "sets": {
        "val": ["scenes:val"],
        "test": ["scenes:test"],
        "supported_val": ["photos:val"],
        "supported_test": ["photos:test"],
    },
    "budget": {"max_drop": 0.1, "min_retained": 0.0},
    "alpha": 0.5,
    "alpha_ci95": [0.5, 1.0],
    "alpha_chosen_by": "validation",
    "alpha_blocks": None,
    "steps": 9,
    "digest": "0011223344556677",
    "git_commit": "89abcdef" * 5,
    "finished": "2026-01-02 03:04 UTC",
    "devices": "1 x cpu",
    "data": {"scenes:train": "7766554433221100"},
    "sources": {"theta_0": {"path": f"weights/{HOSTILE}.npz", "digest": "ab" * 8}},
}


def make_workdir(workdir: Path) -> Path:
    """Writes it all."""
    put(workdir / "config.json", json.dumps(CONFIG))
    put(workdir / "results.jsonl", lines([r.to_json() for r in make_records()]))
    put(workdir / "patch/meta.json", json.dumps(PATCH))
    put(workdir / "align/meta.json", json.dumps({"digest": "cd" * 8, "steps": 7}))
    curve = [{"step": i, "loss": 2 / i, "grad_norm": 1.0, "lr": 0.1} for i in (1, 2, 3)]
    put(workdir / "align/metrics.jsonl", lines(curve))
    for stage, sensors in (("patch", ("rgb",)), ("align", ("rgb", "s1"))):
        for seed, when in enumerate(("before", "after")):
            outcome = make_outcome("scenes", sensors, seed, stage=stage)
            save_outcome(workdir / stage / "outcomes" / when, outcome)
        path = thumbnails_path(workdir / stage, outcome)
        save_thumbnails(path, outcome, make_source(outcome))
    return workdir


def put(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def lines(rows: list[dict]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)
