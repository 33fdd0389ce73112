"""The settings to turn where a stage runs out of memory, with their numbers."""

import contextlib
from collections.abc import Iterator

from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train.memory import OutOfMemory, Shortage, is_shortage, measure

_PLAN = (
    "--config.plan=True prints what each step needs, and the largest batch that fits"
)


@contextlib.contextmanager
def advised(run: Run, stage: str) -> Iterator[None]:
    """Raises an error of too little memory within as one that names the settings."""
    try:
        yield
    except Exception as error:
        if not is_shortage(error):
            raise
        work = error.work if isinstance(error, OutOfMemory) else ""
        shortage = measure(error)
        text = str(error) if isinstance(error, OutOfMemory) else str(shortage)
        lines = "\n  ".join(advice(run, stage, work, shortage))
        text = f"stage {stage!r}, {text}. Settings to turn:\n  {lines}\n{_PLAN}"
        raise OutOfMemory(text, work, shortage) from error


def advice(run: Run, stage: str, work: str, shortage: Shortage) -> list[str]:
    """A line for each setting that lowers the memory of this work.

    work: "training", "encoding", or "" if it is unknown.
    """
    lines = []
    if "batch_size" in run.config.get(stage, {}) and work != "encoding":
        lines += _of_training(run, stage, shortage)
    if work != "training":
        size = run.config.eval_batch_size
        lines.append(
            f"config.eval_batch_size, now {size:,} ({share(size, run)}): lower it; the"
            " results stay the same"
        )
    return [*lines, *_of_devices(run, stage, work)]


def _of_training(run: Run, stage: str, shortage: Shortage) -> list[str]:
    c, lines = run.config[stage], []
    size, now = c.batch_size, c.get("accumulate", 1)
    if "accumulate" in c and (more := parts(size, now, shortage, run.mesh.size)):
        lines.append(
            f"config.{stage}.accumulate, now {now}: with {more} the devices hold"
            f" {size // more} examples at a time, for the same update"
        )
    if run.config.remat != "block":
        lines.append(
            f"config.remat, now {run.config.remat!r}: 'block' computes activations"
            " again instead of keeping them, for about a third more time"
        )
    lines.append(
        f"config.{stage}.batch_size, now {size:,} ({share(size, run)}): a smaller batch"
        " is another training"
    )
    if c.get("cache", "") == "off":
        lines.append(
            f"config.{stage}.cache, now 'off': with 'exact' or 'd4' the step does"
            " without the teacher's tower and its images"
        )
    return lines


def _of_devices(run: Run, stage: str, work: str) -> list[str]:
    lines, shape = [], tuple(run.mesh.devices.shape)
    if run.compute.dtype == "float32":
        lines.append(
            "config.precision, now float32: 'bfloat16' halves the activations on a TPU"
            " or GPU"
        )
    if run.mesh.size > 1 and shape[1] < run.mesh.size and work != "encoding":
        lines.append(
            f"config.mesh, now {shape}: with (-1, {run.mesh.size}) each device holds"
            f" 1/{run.mesh.size} of the parameters and moments"
        )
    if run.config.get(stage, {}).get("block_cache_gb"):
        held = run.config[stage].block_cache_gb
        lines.append(f"config.{stage}.block_cache_gb, now {held}: images on the host")
    return lines


def share(size: int, run: Run) -> str:
    """A batch's share of each device, as text."""
    return f"{size // run.mesh.size:,} on each of {run.mesh.size} device(s)"


def parts(size: int, now: int, shortage: Shortage, devices: int) -> int | None:
    """A number of parts of a batch that should fit; None if there is no larger one.

    It is at least twice the present number, and divides the batch for all devices.
    """
    times = 2.0
    if shortage.asked and shortage.held:
        times = max(times, shortage.asked / shortage.held)
    fit = [n for n in range(now + 1, size // devices + 1) if size % (n * devices) == 0]
    return next((n for n in fit if n >= now * times), fit[-1] if fit else None)
