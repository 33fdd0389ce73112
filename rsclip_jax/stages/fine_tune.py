"""Fine-tuning of the visual tower through frozen zero-shot heads, for stage patch."""

from collections.abc import Sequence

from rsclip_jax import api, losses
from rsclip_jax.data.sources import Source
from rsclip_jax.models.clip import image_features
from rsclip_jax.stages import common


def fine_tune(run: common.Run, clip: api.Model, train: Sequence[Source]):
    """theta_1: the visual tower trained on labels through the frozen zero-shot head."""
    (source,) = train
    head, _ = common.zero_shot_head(clip, source)
    return common.fit(
        run,
        "patch",
        params=clip.params["visual"],
        frozen={"head": head},
        train=[source],
        sizes={"rgb": clip.variant.image_size},
        loss_fn=losses.make_patch_loss(
            lambda p, batch: image_features(p, batch["rgb"], clip.variant),
            source.dataset.task,
        ),
        sources={"theta_0": {"digest": clip.digests["clip"]}},
    )
