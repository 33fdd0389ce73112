"""Stage patch: robust fine-tuning of the visual tower, then weight interpolation.

WiSE-FT (Wortsman et al. 2022) and PAINT (Ilharco et al. 2022): fine-tune through the
frozen zero-shot head, mix with the original weights, choose alpha on validation data.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np
from ml_collections import ConfigDict

from rsclip_jax import api, checkpoint, sharding
from rsclip_jax.alpha import (
    Budget,
    Curve,
    Draw,
    bootstrap_alpha,
    choose_alpha,
    resample_map,
    resample_mean,
)
from rsclip_jax.data.sources import Source
from rsclip_jax.interpolate import interpolate
from rsclip_jax.losses import normalize
from rsclip_jax.metrics import in_top_k
from rsclip_jax.models.clip import image_features
from rsclip_jax.report.plots import plot_alpha_curve
from rsclip_jax.stages import common
from rsclip_jax.stages.fine_tune import fine_tune
from rsclip_jax.stages.recipes import check_recipe

PRIMARY = {"single": "accuracy", "multi": "mAP_macro"}


def check_patch(run: common.Run) -> None:
    """Raises ValueError for what would stop this stage."""
    supported = ("supported_val", "supported_test")
    names = ("train", "val", "test", *supported)
    tasks = dict.fromkeys(names, common.LABELLED)
    common.check_training(run, "patch", tasks, may_be_empty=supported)
    common.make_augment(run, "patch", [run.open(run.config.patch.train)], ("rgb",))
    check_choice(run.config.patch)
    check_recipe(run, [run.open(run.config.patch.train)])


def run_patch(run: common.Run) -> None:
    """Fine-tunes on config.patch.train, interpolates, chooses alpha, reports."""
    c = run.config.patch
    train, val, test = (run.open(spec) for spec in (c.train, c.val, c.test))
    supported_val = [run.open(spec) for spec in c.supported_val]
    supported_test = [run.open(spec) for spec in c.supported_test]
    clip, origin = common.input_clip(run, "patch", ("pretrain",))
    theta_0 = clip.params["visual"]
    theta_1 = fine_tune(run, clip, [train])
    swept = Sweep(run, clip, theta_0, jax.device_get(theta_1))
    given = () if c.alpha is None else (float(c.alpha),)
    curve, draws = swept.report([val, *supported_val], tuple({*c.alphas, *given}))
    budget = Budget(c.max_supported_drop, c.min_supported_retained)
    alpha = given[0] if given else choose_alpha(curve[0], curve[1:], budget)
    interval = bootstrap_alpha(
        draws, budget, resamples=c.resamples, seed=run.config.seed
    )
    run.say(describe_choice(alpha, curve, budget, interval, chosen=not given))
    swept.report([test, *supported_test], tuple(sorted({0.0, alpha, 1.0})))
    names = [f"{s.dataset.name}:{s.split}" for s in (val, *supported_val)]
    if jax.process_index() == 0:
        plot_alpha_curve(
            run.workdir / "patch" / "alpha_curve.png",
            names,
            curve,
            alpha,
            budget=budget,
            metric=PRIMARY[val.dataset.task],
        )
    visual = interpolate(theta_0, swept.theta_1, alpha)
    meta = {
        "variant": dataclasses.asdict(clip.variant),
        "steps": c.steps,
        "alpha": alpha,
        "alpha_ci95": interval,
        "alpha_chosen_by": "config.patch.alpha" if given else "validation",
        "sources": {
            "theta_0": origin,
            "theta_1": {"digest": checkpoint.params_digest(swept.theta_1)},
        },
    }
    common.finish(run, "patch", {**clip.params, "visual": visual}, [train], meta)


class Sweep:
    """Evaluates mixtures of theta_0 and theta_1; a dataset is decoded once for all."""

    def __init__(self, run: common.Run, clip: api.Model, theta_0, theta_1):
        self.run, self.clip, self.theta_1 = run, clip, theta_1
        self._ends = tuple(sharding.put_params(t, run.mesh) for t in (theta_0, theta_1))
        # only the ends are held; a mixture lives as long as one batch
        self._encode = jax.jit(partial(_encode_mixture, variant=clip.variant))

    def report(
        self, sources: Sequence[Source], alphas: tuple[float, ...]
    ) -> tuple[list[dict[float, float]], list[Draw]]:
        """Reports every alpha on every source.

        Returns a {alpha: primary value} for each source, and its draw of resamples.
        """
        found = [self._report_one(source, sorted(alphas)) for source in sources]
        return [values for values, _ in found], [draw for _, draw in found]

    def _report_one(self, source: Source, alphas) -> tuple[dict[float, float], Draw]:
        head, prompts = common.zero_shot_head(self.clip, source)
        encoders = {str(a): partial(self._encode_batch, np.float32(a)) for a in alphas}
        z, labels, seen = self.run.encode(
            "patch", source, encoders, {"rgb": self.clip.variant.image_size}
        )
        values = {}
        for alpha in alphas:
            records = common.score(source, z[str(alpha)], labels, head, "rgb")
            self.run.report(
                "patch",
                seen,
                records,
                step=self.run.config.patch.steps if alpha else 0,
                alpha=alpha,
                checkpoint=self.digest(alpha),
                prompts=prompts,
            )
            primary = PRIMARY[source.dataset.task]
            values[alpha] = next(r["value"] for r in records if r["metric"] == primary)
        logits = {alpha: z[str(alpha)] @ head for alpha in alphas}
        if source.dataset.task == "multi":
            return values, resample_map(logits, labels)
        return values, resample_mean(
            {alpha: in_top_k(logits[alpha], labels) for alpha in alphas}
        )

    def _encode_batch(self, alpha, batch):
        return self._encode(*self._ends, alpha, batch["rgb"])

    def digest(self, alpha: float) -> str:
        """Digest of the whole CLIP at this alpha."""
        theta_0 = self.clip.params["visual"]
        visual = interpolate(theta_0, self.theta_1, alpha)
        return checkpoint.params_digest({**self.clip.params, "visual": visual})


def _encode_mixture(theta_0, theta_1, alpha, rgb, *, variant):
    return normalize(image_features(interpolate(theta_0, theta_1, alpha), rgb, variant))


def check_choice(c: ConfigDict) -> None:
    """Raises ValueError for alphas or a budget that no choice can be made by."""
    alphas = tuple(c.alphas)
    if not {0.0, 1.0} <= set(alphas) or len(set(alphas)) < len(alphas):
        raise ValueError(
            f"config.patch.alphas = {alphas} must be distinct and hold 0.0 and 1.0, the"
            " original and the fine-tuned model"
        )
    if min(alphas) < 0 or max(alphas) > 1:
        raise ValueError(f"config.patch.alphas = {alphas} must lie between 0 and 1")
    for name in ("alpha", "max_supported_drop", "min_supported_retained"):
        if c[name] is not None and not 0 <= c[name] <= 1:
            raise ValueError(f"config.patch.{name} = {c[name]} is not between 0 and 1")
    if c.resamples < 1:
        raise ValueError(f"config.patch.resamples = {c.resamples} is below 1")


def describe_choice(
    alpha: float,
    curve: Sequence[Curve],
    budget: Budget,
    interval: tuple[float, float],
    *,
    chosen: bool,
) -> str:
    """What was chosen, how sure that is, and what it costs, on validation data."""
    task, supported = curve[0], curve[1:]
    how = "chosen" if chosen else "given as config.patch.alpha, evaluated"
    low, high = interval
    lines = [
        f"patch: alpha {alpha:g} {how} on validation data (the choice: {low:g} to"
        f" {high:g} in 95 % of resamples): task {task[0.0]:.3f} -> {task[alpha]:.3f}"
        f" (alpha 1: {task[1.0]:.3f})"
    ]
    lines += [
        f"supported set {i + 1}: {s[0.0]:.3f} -> {s[alpha]:.3f}"
        f" ({budget.least(s[0.0]):.3f} allowed; alpha 1: {s[1.0]:.3f})"
        for i, s in enumerate(supported)
    ]
    return "; ".join(lines)
