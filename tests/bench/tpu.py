"""A stage's step on a TPU that is not there, from towers of two depths.

PYTHONPATH=LIBTPU python -m tests.bench.tpu --init OpenAI-ViT-B-32 --stage patch \
    --topology v5e:2x2 --batch 256 [--layers 2 4]

Time, memory of fixed arguments and temporary memory are linear in the number of equal
blocks: two shallow towers, which compile in minutes, give those of the whole one.
--layers 0 compiles the whole tower instead, as config.plan does. Needs libtpu
(launch/README.md); no weights and no data.
"""

import argparse
import dataclasses
import time
from pathlib import Path

import numpy as np

from configs import align_sar
from rsclip_jax.stages.registry import find_stages
from rsclip_jax.stages.shared import clip_init, plan
from rsclip_jax.stages.shared.plan_table import Figures, Place
from rsclip_jax.stages.shared.run import Run
from rsclip_jax.train import tpu
from rsclip_jax.train.memory import describe


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--init", default="OpenAI-ViT-B-32", help="name of weights")
    parser.add_argument("--stage", choices=("patch", "align"), default="patch")
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--batch", type=int, default=256, help="examples a chip")
    parser.add_argument("--layers", nargs="+", type=int, default=[2, 4])
    parser.add_argument("--student", default="clip", help="of stage align")
    args = parser.parse_args()
    run = make_run(args)
    variant = clip_init.planned_variant(run, args.stage)
    found = [measure(run, args, layers) for layers in args.layers]
    if args.layers == [0]:
        print_figures(args, run, "compiled", *as_row(found[0]))
        return
    rows = np.array([as_row(x) for x in found])
    each = (rows[1] - rows[0]) / (args.layers[1] - args.layers[0])
    whole = rows[0] + each * (variant.vision_layers - args.layers[0])
    text = f"from {args.layers} of {variant.vision_layers} blocks"
    print_figures(args, run, text, *whole)


def make_run(args) -> Run:
    config = align_sar.get_config()
    config.plan, config.init, config.variant = True, args.init, ""
    config.stages = (args.stage,)
    config.align.student = args.student
    mesh = tpu.make_topology_mesh(args.topology, (-1, 1))
    config[args.stage].batch_size = args.batch * mesh.size
    return Run(config, Path("none"), mesh)


def measure(run: Run, args, layers: int) -> Figures:
    """The figures of the step; layers > 0 cuts the visual towers to so many blocks."""
    planned = clip_init.planned_variant

    def cut(run: Run, stage: str):
        variant = planned(run, stage)
        deep = layers or variant.vision_layers
        return dataclasses.replace(variant, vision_layers=deep)

    clip_init.planned_variant = cut
    try:
        (stage,) = find_stages((args.stage,))
        assert stage.needs_of is not None
        job = stage.needs_of(run).jobs[0]
        examples = plan.batch_shapes(run, job)
    finally:
        clip_init.planned_variant = planned
    limit = tpu.limit_of(args.topology)
    place = Place(args.topology, run.mesh, limit, args.topology)
    begun, size = time.process_time(), job.settings.batch_size
    found = plan.measure(plan.job_program(job, examples, place), place, size)
    took = time.process_time() - begun
    print(f"{layers or 'all'} blocks: {as_row(found)}, {took:.0f} s of CPU", flush=True)
    return found


def as_row(found: Figures) -> tuple[float, float, float]:
    """(seconds of a step, bytes of arguments, temporary bytes)."""
    if found.memory is None or found.seconds is None:
        raise SystemExit(found.problem)
    return found.seconds, found.memory.arguments, found.memory.temporary


def print_figures(args, run: Run, how: str, seconds, arguments, temporary) -> None:
    rate = args.batch / seconds
    print(
        f"{args.init}, stage {args.stage}, {args.batch} examples a chip of"
        f" {args.topology}, {run.compute.dtype}, {how}: {1e3 * seconds:.1f} ms a step,"
        f" {rate:,.0f} examples/s a chip; arguments {describe(arguments)}, temporary"
        f" {describe(temporary)}"
    )


if __name__ == "__main__":
    main()
