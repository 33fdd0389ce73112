"""load(source) and the encode methods: what a notebook and the stages use."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax.data.sensors import SENSORS, Sensor, get_sensor
from rsclip_jax.interpolate import interpolate
from rsclip_jax.models import inference
from rsclip_jax.models.inference import OnDevice
from rsclip_jax.models.inputs import MAX_SHRINK, Image
from rsclip_jax.models.sensor import SensorEncoder, SensorSpec, spec_sensor
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import (
    file_digests,
    find_pretrained,
    is_weight_folder,
    load_clip,
    read_variant,
    suggest,
)

CLIP_STAGES = ("patch", "pretrain")  # the later stage's CLIP first


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A CLIP, and the sensor encoders that were aligned to it.

    Models compare by identity. Their params are moved to the device once, at their
    first use.

    sensors: modality ("s1") -> its encoder.
    digest: digest of the CLIP's weights.
    clip_steps: steps of the stage that trained the CLIP.
    source: the origin of weight files: "path", by which load finds them again,
        "files" with the sha256 of each, "name" and "revision" of named ones; {} for a
        model that a stage trained.
    task_head: class name -> column [d] of the head that stage patch trained and
        interpolated with the tower, if it did; logits are
        embeddings @ np.stack([*task_head.values()], 1).
    """

    variant: Variant
    params: dict
    sensors: dict[str, SensorEncoder]
    digest: str
    clip_steps: int = 0
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    task_head: dict[str, np.ndarray] | None = None

    def __repr__(self) -> str:
        sensors = ", ".join(f"{k}: {e.spec.sensor}" for k, e in self.sensors.items())
        digests = ", ".join(f"{k} {v}" for k, v in self.digests.items())
        return f"Model({self.variant.name}, sensors {{{sensors}}}, digests {digests})"

    @property
    def digests(self) -> dict[str, str]:
        """What pins a number to the weights of "clip" and of each sensor's encoder."""
        return {"clip": self.digest, **{k: e.digest for k, e in self.sensors.items()}}

    @property
    def steps(self) -> dict[str, int]:
        """How long "clip" and each sensor's encoder were trained."""
        return {
            "clip": self.clip_steps,
            **{k: e.steps for k, e in self.sensors.items()},
        }

    @functools.cached_property
    def _clip(self) -> OnDevice:
        return OnDevice(self.params)

    @functools.cached_property
    def _encoders(self) -> OnDevice:
        return OnDevice({key: e.params for key, e in self.sensors.items()})

    def encode_image(
        self,
        images: Image | Sequence[Image],
        *,
        block: int = 64,
        max_shrink: float | None = MAX_SHRINK,
    ) -> np.ndarray:
        """Unit-norm float32 [n, d] of uint8 NHWC arrays, PIL images or paths, or one.

        Args:
            block: images that are encoded at a time. The last block is padded, so any
                number of images is one compiled program; a smaller block is quicker for
                a single image.
            max_shrink: images whose short side is more than this many times the
                encoder's input are refused, since resizing loses what is in them; None
                allows any.
        """
        return inference.encode_images(
            self._clip, self.variant, images, block=block, max_shrink=max_shrink
        )

    def encode_text(
        self, texts: str | Sequence[str], *, truncate: bool = False
    ) -> np.ndarray:
        """Unit-norm float32 [n, d] of one text or several.

        truncate: cut texts that are too long, instead of raising ValueError.
        """
        return inference.encode_texts(
            self._clip, self.variant, texts, truncate=truncate
        )

    def encode(
        self,
        array: np.ndarray | Sequence[np.ndarray],
        sensor: str = "s1",
        *,
        block: int = 64,
        max_shrink: float | None = MAX_SHRINK,
    ) -> np.ndarray:
        """Unit-norm float32 [n, d] of [n, h, w, bands], or one, in the sensor's units.

        Args:
            sensor: a key of self.sensors, for arrays of the sensor that the encoder was
                trained on; or the name in SENSORS, or the .toml, of the arrays' sensor,
                whose bands are moved to the encoder's by name; or "rgb".
            block, max_shrink: as in encode_image.

        Raises ValueError for a sensor without an encoder here, other bands or another
        unit than the encoder's, a wrong dtype, NaN, or an array that is too large.
        """
        if sensor == "rgb":
            return self.encode_image(array, block=block, max_shrink=max_shrink)
        modality, held = self._find_encoder(sensor)
        return inference.encode_arrays(
            self._encoders[modality],
            self.sensors[modality].spec,
            array,
            held,
            block=block,
            max_shrink=max_shrink,
        )

    def _find_encoder(self, sensor: str) -> tuple[str, Sensor]:
        """(key of self.sensors, the sensor of the arrays that are to be encoded)."""
        if sensor in self.sensors:
            return sensor, spec_sensor(self.sensors[sensor].spec)
        known = sensor in SENSORS or str(sensor).endswith(".toml")
        held = get_sensor(sensor) if known else None
        if held is None or held.modality not in self.sensors:
            raise ValueError(
                f"this model has no encoder for sensor {sensor!r}; it has"
                f" {', '.join(['rgb', *self.sensors])}"
            )
        return held.modality, held

    def zero_shot(
        self,
        classnames: Sequence[str],
        templates: str | Sequence[str] = "a satellite photo of {c}.",
    ) -> np.ndarray:
        """The classifier [d, k] of class names: embeddings @ it are logits.

        It takes embeddings of any sensor.

        Args:
            classnames: k different names.
            templates: one or several, each with {c} for the name; the mean of a name's
                embeddings is taken.

        Raises ValueError for no names or templates, one string of names, names that
        appear twice, and a template without {c}.
        """
        return inference.make_head(self._clip, self.variant, classnames, templates)


def load(
    source: str | Path,
    *,
    variant: str | Variant | None = None,
    activation: str | None = None,
    image_size: int | None = None,
    alpha: float | None = None,
) -> Model:
    """Loads a model from a weight file or folder, from a workdir, or by name.

    A workdir gives its patched CLIP, or else its pretrained one, and every sensor
    encoder.

    Args:
        source: a file or folder of OpenAI, open_clip or Hugging Face, a workdir, a name
            of weights.PRETRAINED, or hf:OWNER/NAME[/PATH][@REVISION]. A path that
            exists takes precedence over a name.
        variant, activation: for weight files that do not tell them.
        image_size: resizes the position embeddings of weight files.
        alpha: loads a workdir's patched CLIP at another alpha than the chosen one,
            without the sensor encoders, which were aligned to the chosen one.

    Raises FileNotFoundError saying what was looked for, and ValueError for arguments
    that do not go with the source.
    """
    path = Path(source)
    if path.is_dir() and not is_weight_folder(path):
        if image_size or activation:
            raise ValueError(
                f"{source} is a workdir, whose models keep the image size and"
                " activation that they were trained with: leave image_size and"
                " activation out"
            )
        model = _load_workdir(path) if alpha is None else load_alpha(path, alpha)
        asked = get_variant(variant).name if variant else model.variant.name
        if asked != model.variant.name:
            raise ValueError(
                f"{source} holds a CLIP of variant {model.variant.name!r}, not"
                f" {asked!r}: leave variant out for a workdir"
            )
        return model
    if alpha is not None:
        raise ValueError(
            f"alpha = {alpha}: {source} is not a workdir with a patched CLIP, so there"
            " are no two models to interpolate"
        )
    origin: dict[str, Any] = {"path": str(path.resolve())}
    if not path.exists():
        found = find_pretrained(str(source))
        if found is None:
            raise FileNotFoundError(
                f"{source}: neither a weight file or folder nor the workdir of a run;"
                f" {suggest(str(source))}"
            )
        path, origin, variant = found.path, found.origin, variant or found.variant
    row, params = load_clip(path, variant, activation=activation, image_size=image_size)
    origin = {**origin, "files": file_digests(path)}
    return Model(row, params, {}, checkpoint.params_digest(params), source=origin)


def find_variant(
    source: str | Path,
    *,
    variant: str | Variant | None = None,
    activation: str | None = None,
) -> Variant | None:
    """The variant of the model that load would return; None if there is none.

    Downloads the weights of a name that are not cached.
    """
    path = Path(source)
    if path.is_dir() and not is_weight_folder(path):
        return made_variant(path)
    if not path.exists():
        found = find_pretrained(str(source))
        if found is None:
            return None
        path, variant = found.path, variant or found.variant
    return read_variant(path, variant, activation=activation)


def made_variant(workdir: Path) -> Variant | None:
    """The variant of a workdir's models; None if no stage has finished."""
    for stage in (*CLIP_STAGES, "align"):
        if checkpoint.has_product(workdir / stage):
            return Variant.from_json(checkpoint.load_meta(workdir / stage).variant)
    return None


def _load_workdir(workdir: Path) -> Model:
    if not checkpoint.has_product(workdir / "align"):
        return load_stage_clip(workdir, CLIP_STAGES)
    params, meta = checkpoint.load_product(workdir / "align")
    teacher = meta.sources["teacher"]
    if any(checkpoint.has_product(workdir / stage) for stage in CLIP_STAGES):
        clip = load_stage_clip(workdir, CLIP_STAGES)
    else:  # aligned to a CLIP that lies elsewhere
        clip = _load_as(teacher["path"], Variant.from_json(meta.variant))
    if clip.digest != teacher["digest"]:
        raise ValueError(
            f"{workdir}/align was aligned to the CLIP with digest {teacher['digest']},"
            f" but the one found has {clip.digest}: run align again in a new"
            " workdir"
        )
    return dataclasses.replace(clip, sensors=read_encoders(params, meta))


def read_encoders(params: dict, meta: StageMeta) -> dict[str, SensorEncoder]:
    """{modality: encoder} of what stage align made.

    One encoder's params lie there bare, with meta.spec; several by modality, with
    meta.specs and meta.digests.
    """
    if meta.specs is None:
        spec = SensorSpec.from_json(meta.spec or {})
        return {spec.modality: SensorEncoder(spec, params, meta.digest, meta.steps)}
    digests, found = meta.digests or {}, {}
    for key, spec in ((s["modality"], SensorSpec.from_json(s)) for s in meta.specs):
        found[key] = SensorEncoder(spec, params[key], digests[key], meta.steps)
    return found


def load_alpha(workdir: Path, alpha: float) -> Model:
    """The patched CLIP of a workdir at any alpha.

    Reads theta_0 from its recorded path and theta_1 from the patch stage. Raises
    ValueError or FileNotFoundError if either is absent or has changed since.
    """
    patched = load_stage_clip(workdir, ("patch",))
    meta = checkpoint.load_meta(workdir / "patch")
    if meta.rounds is not None:
        raise ValueError(
            f"alpha = {alpha}: {workdir}/patch was patched on one task after the other,"
            " each at its own alpha, and has no one alpha to change: leave it out"
        )
    sources = meta.sources
    path = sources["theta_0"]["path"]
    if checkpoint.has_product(workdir / "pretrain"):
        clip = load_stage_clip(workdir, ("pretrain",))
    else:
        clip = _load_as(path, patched.variant)
    theta_1 = checkpoint.load_trained(workdir / "patch")
    theta_1 = {name: leaf for name, leaf in theta_1.items() if name != "head"}
    for name, params in (("theta_0", clip.params), ("theta_1", theta_1)):
        digest, found = sources[name]["digest"], checkpoint.params_digest(params)
        if digest != found:
            raise ValueError(
                f"{workdir}/patch was made from {name} with digest {digest}, and what"
                f" lies there now has {found} (theta_0: {path}; theta_1: its"
                " folder theta_1, or else its last checkpoint)"
            )
    visual = interpolate(clip.params["visual"], theta_1, alpha)
    params = {**clip.params, "visual": visual}
    digest = checkpoint.params_digest(params)
    head = checkpoint.load_head(workdir / "patch", alpha)
    return dataclasses.replace(patched, params=params, digest=digest, task_head=head)


def _load_as(path: str, variant: Variant) -> Model:
    """The model that an earlier stage started from, loaded in the same way."""
    if any(checkpoint.has_product(Path(path) / stage) for stage in CLIP_STAGES):
        return load(path)
    return load(path, variant=variant, image_size=variant.image_size)


def load_stage_clip(workdir: Path, stages: Sequence[str]) -> Model:
    """The CLIP of the first of these stages that has finished in workdir."""
    for stage in stages:
        if checkpoint.has_product(workdir / stage):
            params, meta = checkpoint.load_product(workdir / stage)
            row = Variant.from_json(meta.variant)
            head = checkpoint.load_head(workdir / stage)
            return Model(row, params, {}, meta.digest, meta.steps, task_head=head)
    raise FileNotFoundError(
        f"{workdir}: no finished stage {' or '.join(stages)} in this folder; is it the"
        " workdir of a run?"
    )
