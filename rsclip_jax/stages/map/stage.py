"""Stage map: embeds the tiles of a scene, and writes what they show as rasters.

Zero-shot classification (Radford et al. 2021) of each tile; where tiles overlap, a cell
has the mean of their probabilities. Embeddings are kept, so that other words cost
nothing.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from rsclip_jax import api
from rsclip_jax.data.scenes.opening import open_scene
from rsclip_jax.data.scenes.scene import Scene
from rsclip_jax.data.scenes.writing import cell_grid, write_areas, write_cog
from rsclip_jax.evals.maps import blend, softmax
from rsclip_jax.io.paths import as_path, check_local
from rsclip_jax.models.sensor import input_indices, spec_sensor
from rsclip_jax.records.meta import StageMeta, read_meta, write_meta
from rsclip_jax.report.map_picture import class_colours, save_quicklook
from rsclip_jax.stages.evaluate.encoders import make_encoders
from rsclip_jax.stages.map.rows import Reader, embed, read_row
from rsclip_jax.stages.map.settings import Layout, MapSettings, check_settings
from rsclip_jax.stages.shared import clip_init
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import checkpoint, processes, sharding

NONE = 0  # of class.tif: no values


def check_map(run: Run) -> None:
    """Raises ValueError or FileNotFoundError for what would stop this stage."""
    _ = run.compute  # raises for settings that do not fit
    s = MapSettings.of(run)
    check_settings(s)
    check_local(str(run.workdir), "config.workdir, which GDAL writes to,")
    if processes.count() > 1:
        raise ValueError(
            f"stage map runs in one process, which uses all of its devices, and this"
            f" job has {processes.count()}: start it on one host"
        )
    if not run.config.init:
        raise ValueError(
            "stage 'map' needs a model: set --config.init to the workdir of a run with"
            " an encoder of the scene's sensor, to a weight file, or to a name of"
            " weights"
        )
    sharding.check_batch_size(
        run.config.eval_batch_size, run.mesh, "config.eval_batch_size"
    )
    open_map_scene(run, s)


def run_map(run: Run) -> None:
    """Writes <workdir>/map: rasters, areas, a picture, and meta.json last."""
    s = MapSettings.of(run)
    scene = open_map_scene(run, s)
    model = clip_init.load_init(run)
    reader = make_reader(run, s, scene, model)
    folder = run.workdir / "map"
    rows = embed(
        folder,
        reader,
        run.mesh,
        made_from(run, s, scene, model, reader),
        progress=run.config.progress,
        log=run.log,
    )
    shares = write_maps(folder, s, reader, rows, model)
    meta = StageMeta(
        stage="map",
        config=run.config.to_dict(),
        precision=run.compute.dtype,
        model=model.digests,
        sources={"clip": {**model.source, "digest": model.digests["clip"]}},
        more={"shares": shares, "scene": scene.id},
    )
    write_meta(folder, checkpoint.made_now(meta))
    table = "\n".join(f"  {100 * v:5.1f} %  {k}" for k, v in shares.items())
    run.log(f"map: {scene.id}\n{table}\nmap: {folder}")


def is_mapped(run: Run) -> bool:
    """Whether the stage has finished with the same settings and scene."""
    folder = run.workdir / "map"
    if not (folder / "meta.json").exists():
        return False
    meta = read_meta(folder)
    keys = ("init", "init_sensor", "scene", "sensor", "classes", "map", "precision")
    now = json.loads(json.dumps(run.config.to_dict()))
    then = meta.config or {}
    return all(then.get(key) == now[key] for key in keys)


def open_map_scene(run: Run, s: MapSettings) -> Scene:
    """The scene of the settings; errors name them."""
    try:
        return open_scene(
            s.scene,
            s.sensor,
            crs=s.crs,
            resolution=s.resolution,
            clear=s.clear,
            unit=s.unit,
        )
    except (ValueError, FileNotFoundError) as error:
        text = str(error).replace("sensor=", "config.sensor=")
        for name in ("unit", "crs", "resolution"):
            text = text.replace(f"{name}=", f"config.map.{name}=")
        raise type(error)(f"config.scene: {text}") from error


def make_reader(run: Run, s: MapSettings, scene: Scene, model: api.Model) -> Reader:
    """What reads and encodes the tiles.

    Raises ValueError for a model without an encoder of the scene's sensor, bands that
    the scene lacks, and a stride that does not divide the tile.
    """
    encoders = make_encoders(run, model)
    key = next((key for key in scene.sensors if key in encoders), "")
    if not key:
        held = ", ".join(sensor.name for sensor in scene.sensors.values())
        raise ValueError(
            f"config.init = {run.config.init!r} encodes {', '.join(encoders)}, and the"
            f" scene {scene.id} holds {held}: align an encoder of that sensor first"
        )
    sensor, indices, ground = scene.sensors[key], None, 0
    if key in model.sensors:
        spec = model.sensors[key].spec
        indices, ground = input_indices(spec, sensor), spec.pixels
        if spec_sensor(spec).name != sensor.name:
            run.log(
                f"map: the scene holds {sensor.name} and the encoder was trained on"
                f" {spec.sensor}: bands are matched by name"
            )
    encoder = encoders[key]
    side = encoder.size if isinstance(encoder.size, int) else encoder.size.size
    size = s.tile or ground or side
    layout = Layout.of(scene, size, s.stride)
    if layout.size**2 > scene.most_pixels:
        raise ValueError(
            f"config.map.tile = {size}: a tile of so many pixels is more than may be"
            " read at a time; set a smaller one"
        )
    batch_size, encode = run.config.eval_batch_size, encoder.encode
    sizes = (encoder.size, encode, batch_size, s.min_valid)
    return Reader(scene, layout, key, indices, *sizes)


def made_from(
    run: Run, s: MapSettings, scene: Scene, model: api.Model, reader: Reader
) -> dict[str, Any]:
    """What the embeddings depend on."""
    path = as_path(s.scene)
    changed = path.stat().st_mtime_ns if path.exists() else 0
    return {
        "scene": [s.scene, scene.id, changed, scene.crs, list(scene.grid.transform)],
        "sensor": [reader.key, scene.sensors[reader.key].name],
        "model": model.digests,
        "precision": run.compute.dtype,
        "tiles": [reader.layout.size, reader.layout.stride, s.min_valid, s.clear],
    }


def write_maps(
    folder: Path, s: MapSettings, reader: Reader, rows: Sequence[Path], model: api.Model
) -> dict[str, float]:
    """Writes the rasters, the areas and the picture; {class: its share of the map}.

    rows: of embed; one is held at a time, since with overlaps all are many.
    Raises ValueError for a scene of which no tile has enough values.
    """
    scene, layout = reader.scene, reader.layout
    grid = cell_grid(scene.grid, layout.stride)
    head = model.zero_shot(s.classes, s.templates)
    if s.sentences:
        head = np.concatenate([head, model.encode_text(s.sentences).T], axis=1)
    scores, seen = score_rows(rows, head)
    if np.isnan(scores).all():
        raise ValueError(
            f"{scene.id}: no tile has values in {100 * s.min_valid:g} % of its pixels"
            " (config.map.min_valid)"
        )
    scores, found = np.split(scores, [len(s.classes)], axis=-1)
    probability = blend(softmax(scores), layout.cells, layout.reach)
    best = np.where(np.isnan(probability[..., 0]), NONE, _first(probability) + 1)
    classes = best.astype(np.uint8)
    colours = dict(enumerate(class_colours(len(s.classes)), 1))
    tags = {"CLASSES": json.dumps(dict(enumerate(s.classes, 1)), ensure_ascii=False)}
    named = ["class: " + ", ".join(f"{i} {c}" for i, c in enumerate(s.classes, 1))]
    write_cog(
        folder / "class.tif",
        classes[..., None],
        grid,
        named,
        nodata=NONE,
        colours=colours,
        tags=tags,
    )
    nan = float("nan")
    write_cog(folder / "probability.tif", probability, grid, s.classes, nodata=nan)
    sure = probability.max(axis=-1, keepdims=True)
    write_cog(folder / "confidence.tif", sure, grid, ["confidence"], nodata=nan)
    if s.sentences:
        heat = blend(found, layout.cells, layout.reach)
        write_cog(folder / "similarity.tif", heat, grid, s.sentences, nodata=nan)
    write_areas(folder / "areas.geojson", classes, grid, s.classes, s.min_area)
    known = max(int((classes > NONE).sum()), 1)
    shares = {
        name: float((classes == i).sum() / known) for i, name in enumerate(s.classes, 1)
    }
    save_quicklook(
        folder / "quicklook.png",
        seen,
        scene.sensors[reader.key],
        classes,
        s.classes,
        list(shares.values()),
        f"{scene.id}: cells of {layout.stride} pixels",
    )
    return shares


def score_rows(rows: Sequence[Path], head: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(scores [rows, columns, k], NaN for tiles without an embedding; the quick look).

    head [d, k].
    """
    scores, seen = [], []
    for row in map(read_row, rows):
        none = np.full((len(row.z), head.shape[1]), np.nan, np.float32)
        scores.append(row.z @ head if row.z.shape[1] else none)
        seen.append(row.seen)
    return np.stack(scores), np.concatenate(seen)


def _first(probability: np.ndarray) -> np.ndarray:
    """The class with the highest probability; 0 where there is none."""
    return np.nan_to_num(probability, nan=-1.0).argmax(axis=-1)
