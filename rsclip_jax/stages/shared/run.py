"""A run: the config, workdir and mesh that every stage receives."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from rsclip_jax import api
from rsclip_jax.data.datasets import open_source
from rsclip_jax.data.inspect.offsets import suspect_offset
from rsclip_jax.data.inspect.unplaced import describe_unplaced
from rsclip_jax.data.pipeline.fitting import Fit
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import TiledSource
from rsclip_jax.data.specs import DatasetSpec, short_name
from rsclip_jax.data.types import ReadOptions, Source
from rsclip_jax.evals.encode import encode_source
from rsclip_jax.models.compute import (
    DTYPES,
    Compute,
    check_attention,
    layout_of,
)
from rsclip_jax.records import outcomes
from rsclip_jax.records.results import Result, append_results
from rsclip_jax.report.gallery import save_thumbnails, thumbnails_path
from rsclip_jax.train import processes, sharding


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of one config in one workdir, on one mesh."""

    config: ConfigDict
    workdir: Path
    mesh: Mesh
    opened: dict[str, Source] = dataclasses.field(default_factory=dict)
    part: str = ""  # subfolder of a stage that trains several times

    @functools.cached_property
    def compute(self) -> Compute:
        """How models compute; ValueError naming the setting that does not fit."""
        c, platform = self.config, self.mesh.devices.flat[0].platform
        if c.precision not in ("", *DTYPES):
            raise ValueError(
                f"config.precision = {c.precision!r}: use one of {', '.join(DTYPES)},"
                " or '' for bfloat16 on TPU and GPU and float32 on CPU"
            )
        dtype = c.precision or ("float32" if platform == "cpu" else "bfloat16")
        try:
            compute = Compute(
                dtype, c.remat, c.scan_layers, c.attention, layout_of(platform)
            )
            check_attention(compute, platform)
        except ValueError as error:
            raise ValueError(f"config.{error}") from error
        return compute

    def bound(self, model: api.Model) -> api.Model:
        """The model that computes as this run does, on its mesh."""
        return dataclasses.replace(model, compute=self.compute, mesh=self.mesh)

    @property
    def results(self) -> Path:
        """The file of all reported numbers."""
        return self.workdir / "results.jsonl"

    def folder(self, stage: str) -> Path:
        """The folder of a stage, or of this part of it."""
        return self.workdir / stage / self.part

    def open(self, spec: str) -> Source:
        """A source by "name:split" or "name:split:tile" (DatasetSpec); opened once."""
        if spec not in self.opened:
            self.opened[spec] = self._open(spec)
        return self.opened[spec]

    def _open(self, spec: str) -> Source:
        found = DatasetSpec.parse(spec)
        self._check_name(found.name)
        skip = self.config.data.on_error
        source = open_source(
            found.name,
            self.config.data_root,
            found.split,
            on_error=skip,
            max_nodata=self.config.data.max_nodata,
            max_pixels=self.config.data.max_pixels,
        )
        if source.split_rule:
            made = f"{len(source):,} records, split by {source.split_rule}"
            self.log(f"{found.name}:{found.split}: {made}")
        for text in suspect_offset(source):
            self.log(f"warning: {text}")
        if text := describe_unplaced(source):
            self.log(text)
        if found.tile:
            return TiledSource(source, found.tile, on_error=skip)
        return source

    def _check_name(self, name: str) -> None:
        """Raises ValueError if two datasets would have one name in results."""
        for other in {DatasetSpec.parse(spec).name for spec in self.opened}:
            same = Path(other).resolve() == Path(name).resolve()
            if short_name(other) == short_name(name) and not same:
                raise ValueError(
                    f"{other} and {name} are both {short_name(name)!r} in results:"
                    " rename one of the files"
                )

    def skipped(self, stage: str) -> Path:
        """The stage's list of records that could not be read; see data/bad_records."""
        return self.workdir / stage / "skipped.txt"

    def read_options(self, stage: str, batch_size: int = 0) -> ReadOptions:
        """How a stage reads records; batch_size: by default config.eval_batch_size."""
        c = self.config
        return ReadOptions(
            batch_size or c.eval_batch_size,
            c.data.threads,
            c.data.on_error,
            self.skipped(stage),
            c.progress and processes.is_first(),
        )

    def encode(
        self,
        stage: str,
        source: Source,
        encoders: dict,
        sizes: Mapping[str, int | Fit],
        group: int = 1,
    ):
        """encode_source with this run's mesh, batch and data settings."""
        batch_size = self.config.eval_batch_size
        sharding.check_batch_size(batch_size, self.mesh, "config.eval_batch_size")
        return encode_source(
            source,
            encoders,
            sizes=sizes,
            mesh=self.mesh,
            options=self.read_options(stage),
            group=group,
        )

    def report(
        self, stage: str, source: Source, records: Sequence[dict], **pins: Any
    ) -> list[Result]:
        """Writes an evaluation's records as results; returns the results.

        pins: step, checkpoint, prompts (or None), and alpha if there is one.
        """
        base = {"stage": stage, "prompts": None, **_about(source)}
        whole = [Result(**{**base, **record, **pins}) for record in records]
        self.write(whole)
        return whole

    def write(self, whole: Iterable[Result]) -> None:
        """Appends results to the workdir's, from one process."""
        if processes.is_first():
            append_results(self.results, whole)

    def keep(
        self, stage: str, when: str, source: Source, z: dict, **found: Any
    ) -> outcomes.Outcome:
        """Makes an outcome and saves it for the report and for comparisons.

        It is saved in <stage>/outcomes/<when>/, unless config.keep_embeddings is False;
        after a stage, thumbnails for the report's gallery are saved too. when: "before"
        or "after" the stage.
        """
        outcome = make_outcome(stage, source, z, **found)
        if self.config.keep_embeddings and processes.is_first():
            folder = self.folder(stage) / "outcomes" / when
            outcomes.save_outcome(folder, outcome)
            if when == "after":
                self._keep_thumbnails(stage, outcome, source)
        return outcome

    def _keep_thumbnails(self, stage: str, outcome, source: Source) -> None:
        path = thumbnails_path(self.folder(stage), outcome)
        try:
            save_thumbnails(path, outcome, source)
        except Exception as error:  # a picture must not stop a training
            self.log(f"{stage}: no thumbnails of {outcome.name}: {error}")

    def log(self, text: str) -> None:
        """Prints one line, from one process."""
        if processes.is_first():
            print(text, flush=True)


def make_outcome(stage: str, source: Source, z: dict, **found: Any) -> outcomes.Outcome:
    """The outcome of a source through a model.

    found: labels, head, ztxt and owners as in Outcome, and pins as in Run.report, but
    checkpoint is {sensor: digest}.
    """
    arrays = {key: found.pop(key, None) for key in outcomes.ARRAYS}
    dataset = source.dataset
    return outcomes.Outcome(
        {"stage": stage, "task": dataset.task, **_about(source), **found},
        tuple(source.ids),
        z,
        classnames=dataset.classnames,
        **arrays,
    )


def _about(source: Source) -> dict[str, Any]:
    """The fields that identify the examples behind a number."""
    about: dict[str, Any] = {
        "dataset": source.dataset.name,
        "split": source.split,
        "split_digest": split_digest(source),
    }
    if source.tile:
        about["tile"] = source.tile
    if source.split_rule:
        about["split_rule"] = source.split_rule
    return about
