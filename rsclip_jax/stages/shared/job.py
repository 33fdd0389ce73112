"""What a stage trains and encodes, as values: a run does it, a plan measures it."""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

from rsclip_jax.data.types import Source
from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train.settings import TrainSettings
from rsclip_jax.train_step import LossFn


@dataclasses.dataclass(frozen=True)
class Job:
    """What a training starts from, and what it minimises on which data.

    params, frozen: arrays; for a plan, ShapeDtypeStructs. tower: see make_tx. section:
    that of the config with the settings, for messages; by default the stage's.
    """

    stage: str
    settings: TrainSettings
    data: training.TrainingData
    params: Any
    frozen: Any
    loss_fn: LossFn
    tower: Any = None
    section: str = ""

    @property
    def setting(self) -> str:
        """What the names of its settings begin with."""
        return f"config.{self.section or self.stage}."


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
        section=job.section,
    )


@dataclasses.dataclass(frozen=True)
class Pass:
    """Images that a stage encodes outside training steps.

    model: the tower's sizes, equal for equal programs. encode: (params, batch) ->
    embeddings; params: ShapeDtypeStructs. key, size, bands: the record key of the
    images, their side in pixels and their bands. counts: how often each source is
    encoded.
    """

    name: str
    model: Hashable
    encode: Callable[[Any, Mapping], Any]
    params: Any
    key: str
    size: int
    bands: int
    counts: Sequence[tuple[Source, int]]

    @property
    def images(self) -> int:
        return sum(len(source) * times for source, times in self.counts)


@dataclasses.dataclass(frozen=True)
class Needs:
    """What a stage is going to do, from shapes alone.

    product: ShapeDtypeStructs of the params that it leaves. files: other files that
    it writes and their bytes. left_out: work that takes time and is not in it.
    """

    jobs: Sequence[Job] = ()
    passes: Sequence[Pass] = ()
    product: Any = None
    files: Mapping[str, int] = dataclasses.field(default_factory=dict)
    left_out: Sequence[str] = ()
