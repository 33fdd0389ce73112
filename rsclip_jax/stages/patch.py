"""Stage patch: robust fine-tuning of the visual tower, then weight interpolation.

WiSE-FT (Wortsman et al. 2022) and PAINT (Ilharco et al. 2022): fine-tune through the
frozen zero-shot head, mix with the original weights, choose alpha on validation data.
"""

import dataclasses
from collections.abc import Sequence
from functools import partial

import jax
import numpy as np

from rsclip_jax import api, checkpoint, losses, sharding
from rsclip_jax.data.sources import Source
from rsclip_jax.interpolate import interpolate
from rsclip_jax.losses import normalize
from rsclip_jax.models.clip import image_features
from rsclip_jax.report.plots import plot_alpha_curve
from rsclip_jax.stages import common

PRIMARY = {"single": "accuracy", "multi": "mAP_macro"}


def check_patch(run: common.Run) -> None:
    """Raises ValueError for what would stop this stage."""
    supported = ("supported_val", "supported_test")
    names = ("train", "val", "test", *supported)
    tasks = dict.fromkeys(names, common.LABELLED)
    common.check_training(run, "patch", tasks, may_be_empty=supported)
    common.make_augment(run, "patch", [run.open(run.config.patch.train)], ("rgb",))
    check_alphas(tuple(run.config.patch.alphas))


def run_patch(run: common.Run) -> None:
    """Fine-tunes on config.patch.train, interpolates, chooses alpha, reports."""
    c = run.config.patch
    train, val, test = (run.open(spec) for spec in (c.train, c.val, c.test))
    supported_val = [run.open(spec) for spec in c.supported_val]
    supported_test = [run.open(spec) for spec in c.supported_test]
    clip, origin = common.input_clip(run, "patch", ("pretrain",))
    theta_0 = clip.params["visual"]
    theta_1 = fine_tune(run, clip, train)
    swept = Sweep(run, clip, theta_0, jax.device_get(theta_1))
    curve = swept.report([val, *supported_val], tuple(c.alphas))
    alpha = choose_alpha(curve[0], curve[1:], max_supported_drop=c.max_supported_drop)
    run.say(describe_choice(alpha, curve, c.max_supported_drop))
    swept.report([test, *supported_test], tuple(sorted({0.0, alpha, 1.0})))
    names = [f"{s.dataset.name}:{s.split}" for s in (val, *supported_val)]
    if jax.process_index() == 0:
        plot_alpha_curve(
            run.workdir / "patch" / "alpha_curve.png",
            names,
            curve,
            alpha,
            max_supported_drop=c.max_supported_drop,
            metric=PRIMARY[val.dataset.task],
        )
    visual = interpolate(theta_0, swept.theta_1, alpha)
    meta = {
        "variant": dataclasses.asdict(clip.variant),
        "steps": c.steps,
        "alpha": alpha,
        "sources": {
            "theta_0": origin,
            "theta_1": {"digest": checkpoint.params_digest(swept.theta_1)},
        },
    }
    common.finish(run, "patch", {**clip.params, "visual": visual}, meta)


def fine_tune(run: common.Run, clip: api.Model, train: Source):
    """theta_1: the visual tower trained on labels through the frozen zero-shot head."""
    head, _ = common.zero_shot_head(clip, train)
    return common.fit(
        run,
        "patch",
        params=clip.params["visual"],
        frozen={"head": head},
        train=[train],
        sizes={"rgb": clip.variant.image_size},
        loss_fn=losses.make_patch_loss(
            lambda p, batch: image_features(p, batch["rgb"], clip.variant),
            train.dataset.task,
        ),
        sources={"theta_0": {"digest": clip.digests["clip"]}},
    )


class Sweep:
    """Evaluates mixtures of theta_0 and theta_1; a dataset is decoded once for all."""

    def __init__(self, run: common.Run, clip: api.Model, theta_0, theta_1):
        self.run, self.clip, self.theta_1 = run, clip, theta_1
        self._ends = tuple(sharding.put_params(t, run.mesh) for t in (theta_0, theta_1))
        # only the ends are held; a mixture lives as long as one batch
        self._encode = jax.jit(partial(_encode_mixture, variant=clip.variant))

    def report(self, sources: Sequence[Source], alphas: tuple[float, ...]):
        """Reports every alpha on every source; a list of {alpha: primary value}."""
        return [self._report_one(source, alphas) for source in sources]

    def _report_one(self, source: Source, alphas) -> dict[float, float]:
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
        return values

    def _encode_batch(self, alpha, batch):
        return self._encode(*self._ends, alpha, batch["rgb"])

    def digest(self, alpha: float) -> str:
        """Digest of the whole CLIP at this alpha."""
        theta_0 = self.clip.params["visual"]
        visual = interpolate(theta_0, self.theta_1, alpha)
        return checkpoint.params_digest({**self.clip.params, "visual": visual})


def _encode_mixture(theta_0, theta_1, alpha, rgb, *, variant):
    return normalize(image_features(interpolate(theta_0, theta_1, alpha), rgb, variant))


def choose_alpha(
    task: dict[float, float],
    supported: Sequence[dict[float, float]],
    *,
    max_supported_drop: float,
) -> float:
    """The alpha of the best task value whose mean supported drop is within the budget.

    task and each of supported map alpha to a validation value; the drop is counted from
    alpha 0, which is always within the budget. Of equal values the smaller alpha wins:
    it forgets less.
    """
    if 0.0 not in task:
        raise ValueError("alpha 0, from which the drop is counted, must be evaluated")

    def drop(alpha: float) -> float:
        return float(np.mean([s[0.0] - s[alpha] for s in supported] or [0.0]))

    # values are shares of n examples: a rounding error is no drop
    allowed = [a for a in task if a == 0.0 or drop(a) <= max_supported_drop + 1e-9]
    return min(allowed, key=lambda a: (-task[a], a))


def check_alphas(alphas: tuple[float, ...]) -> None:
    """Raises ValueError unless the alphas are distinct, in [0, 1], both ends in."""
    if not {0.0, 1.0} <= set(alphas) or len(set(alphas)) < len(alphas):
        raise ValueError(
            f"config.patch.alphas = {alphas} must be distinct and hold 0.0 and 1.0, the"
            " original and the fine-tuned model"
        )
    if min(alphas) < 0 or max(alphas) > 1:
        raise ValueError(f"config.patch.alphas = {alphas} must lie between 0 and 1")


def describe_choice(alpha: float, curve, budget: float) -> str:
    """One line: what was chosen and what it costs, on validation data."""
    task, supported = curve[0], curve[1:]
    drop = np.mean([s[0.0] - s[alpha] for s in supported] or [0.0])
    return (
        f"patch: alpha {alpha:g} chosen on validation data: task {task[0.0]:.3f} ->"
        f" {task[alpha]:.3f} (alpha 1: {task[1.0]:.3f}), mean supported drop"
        f" {drop:.3f} of {budget:.3f} allowed"
    )
