"""Stage export: writes a model in the layouts of other tools, with a model card."""

from collections.abc import Sequence
from pathlib import Path

from rsclip_jax import api
from rsclip_jax.io.files import local_folder, remove_tree, write_text
from rsclip_jax.io.paths import as_path
from rsclip_jax.records import results
from rsclip_jax.records.meta import StageMeta
from rsclip_jax.report.card import ground_text, is_like_input, make_card
from rsclip_jax.stages.shared import clip_init
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, processes
from rsclip_jax.weights import (
    check_is_tower,
    file_digests,
    programs,
    save_clip,
    save_encoder,
    save_sensor_clip,
)
from rsclip_jax.weights.save import DTYPES, LAYOUTS
from rsclip_jax.weights.tool_configs import has_timm_model


def check_export(run: Run) -> None:
    """Raises ValueError for anything that would stop this stage."""
    c = run.config.export
    for name, known in (("layout", LAYOUTS), ("dtype", tuple(DTYPES))):
        if c[name] not in known:
            raise ValueError(
                f"config.export.{name} = {c[name]!r} is not known; use"
                f" {', '.join(known)}"
            )
    if not run.config.init:
        raise ValueError(
            "stage 'export' needs a model: set --config.init to the workdir of a run, a"
            " weight file or folder, or the name of pretrained weights"
        )
    for kind in c.programs:
        try:
            programs.check_kind(kind, c.dtype)
        except (ValueError, ImportError) as error:
            raise type(error)(
                f"config.export.programs = {tuple(c.programs)} and"
                f" config.export.dtype = {c.dtype!r}: {error}"
            ) from error
    if c.alpha is not None and not 0 <= c.alpha <= 1:
        raise ValueError(f"config.export.alpha = {c.alpha} must lie between 0 and 1")


def run_export(run: Run) -> None:
    """Writes <workdir>/export: the CLIP, each sensor encoder, and README.md last."""
    c = run.config.export
    model = clip_init.load_init(run, alpha=c.alpha)  # Orbax reads by all processes
    if not processes.is_first():
        return
    check_with_text(model, c.with_text)
    folder = run.workdir / "export"
    remove_tree(folder)  # left by an unfinished run
    names = {"clip": "clip.safetensors" if c.layout == "openai" else "clip"}
    with local_folder(folder) as local:
        if model.takes_rgb:
            clip = local / names["clip"]
            save_clip(clip, model.variant, model.params, c.layout, dtype=c.dtype)
        else:
            del names["clip"]
        names |= write_with_text(model, local, c.with_text, c.dtype)
        for modality, (spec, params) in model.sensors.items():
            # a folder for timm, or one file if timm has no such model
            name = modality if has_timm_model(spec) else f"{modality}.safetensors"
            names[modality] = name
            save_encoder(local / name, spec, params, dtype=c.dtype)
            if spec.pixels and not is_like_input(spec):
                run.log(f"warning: export: {name}: {ground_text(spec)}")
        names |= write_programs(model, local, c.programs, c.dtype)
        files = {key: file_digests(local / name) for key, name in names.items()}
    card = make_card(
        model,
        layout=c.layout,
        dtype=c.dtype,
        files=files,
        history=read_history(as_path(run.config.init), aligned=bool(model.sensors)),
        alpha=c.alpha,
        records=results.read_results(as_path(run.config.init) / "results.jsonl"),
    )
    write_text(folder / "README.md", card)
    written = ", ".join(str(folder / name) for name in names.values())
    run.log(f"export: {written}\n{folder / 'README.md'}")


def check_with_text(model: api.Model, modalities: Sequence[str]) -> None:
    """Raises ValueError for sensors whose encoder cannot go with the text tower."""
    setting = f"config.export.with_text = {tuple(modalities)}"
    if not (model.takes_rgb or modalities):
        raise ValueError(
            f"{setting}: this CLIP takes no RGB, and would lose its text tower; name"
            f" its sensors, {tuple(model.sensors)}"
        )
    for modality in modalities:
        if modality not in model.sensors:
            raise ValueError(
                f"{setting}: the model has encoders of {list(model.sensors) or 'none'}"
            )
        try:
            check_is_tower(model.sensors[modality].spec, model.variant)
        except ValueError as error:
            raise ValueError(f"{setting}: {error}") from error


def write_with_text(
    model: api.Model, folder: Path, modalities: Sequence[str], dtype: str
) -> dict[str, str]:
    """Writes <folder>/clip_<modality>; returns "clip of <modality>" -> its name.

    Each is one CLIP of a sensor's encoder and the text tower.
    """
    for modality in modalities:
        encoder, path = model.sensors[modality], folder / f"clip_{modality}"
        save_sensor_clip(path, model.variant, model.params, *encoder, dtype=dtype)
    return {f"clip of {modality}": f"clip_{modality}" for modality in modalities}


def write_programs(
    model: api.Model, folder: Path, kinds: Sequence[str], dtype: str
) -> dict[str, str]:
    """Writes <folder>/programs; returns "program <file>" -> its path in the folder."""
    sensors = {m: (made.spec, made.params) for m, made in model.sensors.items()}
    paths = [
        path
        for kind in kinds
        for path in programs.save_programs(
            folder / "programs",
            model.variant,
            model.params,
            sensors,
            kind=kind,
            dtype=dtype,
        )
    ]
    return {f"program {p.name}": p.relative_to(folder).as_posix() for p in paths}


def read_history(workdir: Path, *, aligned: bool) -> dict[str, StageMeta]:
    """{stage: its meta} of the stages that made a workdir's model; {} for a file.

    If another workdir's stages made the CLIP, they come first.
    """
    found = {
        stage: checkpoint.load_meta(workdir / stage)
        for stage in ("pretrain", "patch", *(["align"] if aligned else []))
        if checkpoint.has_product(workdir / stage)
    }
    if list(found) == ["align"]:
        teacher = as_path(found["align"].sources["teacher"]["path"])
        found = read_history(teacher, aligned=False) | found
    return found


def is_exported(run: Run) -> bool:
    """Whether the stage is done: the card is written last."""
    return (run.workdir / "export" / "README.md").exists()
