"""A training's curve: metrics on disk, read from the device at log steps only."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rsclip_jax.io.files import LineWriter, write_text
from rsclip_jax.io.json_lines import keep_lines, number_lines
from rsclip_jax.train import processes
from rsclip_jax.train.settings import TrainSettings

# Most steps whose metrics wait on the device, however rarely they are logged.
_MOST = 100
NameRecords = Callable[[np.ndarray], Sequence[str]]


class NonFiniteError(FloatingPointError):
    """A loss or a gradient that is not a finite number; step: its step."""

    def __init__(self, step: int, message: str):
        super().__init__(message)
        self.step = step


@dataclasses.dataclass(frozen=True)
class _Step:
    """One step's metrics, still on the device, and the numbers of its records."""

    number: int
    metrics: Mapping[str, jax.Array]
    records: np.ndarray | None
    time: float
    waited: float  # seconds for data, of all steps until then


class Curve:
    """Writes folder/metrics.jsonl, and folder/nonfinite.jsonl for non-finite steps.

    Args:
        folder: of the stage. Lines of steps after `start` are removed: they run again.
        settings: of the training.
        start: the step that training continues from.
        skipped: steps left out until then.
        name_records: turns the numbers of a batch's records into their ids.
    """

    def __init__(
        self,
        folder: Path,
        settings: TrainSettings,
        start: int,
        *,
        skipped: int = 0,
        name_records: NameRecords | None = None,
    ):
        self.path, self.faults = folder / "metrics.jsonl", folder / "nonfinite.jsonl"
        self.settings, self.name_records = settings, name_records
        self.skipped, self.loss = skipped, math.nan
        self._schedule = settings.schedule
        self._lines, self._fault_lines = map(LineWriter, (self.path, self.faults))
        self._waiting: list[_Step] = []
        self._sum, self._count = 0.0, 0  # of the finite losses since the last save
        self._last = (start, time.perf_counter(), 0.0)  # step, time, waited
        folder.mkdir(parents=True, exist_ok=True)
        for path in (self.path, self.faults):
            _keep_until(path, start)
        if processes.is_first() and not self.path.exists():
            write_text(self.path, "")  # a training shorter than log_every has a curve

    def add(
        self,
        step: int,
        metrics: Mapping[str, jax.Array],
        records: np.ndarray | None,
        *,
        waited: float = 0.0,
    ) -> None:
        """Notes a step that the device has just begun; waits for the one before it.

        waited: seconds that the devices have waited for data since training began.

        The host is thus one step ahead: with more, batches would fill the device, and
        many unfinished steps deadlock a CPU's collectives.
        """
        if self._waiting:
            jax.block_until_ready(self._waiting[-1].metrics["loss"])
        now = time.perf_counter()
        self._waiting.append(_Step(step, metrics, records, now, waited))
        before = self._waiting[-2].number if len(self._waiting) > 1 else 0
        if before % self.settings.log_every == 0 or len(self._waiting) > _MOST:
            self._read(self._waiting[:-1])
            self._waiting = self._waiting[-1:]

    def read(self) -> None:
        """Reads all steps; raises NonFiniteError as settings.on_nonfinite says."""
        waiting, self._waiting = self._waiting, []
        try:
            self._read(waiting)
        finally:
            self._flush()

    def _flush(self) -> None:
        self._lines.flush()
        self._fault_lines.flush()

    def mean_loss(self) -> float:
        """The mean of the finite losses since the last call; nan if there is none."""
        mean = self._sum / self._count if self._count else math.nan
        self._sum, self._count = 0.0, 0
        return mean

    def _read(self, waiting: Sequence[_Step]) -> None:
        for step, metrics in zip(
            waiting, jax.device_get([s.metrics for s in waiting]), strict=True
        ):
            values = {key: float(value) for key, value in metrics.items()}
            values.pop("skipped", None)
            self.loss = values["loss"]
            if not all(map(math.isfinite, (self.loss, values["grad_norm"]))):
                self._note_fault(step, values)
            else:
                self._sum, self._count = self._sum + self.loss, self._count + 1
            if step.number % self.settings.log_every == 0:
                self._write(step, values)

    def _note_fault(self, step: _Step, values: Mapping[str, float]) -> None:
        ids: list[str] = []
        if step.records is not None and self.name_records is not None:
            rows = np.concatenate(processes.gather_rows(step.records))
            ids = list(self.name_records(rows))
        found = {key: repr(values[key]) for key in ("loss", "grad_norm")}
        _append(self._fault_lines, {"step": step.number, **found, "records": ids})
        text = f"{self.path.parent.name}: loss {found['loss']}, grad_norm"
        text += f" {found['grad_norm']} at step {step.number}"
        if self.settings.on_nonfinite == "skip":
            self.skipped += 1
            if self.skipped <= self.settings.max_skipped:
                return
            text += (
                f", which is skipped step {self.skipped} of at most"
                f" max_skipped = {self.settings.max_skipped}"
            )
        self._flush()  # the message names the file
        raise NonFiniteError(step.number, f"{text} (records: {self.faults})")

    def _write(self, step: _Step, values: Mapping[str, float]) -> None:
        last_step, last_time, last_waited = self._last
        self._last = (step.number, step.time, step.waited)
        seconds = max(step.time - last_time, 1e-9)
        rate = (step.number - last_step) * self.settings.batch_size / seconds
        lr = float(self._schedule(step.number - 1 - self.skipped))
        finite = {k: v for k, v in values.items() if math.isfinite(v)}
        line: dict[str, Any] = {"step": step.number, **finite, "lr": lr}
        line["examples_per_second"] = round(rate, 1)
        line["input_wait"] = round(min((step.waited - last_waited) / seconds, 1.0), 4)
        if self.settings.on_nonfinite == "skip":
            line["skipped"] = self.skipped
        _append(self._lines, line)


def _keep_until(path: Path, step: int) -> None:
    """Removes the lines of later steps, and one that was cut short, from a file.

    Raises ValueError naming a line that has no step.
    """
    if not processes.is_first() or not path.exists():
        return
    for number, line in number_lines(path):
        if not isinstance(found := line.get("step"), int):
            raise ValueError(
                f"{path}, line {number}: its step is {found!r}, not a whole number, so"
                " it is no line of a training; remove that line"
            )
    keep_lines(path, lambda line: line["step"] <= step)


def _append(to: LineWriter, line: Mapping[str, Any]) -> None:
    if processes.is_first():
        to.add(json.dumps(line))
