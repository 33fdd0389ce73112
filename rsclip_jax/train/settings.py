"""The settings of one training, and the optimizer that they describe."""

import dataclasses
import math
from typing import Any

import optax

from rsclip_jax.data.pipeline.augment import Augment
from rsclip_jax.train import optim
from rsclip_jax.train.sharding import NEGATIVES
from rsclip_jax.train_step import GRAD_DTYPES

EVERYTHING: optim.Rules = ((".*", True),)
NONFINITE = ("stop", "skip")


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """The length, optimizer, trained parameters and augmentation of a training.

    steps and warmup count batches of batch_size examples; lr is AdamW's peak learning
    rate, b2 its second-moment decay. checkpoint_every and log_every are in steps.
    trainable: rules as in optim.check_trainable. layer_decay: see optim.layer_rules.
    ema: see optim.with_ema; 0 keeps no average. keep, keep_best: see resume.Saves.
    on_nonfinite: "stop" at a loss or gradient that is not finite, or "skip" up to
    max_skipped such steps. accumulate and grad_dtype: see train_step. negatives: see
    sharding.make_clip_loss. Raises ValueError for out-of-range training settings.
    """

    batch_size: int
    steps: int
    lr: float
    warmup: int = 0
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    b2: float = 0.999
    checkpoint_every: int = 100
    log_every: int = 10
    trainable: optim.Rules = EVERYTHING
    layer_decay: float = 1.0
    ema: float = 0.0
    keep: int = 2
    keep_best: int = 0
    on_nonfinite: str = "stop"
    max_skipped: int = 10
    accumulate: int = 1
    grad_dtype: str = "float32"
    negatives: str = "all_gather"
    augment: Augment = dataclasses.field(default_factory=Augment)

    def __post_init__(self):
        least = {"batch_size": 1, "steps": 1, "warmup": 0, "lr": 0}
        least |= {"checkpoint_every": 1, "log_every": 1, "weight_decay": 0}
        least |= {"keep": 1, "keep_best": 0, "max_skipped": 0, "accumulate": 1}
        for name, low in least.items():
            value = getattr(self, name)
            if not math.isfinite(value):
                raise ValueError(f"{name} = {value} is not a finite number")
            if value < low:
                raise ValueError(f"{name} = {value} is below {low}")
        choices = {"grad_dtype": GRAD_DTYPES, "negatives": NEGATIVES}
        choices["on_nonfinite"] = NONFINITE
        for name, known in choices.items():
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} = {value!r}: use one of {', '.join(known)}")
        if not self.clip_norm > 0:
            raise ValueError(f"clip_norm = {self.clip_norm} is not above 0")
        if not 0 <= self.b2 < 1:
            raise ValueError(f"b2 = {self.b2} is not in [0, 1)")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema = {self.ema} is not in [0, 1); 0 keeps no average")
        if not 0 < self.layer_decay <= 1:
            raise ValueError(
                f"layer_decay = {self.layer_decay} is not in (0, 1]; 1 gives every"
                " layer the same rate"
            )

    @property
    def schedule(self) -> optax.Schedule:
        """The learning rate by step."""
        return optim.make_schedule(self.lr, self.warmup, self.steps)


def make_tx(
    settings: TrainSettings, params: Any, tower: Any = None
) -> optax.GradientTransformation:
    """The optimizer of these parameters.

    tower: the tree whose blocks layer_decay counts, if params (such as adapters) are
    only a part of it. Raises ValueError naming the setting that does not fit params.
    """
    optim.check_trainable(settings.trainable, params)
    rates: optim.Rules = ((".*", 1.0),)
    if settings.layer_decay < 1:
        rates = optim.layer_rules(tower or params, settings.layer_decay)
    return optim.make_optimizer(
        settings.schedule,
        weight_decay=settings.weight_decay,
        clip_norm=settings.clip_norm,
        b2=settings.b2,
        trainable=settings.trainable,
        rates=rates,
        ema=settings.ema,
    )
