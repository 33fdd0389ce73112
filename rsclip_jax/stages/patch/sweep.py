"""Evaluates interpolations of two models' towers; images are decoded once for all."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from rsclip_jax import api, metrics
from rsclip_jax.data.types import Source
from rsclip_jax.interpolate import interpolate
from rsclip_jax.models import inference
from rsclip_jax.records.budget import ORIGINAL
from rsclip_jax.records.metric_names import PRIMARY
from rsclip_jax.records.outcomes import Outcome
from rsclip_jax.stages.patch.mixtures import Alpha, Mixtures
from rsclip_jax.stages.patch.settings import PatchSettings
from rsclip_jax.stages.shared import dataset_checks, scoring
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.stats.draws import Draw, bootstrap_map, bootstrap_mean
from rsclip_jax.train import checkpoint

# The batches that are on the devices at a time: a mixture is made once for all of them.
_GROUP = 8


@dataclasses.dataclass(frozen=True)
class Measured:
    """One source, measured at several alphas, in order."""

    seen: Source
    prompts: str
    records: list[list[dict]]
    z: list[np.ndarray]
    heads: list[np.ndarray]
    labels: np.ndarray

    @property
    def values(self) -> list[float]:
        """The primary metric at each alpha."""
        return [primary_value(self.seen, records) for records in self.records]

    def draw(self, alphas: Sequence[float]) -> Draw:
        """A function of rng: the values at these alphas on a bootstrap sample."""
        logits = {
            alpha: z @ head
            for alpha, z, head in zip(alphas, self.z, self.heads, strict=False)
        }
        if self.seen.dataset.task == "multi":
            return bootstrap_map(logits, self.labels)
        return bootstrap_mean(
            {a: metrics.in_top_k(x, self.labels) for a, x in logits.items()}
        )


def primary_value(source: Source, records: Sequence[dict]) -> float:
    """The value of a source's primary metric; nan if it is undefined."""
    primary = PRIMARY[source.dataset.task]
    return as_number(next(r["value"] for r in records if r["metric"] == primary))


def as_number(value: float | None) -> float:
    """A record's value for sums and comparisons."""
    return float("nan") if value is None else value


class Sweep:
    """Evaluates interpolations of theta_0 and theta_1, of models.clip.tower_params.

    original: the towers before any patching, if theta_0 was already patched on other
    tasks. round_: counted from 1, if each task has a round. heads: the zero-shot and
    the trained head of the source head_of; datasets with its classes are classified by
    the interpolated head, others by their text head.
    """

    def __init__(
        self,
        run: Run,
        settings: PatchSettings,
        clip: api.Model,
        theta_0,
        theta_1,
        *,
        original=None,
        round_: int = 0,
        heads: tuple[np.ndarray, np.ndarray] | None = None,
        head_of: Source | None = None,
    ):
        self.settings = settings
        self.run, self.clip, self.theta_0, self.theta_1 = run, clip, theta_0, theta_1
        self.original, self.round = original, round_
        self.heads, self.head_of = heads, head_of
        # ("name:split", "before" or "after") -> its outcome
        self.kept: dict[tuple[str, str], Outcome] = {}
        self.labels: dict[str, np.ndarray] = {}  # "name:split" -> its labels
        self._text_heads: dict[Any, tuple[np.ndarray, str]] = {}
        self._mixtures = Mixtures(clip.params, theta_0, theta_1, run.mesh, original)

    def report(
        self,
        sources: Sequence[Source],
        alphas: Iterable[float],
        product: Alpha | None = None,
    ) -> tuple[list[dict[float, float]], list[Draw]]:
        """Reports every alpha on every source, and a product with alphas by block.

        Returns {alpha: primary value} and a bootstrap draw for each source; both hold
        ORIGINAL if there is one. With a product, the outcomes of alpha 0 and of the
        product are kept, and their modality gaps reported.
        """
        order = sorted({*alphas, *([] if self.original is None else [ORIGINAL])})
        wanted: list[Alpha] = [*order]
        if isinstance(product, Mapping):
            wanted.append(product)
        curves, draws = [], []
        for source in sources:
            measured = self.measure(source, wanted)
            self.labels[str(source.spec)] = measured.labels
            for index, alpha in enumerate(wanted):
                if alpha != ORIGINAL:
                    self.write(measured, index, alpha)
            if product is not None:
                self.keep(measured, wanted.index(0.0), "before", 0.0)
                self.keep(measured, wanted.index(product), "after", product)
            curves.append(dict(zip(order, measured.values, strict=False)))
            draws.append(measured.draw(order))
        return curves, draws

    def report_ends(self, sources: Sequence[Source], product: Alpha) -> None:
        """Reports the models before and after all rounds, which have no alpha."""
        ends: tuple[Alpha, ...] = (ORIGINAL, product)
        for source in sources:
            measured = self.measure(source, ends)
            for index, alpha in enumerate(ends):
                self.write(measured, index, alpha, alpha=None)
                when = ("before", "after")[index]
                self.keep(measured, index, when, alpha, alpha=None)

    def measure(self, source: Source, alphas: Sequence[Alpha]) -> Measured:
        """Measures a source at each alpha, without reporting."""
        heads, prompts = [], ""
        for alpha in alphas:
            text, prompts = self.text_head(source, alpha)
            heads.append(self.head(source, alpha, text))
        encoders = {str(i): self.encoder(alpha) for i, alpha in enumerate(alphas)}
        z, labels, seen = self.run.encode(
            "patch",
            source,
            encoders,
            {"rgb": self.clip.variant.fit},
            group=_GROUP,
        )
        return Measured(
            seen,
            prompts,
            [
                scoring.score(source, z[i], labels, head, "rgb")
                for i, head in zip(encoders, heads, strict=True)
            ],
            [z[i] for i in encoders],
            heads,
            labels,
        )

    def write(self, measured: Measured, index: int, of: Alpha, **pins: Any) -> None:
        """Reports the records at alpha `of`, which has this index in measured.

        pins: override the fields that identify the model.
        """
        model = self.pins(of)
        if self.is_mixed(measured.seen):
            model["head"] = checkpoint.params_digest(measured.heads[index])
        self.run.report(
            "patch",
            measured.seen,
            measured.records[index],
            prompts=measured.prompts,
            **{**model, **pins},
        )

    def pins(self, of: Alpha) -> dict[str, Any]:
        """The fields of a result that identify the model at alpha `of`."""
        found: dict[str, Any] = {"alpha": of}
        if isinstance(of, Mapping):
            found = {"alpha": None, "alpha_blocks": dict(of)}
        if self.round:
            found["round"] = self.round
        return {**found, "step": self.step(of), "checkpoint": self.digest(of)}

    def keep(
        self, measured: Measured, index: int, when: str, of: Alpha, **pins: Any
    ) -> None:
        """Keeps the outcome at alpha `of`, and reports its modality gap.

        A trained head is not text, so it has no gap. index, pins: as in write.
        """
        made = {**self.pins(of), **pins}
        outcome = self.run.keep(
            "patch",
            when,
            measured.seen,
            {"rgb": measured.z[index]},
            labels=measured.labels,
            head=measured.heads[index],
            prompts=measured.prompts,
            step=made["step"],
            checkpoint={"rgb": made["checkpoint"]},
        )
        self.kept[outcome.name, when] = outcome
        again = when == "after" and of == 0  # the choice is the original
        if not again and not self.is_mixed(measured.seen):
            scoring.report_gap(
                self.run, "patch", measured.seen, outcome, lambda _: made
            )

    def step(self, of: Alpha) -> int:
        """The training steps of the model at this alpha, over all rounds."""
        rounds = max(self.round, 1) - (of == 0)
        return 0 if of == ORIGINAL else rounds * self.settings.training.steps

    def is_mixed(self, source: Source) -> bool:
        """Whether a source is classified by the interpolated head."""
        return self.head_of is not None and (
            dataset_checks.classes_of(source) == dataset_checks.classes_of(self.head_of)
        )

    def text_head(self, source: Source, alpha: Alpha) -> tuple[np.ndarray, str]:
        """(zero-shot head, prompts digest) of a source by the text tower at alpha."""
        text = self._mixtures.text(alpha)
        if text is None:
            if source.spec not in self._text_heads:
                found = scoring.zero_shot_head(self.clip, source)
                self._text_heads[source.spec] = found
            return self._text_heads[source.spec]
        params = {**self.clip.params, "text": text}
        model = dataclasses.replace(self.clip, params=params)
        return scoring.zero_shot_head(model, source)

    def head(self, source: Source, alpha: Alpha, text: np.ndarray) -> np.ndarray:
        """The head of a source at this alpha; text: its zero-shot head."""
        if self.heads is None or alpha == ORIGINAL or not self.is_mixed(source):
            return text
        at = alpha["projection"] if isinstance(alpha, Mapping) else alpha
        return interpolate(*self.heads, at)

    def encoder(self, alpha: Alpha) -> Callable:
        """The encoder of a batch at this alpha; all alphas share one compiled program.

        The weights are interpolated outside it, so that they equal the product's.
        """

        def encode(batch):
            return inference.encode_rgb(
                self._mixtures.on_devices(alpha),
                batch["rgb"],
                variant=self.clip.variant,
                compute=self.run.compute,
            )

        return encode

    def mixture(self, alpha: Alpha):
        """The interpolated towers at this alpha."""
        return self._mixtures.on_host(alpha)

    def digest(self, alpha: Alpha) -> str:
        """Digest of the whole CLIP at this alpha."""
        return self._mixtures.digest(alpha)
