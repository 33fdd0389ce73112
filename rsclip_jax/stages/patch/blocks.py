"""Searches an alpha for each block on validation data, from the best single alpha."""

import json
import sys
from collections.abc import Iterable, Sequence

from tqdm import tqdm

from rsclip_jax.data.pipeline.batches import eval_batches
from rsclip_jax.data.sampling import spread_indices
from rsclip_jax.data.sources.digests import split_digest
from rsclip_jax.data.sources.wrappers import Subset
from rsclip_jax.data.types import Source
from rsclip_jax.evals.encode import encode_batches
from rsclip_jax.interpolate import block_names
from rsclip_jax.io.json_lines import append_lines, read_json_lines
from rsclip_jax.records.budget import ORIGINAL, Budget, Curve, value_before
from rsclip_jax.stages.patch.choose_alpha import search_blocks
from rsclip_jax.stages.patch.mixtures import Alpha
from rsclip_jax.stages.patch.sweep import (
    Measured,
    Sweep,
    as_number,
    primary_value,
)
from rsclip_jax.stages.shared import scoring
from rsclip_jax.train import checkpoint, processes

Blocks = dict[str, float]


def choose_blocks(
    sweep: Sweep,
    alpha: float,
    sources: tuple[Sequence[Source], Sequence[Source]],
    curves: tuple[Curve, Sequence[Curve]],
    budget: Budget,
) -> tuple[Blocks, float, list[float]]:
    """(an alpha for each block, the tasks' mean with it, the supported values).

    The search may use a part of the data; its result is measured on all of it, and
    replaced by the single alpha if that is better or the budget is exceeded. Reports
    the values.

    sources, curves: for the tasks (one curve, their mean) and the supported datasets.
    """
    task, supported = curves
    start: Blocks = dict.fromkeys(block_names(sweep.theta_0), alpha)
    found = _search(sweep, start, *sources, budget)
    measured = _measure(sweep, sources, found)
    before = [value_before(s) for s in supported]
    mean, kept = _values(measured, len(sources[0]))
    if found != start and (mean < task[alpha] or not budget.allows(before, kept)):
        sweep.run.log(
            "patch: the alphas by block, found on a part of the validation data, are"
            " not better on all of it: the single alpha is kept"
            " (config.patch.block_examples = 0 searches on all of it)"
        )
        found = start
        measured = _measure(sweep, sources, found)
        mean, kept = _values(measured, len(sources[0]))
    for one in measured:
        sweep.write(one, 0, found)
    return found, mean, kept


def _measure(sweep: Sweep, sources, blocks: Blocks) -> list[Measured]:
    return [sweep.measure(s, [blocks]) for part in sources for s in part]


def _values(measured: list[Measured], tasks: int) -> tuple[float, list[float]]:
    values = [one.values[0] for one in measured]
    return sum(values[:tasks]) / tasks, values[tasks:]


def _search(
    sweep: Sweep,
    start: Blocks,
    tasks: Sequence[Source],
    supported: Sequence[Source],
    budget: Budget,
) -> Blocks:
    c = sweep.settings
    left = int(c.block_cache_gb * 1e9)
    sets = []
    for source in (*tasks, *supported):
        sets.append(_Decoded(sweep, source, c.block_examples, left))
        left -= sets[-1].size
    before_at = 0.0 if sweep.original is None else ORIGINAL
    before = [one.value(before_at) for one in sets[len(tasks) :]]
    bar = tqdm(
        total=c.block_evaluations,
        desc="alpha by block",
        unit="model",
        leave=False,
        disable=not (sweep.run.config.progress and sys.stderr.isatty()),
    )

    def evaluate(alphas: Blocks):
        bar.update()
        values = [one.value(alphas) for one in sets[: len(tasks)]]
        return sum(values) / len(values), lambda: [
            one.value(alphas) for one in sets[len(tasks) :]
        ]

    with bar:
        found, _ = search_blocks(
            evaluate, start, budget, before, max_evaluations=c.block_evaluations
        )
    return found


class _Decoded:
    """A source to evaluate many times: its batches stay in memory if they fit.

    examples: the number to read, evenly spread; 0 reads all. size: bytes kept in
    memory, 0 if they exceed `room`. Values are also written to
    patch/block_values.jsonl, from which an interrupted search resumes.
    """

    def __init__(self, sweep: Sweep, source: Source, examples: int, room: int):
        self.sweep, self.source = sweep, source
        if 0 < examples < len(source):
            self.source = Subset(source, spread_indices(len(source), examples))
        self.text, _ = scoring.zero_shot_head(sweep.clip, source)
        side = sweep.clip.variant.image_size
        self.size = len(self.source) * side * side * 3
        if self.size > room:
            self.size = 0
        self._kept: list[dict] = []
        self._file = sweep.run.workdir / "patch" / "block_values.jsonl"
        heads = () if sweep.heads is None else (sweep.heads,)
        ends = checkpoint.params_digest((sweep.theta_0, sweep.theta_1, *heads))
        self._pins = {"ends": ends, "data": split_digest(self.source)}
        # one process's: another may see a line of them more
        lines = processes.first_decides(
            lambda: read_json_lines(self._file, strict=False)
        )
        lines = [r for r in lines if r.keys() >= _PINNED]  # a lost value is made again
        self._known = {_key(r): as_number(r["value"]) for r in lines}

    def value(self, alpha: Alpha) -> float:
        """The primary metric at this alpha."""
        pins = {**self._pins, "alpha": alpha}
        if (key := _key(pins)) not in self._known:
            self._known[key] = processes.from_first(self._evaluate(alpha))
            if processes.is_first():
                line = json.dumps({**pins, "value": self._known[key]})
                append_lines(self._file, [line])
        return self._known[key]

    def _evaluate(self, alpha: Alpha) -> float:
        if self.size and not self._kept:
            self._kept = list(self._decode())
        encoders = {"rgb": self.sweep.encoder(alpha)}
        batches = self._kept or self._decode()
        z, labels, _ = encode_batches(batches, encoders, self.sweep.run.mesh)
        head = self.sweep.head(self.source, alpha, self.text)
        records = scoring.score(self.source, z["rgb"], labels, head, "rgb")
        return primary_value(self.source, records)

    def _decode(self) -> Iterable[dict]:
        run = self.sweep.run
        return eval_batches(
            self.source,
            sizes={"rgb": self.sweep.clip.variant.fit},
            options=run.read_options("patch"),
            process=(processes.index(), processes.count()),
        )


_PINNED = {"ends", "data", "alpha", "value"}


def _key(record: dict) -> str:
    return json.dumps([record["ends"], record["data"], record["alpha"]], sort_keys=True)
