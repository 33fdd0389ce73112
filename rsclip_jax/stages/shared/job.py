"""One training of a stage as a value, which a run trains and a plan measures."""

import dataclasses
from typing import Any

from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train.settings import TrainSettings
from rsclip_jax.train_step import LossFn


@dataclasses.dataclass(frozen=True)
class Job:
    """What a training starts from, and what it minimises on which data.

    params, frozen: arrays; for a plan, ShapeDtypeStructs. tower: see make_tx.
    """

    stage: str
    settings: TrainSettings
    data: training.TrainingData
    params: Any
    frozen: Any
    loss_fn: LossFn
    tower: Any = None


def fit(run: Run, job: Job, origins: dict[str, dict]) -> Any:
    """training.fit of a job."""
    return training.fit(
        run,
        job.stage,
        job.settings,
        job.data,
        params=job.params,
        frozen=job.frozen,
        loss_fn=job.loss_fn,
        origins=origins,
        tower=job.tower,
    )
