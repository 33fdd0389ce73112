"""A step compiled for TPUs that are not there, and what it costs them.

python -m tests.bench.tpu_aot --stage patch --variant ViT-B/32 --batch 256 \
    --topology v5e:2x2 [--fsdp 4] [--remat block] [--precision float32] [--record]
python -m tests.bench.tpu_aot --table [--measure]

Needs libtpu on the path (launch/README.md). The last line is JSON. --record keeps it in
tpu_aot.jsonl; --table writes tpu_aot.md from what is kept there. --measure first
compiles those of the table's steps whose program is not the kept one, one to six
minutes of a core a step; stopped, it goes on where it was.

The time is the sum of the compiler's estimated cycles at the chip's clock. It is a
bound from below: exchanges between chips, copies between a chip's memories and custom
calls have no cycles. Exchanges are bounded apart, by their bytes over the links' rate.
FLOPs are the model's: three forward passes of what trains and one of a frozen teacher,
a pass being layers x (24 tokens width^2 + 4 tokens^2 width). Patch embedding, head and
optimizer are left out. MFU is these over the chip's peak.
"""

import argparse
import collections
import dataclasses
import hashlib
import importlib.metadata
import json
import re
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from rsclip_jax.data.sensors import get_sensor
from rsclip_jax.models.clip import clip_shapes, image_features, text_features
from rsclip_jax.models.compute import DTYPES, REMATS, Compute, layout_of
from rsclip_jax.models.inference import encode_rgb
from rsclip_jax.models.sensor import sensor_features, sensor_shapes, vit_spec
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.train import objectives, sharding, tpu
from rsclip_jax.train.program import (
    Program,
    make_encoding_program,
    make_training_program,
    memory_of,
)
from rsclip_jax.train.settings import TrainSettings, make_tx
from rsclip_jax.train_step import Objective
from tests.bench import tpu_table

STAGES = ("patch", "align", "align_cached", "pretrain", "embed")
SENSOR = "s2_l1c"  # of stage align, 13 bands
STUDENT = {"image_size": 224, "patch_size": 16, "width": 384, "layers": 12, "heads": 6}
CLASSES = 19
FOLDER = Path(__file__).parent
EXCHANGES = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all", "collective")
WIDTHS = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s16": 2, "u16": 2}


class Step(NamedTuple):
    """What is compiled: batch counts the examples of one chip."""

    stage: str
    variant: str
    batch: int
    topology: str = "v5e:2x2"
    fsdp: int = 1
    remat: str = "none"
    precision: str = "bfloat16"
    grad_dtype: str = "float32"
    layers: int = 0  # above 0: every tower is cut to so many


# The rows of tpu_aot.md
ROWS = (
    Step("patch", "ViT-B/32", 256),
    Step("patch", "ViT-B/32", 256, grad_dtype="bfloat16"),
    Step("patch", "ViT-B/32", 256, "v5e:8x8"),
    Step("patch", "ViT-B/32", 256, "v5e:16x16"),
    Step("patch", "ViT-B/32", 256, "v6e:2x2"),
    Step("patch", "ViT-B/32", 256, "v5p:2x2x1"),
    Step("patch", "ViT-B/16", 64),
    Step("patch", "ViT-L/14", 32),
    Step("patch", "ViT-L/14", 32, fsdp=4),
    Step("patch", "ViT-H-14", 8, fsdp=4),
    Step("align", "ViT-B/32", 64),
    Step("align_cached", "ViT-B/32", 64),
    Step("align", "ViT-L/14", 64),
    Step("pretrain", "ViT-B/32", 128),
    Step("embed", "ViT-B/32", 256),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stage", choices=STAGES, default="patch")
    parser.add_argument("--variant", default="ViT-B/32", help="tower or teacher")
    parser.add_argument("--batch", type=int, default=256, help="examples a chip")
    parser.add_argument("--topology", default="v5e:2x2")
    parser.add_argument("--fsdp", type=int, default=1, help="chips that share params")
    parser.add_argument("--remat", choices=REMATS, default="none")
    parser.add_argument("--precision", choices=DTYPES, default="bfloat16")
    parser.add_argument("--grad_dtype", choices=DTYPES, default="float32")
    parser.add_argument("--layers", type=int, default=0, help="cut towers, for trials")
    parser.add_argument("--top", type=int, default=10, help="dearest operations shown")
    parser.add_argument("--record", action="store_true", help="keep the row")
    parser.add_argument("--table", action="store_true", help="write tpu_aot.md")
    parser.add_argument("--measure", action="store_true", help="its changed rows anew")
    args = parser.parse_args()
    if (not args.table or args.measure) and not tpu.has_compiler():
        print("libtpu is not installed: see launch/README.md", file=sys.stderr)
        return 1
    if not args.table:
        step = Step(*(getattr(args, name) for name in Step._fields))
        row = measure(step, args.top)
        if args.record:
            tpu_table.keep(FOLDER / "tpu_aot.jsonl", row, Step._fields)
        print(json.dumps({k: v for k, v in row.items() if k != "top"}))
        return 0
    for step in ROWS if args.measure else ():
        measure_changed(step, FOLDER / "tpu_aot.jsonl", args.top)
    missing = tpu_table.write(FOLDER, [step._asdict() for step in ROWS])
    print(json.dumps({"rows": len(ROWS), "missing": len(missing)}))
    return int(bool(missing))


def measure_changed(step: Step, path: Path, top: int = 10) -> bool:
    """Keeps the step's row unless its program's is kept; whether it was compiled."""
    digest = digest_of(step)
    wanted = step._asdict() | {"program": digest}
    if any(wanted.items() <= row.items() for row in tpu_table.read(path)):
        return False
    tpu_table.keep(path, measure(step, top), Step._fields)
    return True


def digest_of(step: Step) -> str:
    """A digest of the step's program before libtpu compiles it, and of its release."""
    mesh = tpu.make_topology_mesh(step.topology, (-1, step.fsdp))
    program, _ = make_program(step, mesh, variant_of(step))
    return digest_of_program(program, step.batch * mesh.size)


def digest_of_program(program: Program, batch_size: int) -> str:
    text = program.function.lower(*program.arguments(batch_size)).as_text()
    release = importlib.metadata.version("libtpu")
    return hashlib.sha256(f"{release}\n{text}".encode()).hexdigest()[:16]


def measure(step: Step, top: int = 10) -> dict[str, Any]:
    """The row of a step; prints it in words."""
    mesh = tpu.make_topology_mesh(step.topology, (-1, step.fsdp))
    program, flops = make_program(step, mesh, variant_of(step))
    started = time.process_time()
    compiled = program.compile(step.batch * mesh.size)
    took = time.process_time() - started
    text = compiled.as_text()
    row = step._asdict() | {"chips": mesh.size, "compile_s": round(took)}
    row["program"] = digest_of_program(program, step.batch * mesh.size)
    row |= describe(step, compiled, text, flops)
    row["top"] = dearest(text, top)
    print(
        f"{step.stage} {step.variant}, {step.batch} examples a chip, {step.topology}:"
        f" {row['ms']} ms, {row['examples_s_chip']} examples/s a chip, MFU"
        f" {row['mfu']}; arguments {row['arguments_gib']} GiB, temporary"
        f" {row['temp_gib']}; exchanges {row['exchange_mb']} MB; compiled in"
        f" {took:.0f} s of a core"
    )
    for name, share, cycles in row["top"]:
        print(f"  {share:6.1%} {cycles:8.2f} M cycles  {name}")
    return row


def variant_of(step: Step) -> Variant:
    """The step's variant, cut to its layers."""
    variant = get_variant(step.variant)
    if not step.layers:
        return variant
    cut = {"vision_layers": step.layers, "text_layers": step.layers}
    return dataclasses.replace(variant, **cut)


def describe(step: Step, compiled: Any, text: str, flops: float) -> dict[str, Any]:
    """Time, use, memory and exchanges of a compiled step."""
    seconds = tpu.predict_seconds(text, step.topology)
    rate = step.batch / seconds
    memory = memory_of(compiled)
    moved = exchanged_bytes(text)
    return {
        "ms": round(1e3 * seconds, 3),
        "cycles_m": round(seconds * tpu.chip_of(step.topology).clock / 1e6, 2),
        "examples_s_chip": round(rate, 1),
        "mfu": round(rate * flops / tpu.chip_of(step.topology).peak, 4),
        "gflop_example": round(flops / 1e9, 2),
        "arguments_gib": round(memory.arguments / 2**30, 3),
        "temp_gib": round(memory.temporary / 2**30, 3),
        "exchange_mb": {k: round(v / 1e6, 2) for k, v in moved.items()},
    }


# The steps, from the parts that the stages put together


class Parts(NamedTuple):
    """A training step's trees in shapes, its objective, and FLOPs of an example."""

    params: Any
    frozen: Any
    batch: dict[str, jax.ShapeDtypeStruct]
    loss_fn: Objective
    flops: float


def make_program(step: Step, mesh: Mesh, variant: Variant) -> tuple[Program, float]:
    """(the stage's program, model FLOPs of an example)."""
    compute = Compute(step.precision, step.remat, layout=layout_of("tpu"))
    if step.stage == "embed":

        def encode(params, batch):
            return encode_rgb(params, batch["rgb"], variant=variant, compute=compute)

        visual = clip_shapes(variant)["visual"]
        program = make_encoding_program(encode, visual, rgb_of(variant), mesh)
        return program, flops_of_tower(variant)
    make = {"patch": patch_parts, "pretrain": pretrain_parts}
    parts = make.get(step.stage, align_parts)(step, variant, compute, mesh)
    settings = TrainSettings(
        step.batch * mesh.size,
        steps=1000,
        lr=1e-5,
        warmup=20,
        weight_decay=0.01,
        grad_dtype=step.grad_dtype,
    )
    program = make_training_program(
        parts.params,
        parts.frozen,
        parts.batch,
        loss_fn=parts.loss_fn,
        tx=make_tx(settings, parts.params),
        settings=settings,
        mesh=mesh,
    )
    return program, parts.flops


def patch_parts(step: Step, variant: Variant, compute: Compute, mesh: Mesh) -> Parts:
    del step, mesh
    return Parts(
        clip_shapes(variant)["visual"],
        {"head": head_of(variant)},
        rgb_of(variant) | {"label": row_of((), np.int32)},
        objectives.make_patch_loss(image_encoder(variant, compute), "single"),
        3 * flops_of_tower(variant),
    )


def pretrain_parts(step: Step, variant: Variant, compute: Compute, mesh: Mesh) -> Parts:
    del step
    n, encode = variant.context_length, image_encoder(variant, compute)
    loss_fn = objectives.make_contrastive_loss(
        lambda p, b: encode(p["visual"], b),
        lambda p, b: text_features(p["text"], b["text"], variant, compute),
        sharding.make_clip_loss(mesh),
    )
    texts = {"text": row_of((n,), np.int32), "group": row_of((), np.int32)}
    flops = flops_of_tokens(n, variant.text_width, variant.text_layers)
    flops = 3 * (flops + flops_of_tower(variant))
    return Parts(clip_shapes(variant), {}, rgb_of(variant) | texts, loss_fn, flops)


def align_parts(step: Step, variant: Variant, compute: Compute, mesh: Mesh) -> Parts:
    sizes = STUDENT | {"image_size": variant.image_size}
    sizes |= {"layers": step.layers or STUDENT["layers"]}
    spec = vit_spec(get_sensor(SENSOR), out_dim=variant.embed_dim, **sizes)
    side, key = spec.image_size, spec.modality
    batch = {"label": row_of((), np.int32)}
    batch[key] = row_of((side, side, len(spec.bands)), np.float32)
    flops = 3 * flops_of_image(side, spec.patch_size, spec.width, spec.layers)
    teacher, teach = {}, kept_features
    if step.stage == "align":
        teacher, teach = clip_shapes(variant)["visual"], image_encoder(variant, compute)
        batch |= rgb_of(variant)
        flops += flops_of_tower(variant)
    else:
        batch["teacher"] = row_of((variant.embed_dim,), np.float32)
    loss_fn = objectives.make_align_loss(
        lambda p, b: sensor_features(p, b[key], spec, compute),
        teach,
        terms={"mse": 1.0, "labels": 0.05},
        task="single",
        steps=1000,
        contrastive=sharding.make_clip_loss(mesh),
    )
    frozen = {"head": head_of(variant), "teacher": teacher}
    return Parts(sensor_shapes(spec), frozen, batch, loss_fn, flops)


def image_encoder(variant: Variant, compute: Compute) -> objectives.Encode:
    return lambda p, b: image_features(p, b["rgb"], variant, compute)


def kept_features(params: Any, batch: dict[str, Any]) -> jax.Array:
    """The teacher's features, which the batch brings."""
    del params
    return batch["teacher"]


def head_of(variant: Variant) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((variant.embed_dim, CLASSES), np.float32)


def rgb_of(variant: Variant) -> dict[str, jax.ShapeDtypeStruct]:
    return {"rgb": row_of((variant.image_size, variant.image_size, 3), np.uint8)}


def row_of(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
    """One example, as a batch of one."""
    return jax.ShapeDtypeStruct((1, *shape), dtype)


def flops_of_tower(variant: Variant) -> float:
    """Forward FLOPs of a visual tower."""
    v = variant
    return flops_of_image(v.image_size, v.patch_size, v.vision_width, v.vision_layers)


def flops_of_image(side: int, patch: int, width: int, layers: int) -> float:
    """Forward FLOPs of a vision transformer with a class token."""
    return flops_of_tokens((side // patch) ** 2 + 1, width, layers)


def flops_of_tokens(n: int, width: int, layers: int) -> float:
    """Forward FLOPs: dense layers 24 width^2 a token, attention 4 n^2 width."""
    return layers * (24 * n * width**2 + 4 * n**2 * width)


# The compiled text


def dearest(text: str, top: int) -> list[tuple[str, float, float]]:
    """[(operation, share of all cycles, million cycles)]; blocks count as one."""
    groups: collections.Counter[str] = collections.Counter()
    for cycles, line in tpu.costs(text):
        groups[group_of(line)] += cycles
    total = sum(groups.values())
    return [
        (name, round(cycles / total, 4), round(cycles / 1e6, 3))
        for name, cycles in groups.most_common(top)
    ]


def group_of(line: str) -> str:
    """The name of the model's part and operation that an instruction comes from."""
    found = re.search(r'op_name="([^"]*)"', line)
    name = found[1] if found else f"{tpu.opcode_of(line)}, no name"
    name = re.sub(r"blocks_\d+", "blocks", name)
    name = re.sub(r"jit\([\w<>]*\)/|jvp\(\w*\)/?|closed_call/|checkpoint/", "", name)
    return re.sub(r"(Vision|Text)Transformer/?|rematted_computation/", "", name)


def exchanged_bytes(text: str) -> collections.Counter[str]:
    """Bytes that a chip gets by kind of exchange; in a loop they count once."""
    total: collections.Counter[str] = collections.Counter()
    seen = set()
    for line in text.split("\n"):
        channel = re.search(r"channel_id=(\d+)", line)
        if not channel or " = " not in line or channel[1] in seen:
            continue
        kind = tpu.opcode_of(line).removesuffix("-start")
        if kind.startswith(EXCHANGES):
            seen.add(channel[1])
            total[kind] += output_bytes(line)
    return total


def output_bytes(line: str) -> int:
    """Bytes of an instruction's results."""
    left = line.split(" = ", 1)[1]
    left = left[: left.find(tpu.opcode_of(line) + "(")]
    return sum(
        WIDTHS.get(kind, 4) * int(np.prod([int(d) for d in dims.split(",") if d]))
        for kind, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", left)
    )


if __name__ == "__main__":
    sys.exit(main())
