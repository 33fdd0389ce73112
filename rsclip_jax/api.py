"""load(source) and the encode methods, for notebooks and the stages."""

import contextlib
import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jax.sharding import Mesh

from rsclip_jax.data import tokenizer_files
from rsclip_jax.data.sensors import SENSORS, Sensor, get_sensor
from rsclip_jax.interpolate import interpolate
from rsclip_jax.io.paths import as_path, check_local, is_remote
from rsclip_jax.models import inference
from rsclip_jax.models.clip import put_towers, tower_params
from rsclip_jax.models.compute import DTYPES, FLOAT32, Compute, compute_here
from rsclip_jax.models.inference import OnDevice
from rsclip_jax.models.inputs import MAX_SHRINK, Image
from rsclip_jax.models.sensor import SensorEncoder, SensorSpec, spec_sensor
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.train import checkpoint
from rsclip_jax.weights import (
    Found,
    Heads,
    check_digests,
    file_digests,
    find_pretrained,
    is_weight_folder,
    load_towers,
    read_bands,
    read_variant,
    suggest,
)

CLIP_STAGES = ("patch", "pretrain")  # the latest stage's CLIP takes precedence


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A CLIP and the sensor encoders that were aligned to it.

    A CLIP whose visual tower takes a sensor's bands instead of RGB has that tower as
    one of its sensors, and no "visual" in params.

    Models compare by identity. Their params are moved to the device once, at their
    first use.

    sensors: modality ("s1") -> its encoder.
    digest: digest of the CLIP's weights.
    clip_steps: steps of the stage that trained the CLIP.
    source: the origin of weight files: "path", which load accepts again, "files" with
        the sha256 of each, and "name" and "revision" if they were loaded by name; {}
        for a model that a stage trained.
    compute: how the towers compute.
    mesh: devices over whose axis "fsdp" the params are split; None puts them on one.
    task_head: class name -> column [d] of the head that stage patch trained and
        interpolated with the tower; None if it trained none. Logits are
        embeddings @ np.stack([*task_head.values()], 1).
    """

    variant: Variant
    params: dict
    sensors: dict[str, SensorEncoder]
    digest: str
    clip_steps: int = 0
    source: dict[str, Any] = dataclasses.field(default_factory=dict)
    compute: Compute = FLOAT32
    mesh: Mesh | None = None
    task_head: dict[str, np.ndarray] | None = None

    def __repr__(self) -> str:
        sensors = ", ".join(f"{k}: {e.spec.sensor}" for k, e in self.sensors.items())
        digests = ", ".join(f"{k} {v}" for k, v in self.digests.items())
        return f"Model({self.variant.name}, sensors {{{sensors}}}, digests {digests})"

    @property
    def digests(self) -> dict[str, str]:
        """The digests of the weights of "clip" and of each sensor's encoder."""
        return {"clip": self.digest, **{k: e.digest for k, e in self.sensors.items()}}

    @property
    def steps(self) -> dict[str, int]:
        """The training steps of "clip" and of each sensor's encoder."""
        return {
            "clip": self.clip_steps,
            **{k: e.steps for k, e in self.sensors.items()},
        }

    @property
    def takes_rgb(self) -> bool:
        """Whether the CLIP has a visual tower for RGB."""
        return "visual" in self.params

    @functools.cached_property
    def _clip(self) -> OnDevice:
        return OnDevice(self.params, self.mesh)

    @functools.cached_property
    def _encoders(self) -> OnDevice:
        trees = {key: e.params for key, e in self.sensors.items()}
        return OnDevice(trees, self.mesh)

    def encode_image(
        self,
        images: Image | Sequence[Image],
        *,
        block: int = 64,
        max_shrink: float | None = MAX_SHRINK,
        value_range: tuple[float, float] | None = None,
    ) -> np.ndarray:
        """Unit-norm float32 [n, d] of uint8 NHWC arrays, PIL images or paths, or one.

        Args:
            block: the largest number of images to encode at a time. The last block is
                padded, so one compiled program serves any number of images from here
                on; fewer are padded to a power of two.
            max_shrink: raises ValueError for an image whose short side is more than
                this many times the encoder's input, because resizing loses its content;
                None allows any size.
            value_range: (lowest, highest) value of images of more than 8 bits, which
                become 0 and 255; None refuses them.

        Raises ValueError for a model that takes no RGB.
        """
        if not self.takes_rgb:
            raise ValueError(
                f"this CLIP takes no RGB: encode(array, sensor) takes the bands of"
                f" {', '.join(self.sensors)}"
            )
        return inference.encode_images(
            self._clip,
            self.variant,
            images,
            block=block,
            max_shrink=max_shrink,
            value_range=value_range,
            compute=self.compute,
        )

    def encode_text(
        self, texts: str | Sequence[str], *, truncate: bool = False
    ) -> np.ndarray:
        """Unit-norm float32 [n, d] of one text or several.

        truncate: truncates texts that are too long instead of raising ValueError.
        """
        return inference.encode_texts(
            self._clip, self.variant, texts, truncate=truncate, compute=self.compute
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
                whose bands are matched to the encoder's by name; or "rgb".
            block, max_shrink: as in encode_image.

        Warns of a first array of another size than the images that the encoder was
        trained on, beyond a factor of 1.5, unless max_shrink is None.

        Raises ValueError for a sensor without an encoder, bands or a unit that differ
        from the encoder's, a wrong dtype, NaN, or an array that is too large.
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
            compute=self.compute,
        )

    def _find_encoder(self, sensor: str) -> tuple[str, Sensor]:
        """(key of self.sensors, the sensor of the arrays to encode)."""
        if sensor in self.sensors:
            return sensor, spec_sensor(self.sensors[sensor].spec)
        known = sensor in SENSORS or str(sensor).endswith(".toml")
        held = get_sensor(sensor) if known else None
        if held is None or held.modality not in self.sensors:
            raise ValueError(
                f"this model has no encoder for sensor {sensor!r}; it has"
                f" {', '.join([*(['rgb'] if self.takes_rgb else []), *self.sensors])}"
            )
        return held.modality, held

    def zero_shot(
        self,
        classnames: Sequence[str],
        templates: str | Sequence[str] = "a satellite photo of {c}.",
    ) -> np.ndarray:
        """The zero-shot classifier [d, k] of class names.

        Logits are embeddings @ classifier, for embeddings of any sensor.

        Args:
            classnames: k distinct names.
            templates: one or several, each with {c} for the name; a name's embeddings
                are averaged over them.

        Raises ValueError for missing names or templates, a single string of names,
        repeated names, and a template without {c}.
        """
        return inference.make_head(
            self._clip, self.variant, classnames, templates, self.compute
        )


def load(
    source: str | Path,
    *,
    variant: str | Variant | None = None,
    activation: str | None = None,
    heads: Heads = None,
    image_size: int | None = None,
    ema: bool = True,
    sensor: str | Sensor | None = None,
    alpha: float | None = None,
    precision: str = "float32",
) -> Model:
    """Loads a model from a weight file or folder, from a workdir, or by name.

    From a workdir it loads the patched CLIP, or else the pretrained one, and all sensor
    encoders.

    Args:
        source: a file or folder of OpenAI, open_clip or Hugging Face, a workdir, a name
            in weights.PRETRAINED, or hf:OWNER/NAME[/PATH][@REVISION]. An existing path
            takes precedence over a name.
        variant, activation: for weight files that do not state them.
        heads: likewise, the attention heads of the visual tower, or of the visual and
            the text tower.
        image_size: resizes the position embeddings of weight files.
        ema: whether averaged weights are read where a checkpoint has raw ones too.
        sensor: the bands that the visual tower takes instead of RGB, their order, unit
            and scale, for weight files that do not state them; see load_towers.
        alpha: loads a workdir's patched CLIP at this alpha instead of the chosen one,
            without the sensor encoders, which were aligned to the chosen one.
        precision: of matrix products, "float32" in full on every device, so that
            embeddings do not depend on where they were made, or "bfloat16", which is
            several times faster on TPUs and GPUs; embeddings are float32 either way.

    Raises FileNotFoundError if the source does not exist, and ValueError for arguments
    that do not apply to it.
    """
    if precision not in DTYPES:
        raise ValueError(f"precision = {precision!r}: use one of {', '.join(DTYPES)}")
    told = {
        "activation": activation,
        "heads": heads,
        "image_size": image_size,
        "ema": None if ema else False,
        "sensor": sensor,
    }
    told = {name: value for name, value in told.items() if value is not None}
    model = _load(source, variant, alpha, told)
    return dataclasses.replace(model, compute=compute_here(precision))


def _load(
    source: str | Path,
    variant: str | Variant | None,
    alpha: float | None,
    told: dict[str, Any],
) -> Model:
    path = as_path(source)
    if is_workdir(path):
        if told:
            raise ValueError(
                f"{source} is a workdir, whose models keep the image size, activation"
                f" and heads that they were trained with: omit {' and '.join(told)}"
            )
        model = _load_workdir(path) if alpha is None else load_alpha(path, alpha)
        asked = get_variant(variant).name if variant else model.variant.name
        if asked != model.variant.name:
            raise ValueError(
                f"{source} holds a CLIP of variant {model.variant.name!r}, not"
                f" {asked!r}: omit variant for a workdir"
            )
        return model
    if alpha is not None:
        raise ValueError(
            f"alpha = {alpha}: {source} is not a workdir with a patched CLIP, so there"
            " are no two models to interpolate"
        )
    found = _find_weights(source)
    if found is None:
        raise FileNotFoundError(
            f"{source}: not a weight file or folder, nor the workdir of a run;"
            f" {suggest(str(source))}"
        )
    check_local(found.path, "a weight file, source")
    told = {"sensor": found.sensor, **told}
    digests = file_digests(found.path)
    check_digests(found.origin.get("name", ""), digests)
    v, params, spec, tower = load_towers(found.path, variant or found.variant, **told)
    origin = {**found.origin, "files": digests}
    sensors = {}
    if spec is not None and tower is not None:
        digest = checkpoint.params_digest(tower)
        sensors = {spec.modality: SensorEncoder(spec, tower, digest)}
    return Model(v, params, sensors, checkpoint.params_digest(params), source=origin)


def _find_weights(source: str | Path) -> Found | None:
    """The weights at a path, which takes precedence, or of a name; None for neither."""
    path = as_path(source)
    if path.exists():
        return Found(path, None, {"path": str(path.resolve())})
    return None if is_remote(path) else find_pretrained(str(source))


def find_variant(
    source: str | Path,
    *,
    variant: str | Variant | None = None,
    activation: str | None = None,
    heads: Heads = None,
) -> Variant | None:
    """The variant of the model that load would return; None if there is no model.

    Downloads named weights that are not cached.
    """
    if is_workdir(as_path(source)):
        return made_variant(as_path(source))
    if (found := _find_weights(source)) is None:
        return None
    variant = variant or found.variant
    return read_variant(found.path, variant, activation=activation, heads=heads)


def find_bands(
    source: str | Path, variant: Variant, sensor: str | Sensor | None = None
) -> SensorSpec | None:
    """What the CLIP of weight files takes instead of RGB; None for RGB and workdirs."""
    if is_workdir(as_path(source)) or (found := _find_weights(source)) is None:
        return None
    return read_bands(found.path, variant, sensor or found.sensor)


def is_workdir(path: Path) -> bool:
    """Whether a path is a folder that is not one of weights."""
    return path.is_dir() and (is_remote(path) or not is_weight_folder(path))


def made_variant(workdir: Path) -> Variant | None:
    """The variant of a workdir's models; None if no stage has finished."""
    for stage in (*CLIP_STAGES, "align"):
        if checkpoint.has_product(workdir / stage):
            meta = checkpoint.load_meta(workdir / stage)
            return _read_variant(workdir / stage, meta)
    return None


def _load_workdir(workdir: Path) -> Model:
    if not checkpoint.has_product(workdir / "align"):
        return load_stage_clip(workdir, CLIP_STAGES)
    params, meta = checkpoint.load_product(workdir / "align")
    variant = _read_variant(workdir / "align", meta)
    with _naming_meta(workdir / "align"):
        teacher = meta.sources["teacher"]
        encoders = read_encoders(params, meta)
    if any(checkpoint.has_product(workdir / stage) for stage in CLIP_STAGES):
        clip = load_stage_clip(workdir, CLIP_STAGES)
    else:  # aligned to a CLIP outside the workdir
        clip = _load_as(teacher["path"], variant)
    if clip.digest != teacher["digest"]:
        raise ValueError(
            f"{workdir}/align was aligned to the CLIP with digest {teacher['digest']},"
            f" but the one found has {clip.digest}: run align again in a new"
            " workdir"
        )
    return dataclasses.replace(clip, sensors=encoders)


def _read_variant(stage_dir: Path, meta: StageMeta) -> Variant:
    """A product's variant; the tokenizer beside the product is read."""
    with _naming_meta(stage_dir):
        variant = Variant.from_json(meta.variant)
    if variant.tokenizer is not None:
        tokenizer_files.read_saved(variant.tokenizer, stage_dir)
    return variant


@contextlib.contextmanager
def _naming_meta(stage_dir: Path) -> Iterator[None]:
    """Names the meta.json that lacks what a product's has."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{stage_dir}/meta.json does not describe the product beside it"
            f" ({type(error).__name__}: {error}); restore {stage_dir} from a copy, or"
            " remove it and run its stage again"
        ) from error


def read_encoders(params: dict, meta: StageMeta) -> dict[str, SensorEncoder]:
    """{modality: encoder} from the product of stage align.

    A single encoder's params are the whole tree, with meta.spec; several are stored by
    modality, with meta.specs and meta.digests.
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
            f"alpha = {alpha}: {workdir}/patch was patched on several tasks in turn,"
            " each with a separate alpha, so there is no single alpha to change: omit"
            " it"
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
                f"{workdir}/patch was made from {name} with digest {digest}, but the"
                f" current {name} has {found} (theta_0: {path}; theta_1: the workdir's"
                " patch/theta_1, or else its last checkpoint)"
            )
    theta_0 = tower_params(clip.params, with_text="text" in theta_1)
    params = put_towers(clip.params, interpolate(theta_0, theta_1, alpha))
    digest = checkpoint.params_digest(params)
    head = checkpoint.load_head(workdir / "patch", alpha)
    return dataclasses.replace(patched, params=params, digest=digest, task_head=head)


def _load_as(path: str, variant: Variant) -> Model:
    """The model that an earlier stage started from, loaded in the same way."""
    if any(checkpoint.has_product(as_path(path) / stage) for stage in CLIP_STAGES):
        return load(path)
    return load(path, variant=variant, image_size=variant.image_size)


def load_stage_clip(workdir: Path, stages: Sequence[str]) -> Model:
    """The CLIP of the first of these stages that has finished in workdir."""
    for stage in stages:
        if checkpoint.has_product(workdir / stage):
            params, meta = checkpoint.load_product(workdir / stage)
            v = _read_variant(workdir / stage, meta)
            head = checkpoint.load_head(workdir / stage)
            return Model(v, params, {}, meta.digest, meta.steps, task_head=head)
    raise FileNotFoundError(
        f"{workdir}: no finished stage {' or '.join(stages)} in this folder; is it the"
        " workdir of a run?"
    )
