"""An NVIDIA GPU's figures by one command, beside torch's best.

python -m tests.bench.gpu [--parts steps,embedded,epoch,search] [--steps 20]
    [--variants ViT-B/32,ViT-B/16,ViT-L/14] [--batches 64,256,1024] [--tiny]

steps: the bfloat16 step of stage patch beside open_clip's tower in bfloat16 by
autocast, torch.compile, channels_last and AdamW in one kernel, from the same weights on
the same batches; each side alone on the GPU. embedded: all stages of
configs/align_sar.py. epoch: stage align on files, and its input_wait. search: 1,000,000
embeddings. RSCLIP_TORCH_PYTHON names the Python that has torch, where it is another.

Without a GPU it ends with an error. --tiny runs each part in small on a CPU, which
proves the script and measures nothing.
"""

import argparse
import dataclasses
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import jax
import numpy as np
import tifffile

from rsclip_jax.models.clip import CLIP
from rsclip_jax.models.compute import Compute
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.train import host_memory
from rsclip_jax.weights import save_clip
from tests.bench import steps as bench
from tests.bench.timing import machine, timed

PARTS = ("steps", "embedded", "epoch", "search")
# Peak of dense bfloat16 products, FLOP/s, by a word of the device's name.
PEAKS = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
# The aims, over torch: examples a second, memory; and MFU of ViT-L/14.
RATE, MEMORY, MFU = 1.15, 0.9, 0.5


@dataclasses.dataclass(frozen=True)
class Side:
    """Examples a second, bytes at the peak, and the losses of the steps."""

    rate: float
    peak: int
    losses: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--variants", default="ViT-B/32,ViT-B/16,ViT-L/14")
    parser.add_argument("--batches", default="64,256,1024")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--records", type=int, default=16_384, help="of the epoch")
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--ours", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.tiny:
        host_memory.use_huge_pages()
        args.variants, args.batches, args.steps, args.records = "mini", "8", 2, 32
    elif jax.default_backend() != "gpu":
        found = jax.devices()[0].device_kind
        sys.exit(
            f"error: this benchmark needs an NVIDIA GPU, and jax finds {found!r}:"
            ' install "jax[cuda13]" on a machine that has one, or give --tiny to try'
            " the script on this one"
        )
    if args.ours:
        print(json.dumps(dataclasses.asdict(our_side(args))))
        return
    print(f"{machine()}; {jax.devices()[0].device_kind}; jax {jax.__version__}")
    for part in args.parts.split(","):
        print(f"\n{part}", flush=True)
        {"steps": steps, "embedded": embedded, "epoch": epoch, "search": search}[part](
            args
        )


def steps(args: argparse.Namespace) -> None:
    """A line for each variant and batch: both sides, their ratios, and our MFU."""
    print(f"aims: rate >= {RATE}, memory <= {MEMORY} of torch's, MFU of L/14 >= {MFU}")
    for variant in args.variants.split(","):
        for batch in map(int, args.batches.split(",")):
            with tempfile.TemporaryDirectory() as folder:
                print(step_line(args, variant, batch, Path(folder)), flush=True)


def step_line(args: argparse.Namespace, name: str, batch: int, folder: Path) -> str:
    ours = run_ours(args, name, batch, folder)
    theirs = run_torch(args, batch, folder / "problem.npz")
    text = f"{name}, batch {batch}:"
    if isinstance(ours, str):
        return f"{text} {ours}"
    text += f" {ours.rate:,.0f} examples/s, {bench.mib(ours.peak)}"
    if peak := find_peak(jax.devices()[0].device_kind):
        mfu = ours.rate * step_flops(get_variant(name)) / peak
        text += f", MFU {100 * mfu:.1f} %"
    if isinstance(theirs, str):
        return f"{text}; torch: {theirs}"
    apart = max(abs(a - b) for a, b in zip(ours.losses, theirs.losses, strict=True))
    return (
        f"{text}; torch {theirs.rate:,.0f}, {bench.mib(theirs.peak)}: rate"
        f" {ours.rate / theirs.rate:.2f}, memory {ours.peak / theirs.peak:.2f}, losses"
        f" within {apart:.0e}"
    )


def run_ours(
    args: argparse.Namespace, variant: str, batch: int, folder: Path
) -> Side | str:
    """Our side in a process of its own, which leaves the problem in the folder."""
    command = ["--ours", str(folder), "--variants", variant, "--batches", str(batch)]
    command += ["--steps", str(args.steps), *(["--tiny"] if args.tiny else [])]
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.gpu", *command],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        if "RESOURCE_EXHAUSTED" in done.stderr:
            return "does not fit"
        raise RuntimeError(done.stderr)
    return Side(**json.loads(done.stdout.splitlines()[-1]))


def our_side(args: argparse.Namespace) -> Side:
    """Saves the problem for torch, then times our step as the product compiles it."""
    batch, compute = int(args.batches), Compute(dtype="bfloat16")
    problem = bench.make_problem("patch", batch, args.variants, compute)
    path = Path(args.ours) / "problem.npz"
    np.savez(path, **bench.torch_arrays(problem))
    side = bench.JaxSide(problem)
    seconds = [side.step() for _ in range(bench.WARMUP + args.steps)][bench.WARMUP :]
    return Side(
        batch / statistics.median(seconds), bench.peak_memory(), list(side.losses)
    )


def run_torch(args: argparse.Namespace, batch: int, path: Path) -> Side | str:
    """torch's side; why there is none, in words."""
    device = "cpu" if args.tiny else "cuda"
    worker = bench.Worker("torch_worker.py", str(path), "patch", device, "best")
    if worker.missing:
        return worker.missing
    seconds, losses = [], []
    for i in range(bench.WARMUP + args.steps):
        if not (answer := worker.ask(str(i % bench.BATCHES))):
            return "ended early, such as for lack of memory; its error is above"
        one, loss = map(float, answer.split())
        seconds.append(one)
        losses.append(loss)
    rate = batch / statistics.median(seconds[bench.WARMUP :])
    return Side(rate, int(worker.stop()), losses)


def find_peak(kind: str) -> float:
    """The device's peak in bfloat16, FLOP/s; 0 if it is not known."""
    return next((peak for name, peak in PEAKS.items() if name in kind), 0.0)


def step_flops(variant: Variant) -> float:
    """FLOPs of an image's forward and backward pass in the visual tower's products."""
    side = variant.image_size // variant.patch_size
    n, width = side**2 + 1, variant.vision_width
    block = 24 * n * width**2 + 4 * n**2 * width
    embed = 2 * side**2 * 3 * variant.patch_size**2 * width
    # the patches' gradient is not needed
    return 3 * variant.vision_layers * block + 2 * embed


def run_product(*arguments: str) -> float:
    """Seconds of a run of the product, which fails loudly."""
    command = [sys.executable, "-m", "rsclip_jax.main", *arguments]
    return timed(lambda: subprocess.run(command, check=True, stdout=sys.stderr))


def embedded(args: argparse.Namespace) -> None:
    few = [f"--config.{s}.steps=2" for s in ("pretrain", "patch", "align")]
    with tempfile.TemporaryDirectory() as folder:
        workdir = f"--workdir={folder}/run"
        config = "--config=configs/align_sar.py"
        seconds = run_product(config, workdir, *(few if args.tiny else []))
    print(f"all four stages with the start: {seconds:.0f} s")


def epoch(args: argparse.Namespace) -> None:
    """Stage align for an epoch of files: a JPEG and a radar tif a scene."""
    name = "mini" if args.tiny else "ViT-B/32"
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        make_pairs(root, args.records)
        save_random_clip(root / "clip.safetensors", name)
        batch = min(256, args.records // 4)
        seconds = run_product(
            "--config=configs/align.py", f"--config.data={root}/pairs.toml",
            f"--config.init={root}/clip.safetensors", f"--config.variant={name}",
            f"--workdir={root}/run", "--config.stages=('align',)",
            "--config.data.threads=16", f"--config.align.batch_size={batch}",
            f"--config.align.steps={args.records // batch}",
            "--config.align.test=()", "--config.align.log_every=1",
            "--config.align.warmup=1",
        )  # fmt: skip
        lines = (root / "run/align/metrics.jsonl").read_text().splitlines()
    curve = [json.loads(line) for line in lines][1:]  # the first one compiles
    waits = [line["input_wait"] for line in curve]
    rates = [line["examples_per_second"] for line in curve]
    print(
        f"{args.records} scenes in {seconds:.0f} s with the start, median"
        f" {statistics.median(rates):,.0f} examples/s; input_wait"
        f" {statistics.mean(waits):.3f} (aim: < 0.05)"
    )


def make_pairs(root: Path, records: int) -> None:
    """pairs.toml: scenes of noise, a JPEG and a tif of 64 pixels each."""
    rng, rows = np.random.default_rng(0), ["rgb,s1,label,split"]
    (root / "files").mkdir()
    for i in range(records):
        rgb, s1 = f"files/{i}.jpg", f"files/{i}.tif"
        cv2.imwrite(str(root / rgb), rng.integers(0, 256, (64, 64, 3), np.uint8))
        radar = rng.normal(-15, 5, (64, 64, 2)).astype(np.float32)
        tifffile.imwrite(
            root / s1, radar, photometric="minisblack", planarconfig="contig"
        )
        rows.append(f"{rgb},{s1},{('lake', 'forest')[i % 2]},train")
    (root / "pairs.csv").write_text("\n".join(rows))
    (root / "pairs.toml").write_text(
        'reader = "csv"\ntable = "pairs.csv"\n[sensors]\nrgb = "rgb"\ns1 = "s1_grd"\n'
        '[columns]\nrgb = "rgb"\ns1 = "s1"\nlabel = "label"\nsplit = "split"\n'
    )


def save_random_clip(path: Path, name: str) -> None:
    variant = get_variant(name)
    image = np.zeros((1, variant.image_size, variant.image_size, 3), np.float32)
    text = np.zeros((1, variant.context_length), np.int32)
    init = jax.jit(CLIP(variant).init)
    save_clip(path, variant, init(jax.random.key(0), image, text)["params"])


def search(args: argparse.Namespace) -> None:
    few = ["--rows", "2000", "--queries", "64", "--numpy", "16"]
    command = [sys.executable, "-m", "tests.bench.retrieval"]
    command += few if args.tiny else ["--queries", "65536"]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
