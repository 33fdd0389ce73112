"""Runs of the stages and settings that are seldom used, one after the other.

python -m tests.helpers.many_runs --workdir=DIR --coordinator=HOST:PORT ... runs all in
the processes of one job.
"""

import argparse
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.configs import common
from rsclip_jax.main import run_stages
from rsclip_jax.train import processes
from tests.helpers.processes import steady_probes, toy_variant
from tests.helpers.runs import few_scenes, tiny_config

TASKS = {
    "train": ("miniature:train", "miniature_aerial:train"),
    "val": ("miniature:val", "miniature_aerial:val"),
    "test": ("miniature:test", "miniature_aerial:test"),
}
PATCHES: dict[str, dict[str, Any]] = {
    "lp_ft": {"recipe": "lp_ft", "head_steps": 2},
    "lora": {"recipe": "lora", "lora.rank": 2},
    "sequential": {"tasks": "sequential", **TASKS},
    "parallel": {"tasks": "parallel", "merge": "fisher", **TASKS},
}


ALL = (
    *("split", "sequential", "inspect", "export"),
    *("blocks", "lp_ft", "lora", "parallel", "ablate", "survey", "compare"),
)
FEW = ALL[:4]


def configs_of(folder: Path) -> Iterator[tuple[str, Any]]:
    """(name of the workdir in folder, its config), each after those that it reads."""
    split = toy(("pretrain", "patch", "align"), variant="toy", mesh=(1, 4))
    yield "split", split
    clip = {"init": str(folder / "split")}
    blocks = toy(("patch",), **clip)
    blocks.patch.update(per_block=True, block_evaluations=6)
    yield "blocks", blocks
    for name, settings in PATCHES.items():
        config = toy(("patch",), **clip, mesh=(1, 4))  # split's programs serve
        config.patch.update_from_flattened_dict(settings)
        yield name, config
    swept = toy(("ablate",), **clip)
    swept.ablate = common.ablate(sweep=(("seed", (0, 1)),))
    yield "ablate", swept
    models = toy(("survey",), datasets=("miniature:test",), published=())
    models.update(models=(str(folder / "blocks"), str(folder / "split")))
    models.update(dry_run=False, dry_records=8)
    models.evaluate = common.evaluate()
    yield "survey", models
    runs = tuple(str(folder / "ablate" / "ablate" / f"seed={i}") for i in (0, 1))
    yield "compare", toy(("compare",), runs=runs)
    looked = toy(("inspect",), dataset="miniature")
    looked.inspect = common.inspect(samples=8)
    yield "inspect", looked
    written = toy(("export",), **clip)
    written.export = common.export()
    yield "export", written


def toy(stages: tuple[str, ...], **settings):
    """tiny_config of two steps a stage, unlocked."""
    config = tiny_config(stages)
    config.unlock()
    config.variant = ""
    config.update(eval_batch_size=20)
    for stage in ("pretrain", "patch", "align"):
        config[stage].update(steps=2, warmup=1)
    config.pretrain.update(test=(), allow_other_data=True)
    config.patch.update(
        bootstraps=10, supported_val=(), supported_test=(), allow_other_data=True
    )
    config.update(settings)
    return config


def run_all(folder: Path, names: Sequence[str]) -> None:
    """The runs of these names, with few scenes."""
    with few_scenes(), toy_variant(), steady_probes():
        for name, config in configs_of(folder):
            if name in names:
                run_stages(config.lock(), folder / name)


def main() -> None:
    """As main does: an error ends this process at once, with its trace."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--workdir", type=Path)
    parser.add_argument("--names", default=",".join(ALL))
    parser.add_argument("--coordinator")
    parser.add_argument("--processes", type=int)
    parser.add_argument("--process", type=int)
    told = parser.parse_args()
    processes.initialize(told.coordinator, told.processes, told.process)
    try:
        run_all(told.workdir, told.names.split(","))
    except Exception:
        traceback.print_exc(file=sys.stderr)
        processes.leave(1)


if __name__ == "__main__":
    main()
