"""config.patch as frozen settings."""

import dataclasses
from collections.abc import Mapping

from ml_collections import ConfigDict

from rsclip_jax.data.specs import as_specs
from rsclip_jax.records.budget import Budget
from rsclip_jax.stages.shared import training
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train.settings import TrainSettings


@dataclasses.dataclass(frozen=True)
class Lora:
    """config.patch.lora."""

    rank: int
    alpha: float
    targets: str

    @property
    def scale(self) -> float:
        """The factor on the product of an adapter's matrices."""
        return self.alpha / self.rank


@dataclasses.dataclass(frozen=True)
class PatchSettings:
    """config.patch; configs/common.py explains each setting.

    train, val, test: one dataset per task.
    """

    train: tuple[str, ...]
    val: tuple[str, ...]
    test: tuple[str, ...]
    tasks: str
    weights: tuple[float, ...]
    merge: str
    fisher_examples: int
    supported_val: tuple[str, ...]
    supported_test: tuple[str, ...]
    supported_above_chance: bool
    alphas: tuple[float, ...]
    max_supported_drop: float
    min_supported_retained: float
    alpha: float | None
    bootstraps: int
    recipe: str
    last_blocks: int
    lora: Lora
    head: str
    head_steps: int
    head_lr: float
    loss: str
    train_text: bool
    asymmetric: Mapping[str, float]
    label_smoothing: float
    class_balanced: float
    per_block: bool
    block_evaluations: int
    block_examples: int
    block_cache_gb: float
    allow_shared: bool
    allow_other_data: bool
    training: TrainSettings

    @classmethod
    def of(cls, c: ConfigDict) -> "PatchSettings":
        """Reads the section; errors name the setting."""
        specs = ("train", "val", "test", "supported_val", "supported_test")
        sections = ("lora", "asymmetric", "training")
        names = [field.name for field in dataclasses.fields(cls)]
        plain = [n for n in names if n not in (*specs, *sections)]
        values = {name: c[name] for name in plain}
        values |= {name: as_specs(c[name]) for name in specs}
        values |= {name: tuple(c[name]) for name in ("weights", "alphas")}
        return cls(
            **values,
            lora=Lora(**c.lora.to_dict()),
            asymmetric=c.asymmetric.to_dict(),
            training=training.train_settings(c, "patch"),
        )

    @property
    def budget(self) -> Budget:
        """How much each supported dataset may lose."""
        return Budget(self.max_supported_drop, self.min_supported_retained)


def settings_of(run: Run) -> PatchSettings:
    return PatchSettings.of(run.config.patch)
