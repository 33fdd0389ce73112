"""The table of tpu_aot: rows kept in a file, and the page that is made of them."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rsclip_jax.train import tpu

Row = dict[str, Any]
# Bytes a second that a port sends one way: half of the "bidirectional inter-chip
# interconnect bandwidth" of cloud.google.com/tpu/docs (400, 800 and 1,200 GB/s a chip)
# over the ports of a chip (4, 4 and 6).
PORT = {"v5e": 50e9, "v6e": 100e9, "v5p": 100e9}
# Chips along an axis from which it closes to a ring.
RING = {"v5e": 16, "v6e": 16, "v5p": 4}
# What a step is to reach: (its stage, variant and chip, at most so many ms or at least
# such a use, what was tried where it does not)
TARGETS = (
    (
        ("patch", "ViT-B/32", "v5e"),
        ("ms", 71),
        "the forms of a block and of patches, scores in bfloat16, in NOTES.md; left is"
        " attention, 3.4 of a block's 9.0 M cycles: 50 keys in 128 lanes, scores"
        " written and read",
    ),
    (
        ("patch", "ViT-B/32", "v6e"),
        ("mfu", 0.22),
        "the form made for v5e alone; v6e has 4.7 times the products a second and twice"
        " the memory's rate, so all that is not a product costs more",
    ),
    (
        ("patch", "ViT-B/16", "v5e"),
        ("ms", 75),
        "the forms in NOTES.md; left are 197 tokens in 256 lanes, scores written and"
        " read between the products",
    ),
    (
        ("patch", "ViT-L/14", "v5e"),
        ("ms", 175),
        "the forms in NOTES.md; left are the activation's derivative and the bias's"
        " gradient in the MLP (12 M cycles above the product that they are in), copies"
        " of 256 of 257 tokens (6 M), the optimizer (17 M, 16 by its bytes)",
    ),
    (
        ("align", "ViT-B/32", "v5e"),
        ("mfu", 0.35),
        "the form for more than 128 tokens, patches by a convolution, GELU without the"
        " error function, input in 16 bits, tokens by images, in NOTES.md; left are the"
        " student's heads of 64 channels in 128 lanes, its 197 tokens in 256, scores"
        " written and read",
    ),
)
HEAD = """# Steps compiled ahead for TPUs

Made by `python -m tests.bench.tpu_aot --table` from the rows in tpu_aot.jsonl; the head
of [tpu_aot.py](tpu_aot.py) says what is counted. No TPU has run these steps. Trials and
their predictions are in [NOTES.md](NOTES.md).

A change shows here by more than 3 % only if it changes the program: the same program
costs the same cycles on every machine.
"""


def keep(path: Path, row: Row, key: Sequence[str]) -> None:
    """Writes the row into the file of rows, in place of the one of the same step."""
    rows = [r for r in read(path) if any(r[name] != row[name] for name in key)]
    rows = sorted([*rows, row], key=lambda r: [str(r[name]) for name in key])
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))


def read(path: Path) -> list[Row]:
    """The rows of the file, none if it is not there."""
    lines = path.read_text().splitlines() if path.exists() else []
    return [json.loads(line) for line in lines]


def write(folder: Path, steps: Sequence[Row]) -> list[Row]:
    """Writes tpu_aot.md of these steps; returns those of which no row is kept."""
    kept = read(folder / "tpu_aot.jsonl")
    found = [
        next((r for r in kept if step.items() <= r.items()), None) for step in steps
    ]
    rows = [row for row in found if row is not None]
    missing = [step for step, row in zip(steps, found, strict=True) if row is None]
    parts = [HEAD, table_of(rows), targets_of(rows), scaling_of(rows), dearest_of(rows)]
    if missing:
        each = (
            f"{name_of(step)}, {step['batch']} examples a chip on {step['topology']}"
            for step in missing
        )
        parts.insert(2, f"Not compiled yet: {'; '.join(each)}.\n")
    (folder / "tpu_aot.md").write_text("\n".join(parts).rstrip() + "\n")
    return missing


def table_of(rows: Sequence[Row]) -> str:
    """One line a step."""
    lines = [
        "| step | examples a chip | chips | ms | examples/s a chip | MFU | arguments +"
        " temporary, GiB | exchanged, MB | bound of that, ms | compiled, CPU s |",
        "|" + "---|" * 10,
    ]
    for r in rows:
        gib = tpu.chip_of(r["topology"]).gib
        memory = f"{r['arguments_gib']:.2f} + {r['temp_gib']:.2f} of {gib:g}"
        cells = [
            name_of(r),
            r["batch"],
            r["topology"],
            f"{r['ms']:.1f}",
            f"{r['examples_s_chip']:,.0f}",
            f"{100 * r['mfu']:.1f} %",
            memory,
            ", ".join(f"{k} {v:,.0f}" for k, v in r["exchange_mb"].items() if v >= 1),
            f"{1e3 * exchange_seconds(r):.1f}",
            r["compile_s"],
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(lines) + "\n"


def targets_of(rows: Sequence[Row]) -> str:
    """Each target with what its step reaches; for a missed one what was tried."""
    lines = ["## Targets", "", "| step | target | reached | tried, and left |"]
    lines.append("|---|---|---|---|")
    for (stage, variant, chip), (unit, bound), tried in TARGETS:
        # of several topologies and options, the plainest row stands first
        row = next(
            (
                r
                for r in rows
                if (r["stage"], r["variant"], r["topology"][:3])
                == (stage, variant, chip)
            ),
            None,
        )
        if row is None:
            continue
        met = row["ms"] <= bound if unit == "ms" else row["mfu"] >= bound
        target = f"{bound} ms" if unit == "ms" else f"{100 * bound:.0f} %"
        reached = f"{row['ms']:.1f} ms, {100 * row['mfu']:.1f} %"
        lines.append(
            f"| {name_of(row)}, {chip} | {target} | {reached}:"
            f" {'met' if met else 'missed'} | {'' if met else tried} |"
        )
    return "\n".join(lines) + "\n"


def name_of(row: Row) -> str:
    """The step in words."""
    extra = [f"fsdp {row['fsdp']}"] if row["fsdp"] > 1 else []
    extra += [row["precision"]] if row["precision"] != "bfloat16" else []
    extra += [f"remat {row['remat']}"] if row["remat"] != "none" else []
    extra += ["gradients in bfloat16"] if row["grad_dtype"] != "float32" else []
    return ", ".join([f"{row['stage']} {row['variant']}", *extra])


def exchange_seconds(row: Mapping[str, Any]) -> float:
    """The least time of a step's exchanges if nothing else runs beside them.

    An all-reduce of V bytes sends 2 V (n - 1) / n from each chip, a gather or scatter
    half of that, at the rate of a corner chip's ports.
    """
    share = (row["chips"] - 1) / row["chips"]
    sent = 0.0
    for kind, megabytes in row["exchange_mb"].items():
        sent += (2 if kind == "all-reduce" else 1) * megabytes * 1e6 * share
    return sent / rate_of(row["topology"])


def rate_of(topology: str) -> float:
    """Bytes a second that a chip in a corner of the topology sends."""
    chip, _, sizes = topology.partition(":")
    along = [int(x) for x in sizes.split("x")]
    ports = sum(0 if n == 1 else 2 if n >= RING[chip] else 1 for n in along)
    return ports * PORT[chip] if ports else math.inf


def scaling_of(rows: Sequence[Row]) -> str:
    """Steps that differ in the number of chips alone, against the fewest."""
    lines = [
        "## From 4 to 256 chips",
        "",
        "The exchanges of a step are bounded by their bytes over the rate at which a"
        " chip in a corner of the slice sends. A port sends 50 GB/s on v5e and 100 on"
        " v6e and v5p: half of a chip's bidirectional bandwidth over its ports, by"
        " cloud.google.com/tpu/docs. An axis of fewer than 16 chips (v5p: 4) is no"
        " ring, and a corner has one port along it, else two. Nothing is taken to"
        " overlap, and hops cost nothing. Efficiency is examples a second and chip over"
        " those of the fewest chips.",
        "",
        "| step | chips | ms | with exchanges | efficiency |",
        "|---|---|---|---|---|",
    ]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        chip = row["topology"].partition(":")[0]
        groups.setdefault(f"{name_of(row)}, {row['batch']} on {chip}", []).append(row)
    for name, group in groups.items():
        if len(group) < 2:
            continue
        times = [r["ms"] + 1e3 * exchange_seconds(r) for r in group]
        for row, whole in zip(group, times, strict=True):
            lines.append(
                f"| {name} | {row['chips']} | {row['ms']:.1f} | {whole:.1f} |"
                f" {100 * times[0] / whole:.1f} % |"
            )
    return "\n".join(lines) + "\n"


def dearest_of(rows: Sequence[Row]) -> str:
    """The dearest operations of each step on the smallest topology."""
    lines = ["## Where the cycles go", ""]
    for row in (r for r in rows if r["chips"] == 4):
        lines += [
            f"{name_of(row)}, {row['topology']}: {row['cycles_m']:.1f} M cycles",
            "",
            "| share | M cycles | operation |",
            "|---|---|---|",
            *(f"| {100 * s:.1f} % | {c:.2f} | {n} |" for n, s, c in row["top"][:10]),
            "",
        ]
    return "\n".join(lines)
