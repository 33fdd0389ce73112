"""The CLIP that a stage starts from: an earlier stage's, or that of config.init."""

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rsclip_jax import api
from rsclip_jax.evals.encode import Encoder
from rsclip_jax.io.paths import as_path
from rsclip_jax.models import inference
from rsclip_jax.models.sensor import SensorSpec, clip_spec
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, sharding
from rsclip_jax.weights import PRETRAINED

_NO_CLIP = (
    "stage {stage!r} needs a CLIP to start from: set --config.init to a weight file, a"
    " folder that holds one, an earlier workdir, or a name such as RemoteCLIP-ViT-B-32,"
    " or put 'pretrain' first in config.stages"
)


def input_clip(
    run: Run, stage: str, earlier: tuple[str, ...]
) -> tuple[api.Model, dict[str, Any]]:
    """(the CLIP that a stage starts from, its source for the stage's meta).

    The CLIP is an earlier stage's or config.init. The source has "path", "digest" and,
    for weight files, the entries of api.Model.source. Raises ValueError without a CLIP.
    """
    for name in earlier:
        if checkpoint.has_product(run.workdir / name):
            made = run.bound(api.load_stage_clip(run.workdir, earlier))
            return _with_source(made, run.workdir)
    if not run.config.init:
        raise ValueError(_NO_CLIP.format(stage=stage))
    path = as_path(run.config.init).resolve()
    for name in api.CLIP_STAGES:
        if checkpoint.has_product(path / name):
            run.log(f"{stage}: starts from the product of stage {name} in {path}")
            break
    model = load_init(run)
    if not model.takes_rgb:
        raise ValueError(
            f"stage {stage!r} needs a CLIP of RGB, and that of config.init ="
            f" {run.config.init!r} takes the bands of {', '.join(model.sensors)}: give"
            " the CLIP that it was made from"
        )
    return _with_source(model, path)


def check_clip(run: Run, stage: str) -> None:
    """Raises ValueError if nothing gives a stage the CLIP that it starts from."""
    c = run.config
    if c.init or "pretrain" in c.stages or api.made_variant(run.workdir):
        return
    text = _NO_CLIP.format(stage=stage)
    if (run.workdir / "pretrain" / "meta.json").exists():
        text += f" (stage pretrain of {run.workdir} has not finished)"
    raise ValueError(text)


def input_variant(run: Run) -> Variant | None:
    """The variant of the CLIP that a stage will start from; None if it is unknown.

    A plan does not download weights of a known name and size.
    """
    c = run.config
    if "pretrain" in c.stages:
        return get_variant(c.variant)
    if not c.init:
        return api.made_variant(run.workdir)
    if not c.overwrite and (here := api.made_variant(run.workdir)):
        return here  # even if config.init no longer exists
    known = PRETRAINED.get(c.init)
    named = known and (c.variant or known.variant)
    if c.plan and named and not as_path(c.init).exists():
        return get_variant(named)
    with _naming_settings():
        return api.find_variant(c.init, **_told(run))


def planned_variant(run: Run, stage: str) -> Variant:
    """The variant of the CLIP that a stage will start from, of config.image_size.

    Raises ValueError if there is no CLIP.
    """
    variant = input_variant(run)
    if variant is None:
        raise ValueError(_NO_CLIP.format(stage=stage))
    return variant.at_size(run.config.image_size or variant.image_size)


def input_bands(run: Run, variant: Variant) -> SensorSpec | None:
    """What the CLIP of config.init takes instead of RGB; None for RGB.

    A plan does not download weights of a known name.
    """
    c = run.config
    if not c.init or "pretrain" in c.stages or api.made_variant(run.workdir):
        return None
    if c.plan and (known := PRETRAINED.get(c.init)) and not as_path(c.init).exists():
        return clip_spec(known.sensor, variant) if known.sensor else None
    with _naming_settings():
        return api.find_bands(c.init, variant, c.init_sensor or None)


def rgb_encoder(run: Run, model: api.Model) -> Encoder:
    """The encoder of the RGB in a batch on the mesh."""
    placed = sharding.put_params(model.params["visual"], run.mesh)
    encode = functools.partial(
        inference.encode_rgb, variant=model.variant, compute=run.compute
    )
    return lambda batch: encode(placed, batch["rgb"])


def _with_source(clip: api.Model, path: Path) -> tuple[api.Model, dict[str, Any]]:
    where = {"path": str(path.resolve()), **clip.source}
    return clip, {**where, "digest": clip.digests["clip"]}


def load_init(run: Run, alpha: float | None = None) -> api.Model:
    """The model of config.init, loaded as the config says."""
    c = run.config
    with _naming_settings():
        model = api.load(
            c.init,
            **_told(run),
            sensor=c.init_sensor or None,
            image_size=c.image_size or None,
            alpha=alpha,
        )
    return run.bound(model)


def _told(run: Run) -> dict[str, Any]:
    """What the config says of config.init's weights, as arguments of api.load."""
    c = run.config
    return {
        "variant": c.variant or None,
        "activation": c.activation or None,
        "heads": tuple(c.heads) or None,
    }


# What names an argument of api.load in an error -> its setting.
_SETTINGS = (
    (r"\bvariant\b", "variant"),
    (r"\bactivation\b", "activation"),
    (r"\bheads\b", "heads"),
    (r"\bimage_size\b", "image_size"),
    (r"\bsensor=", "init_sensor"),
)


@contextlib.contextmanager
def _naming_settings() -> Iterator[None]:
    """Adds the settings to an error that names arguments of api.load."""
    try:
        yield
    except ValueError as error:
        named = [name for word, name in _SETTINGS if re.search(word, str(error))]
        if not named:
            raise
        settings = ", ".join(f"--config.{name}" for name in named)
        raise ValueError(f"{error} ({settings})") from error
