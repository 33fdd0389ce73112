"""The steps of steps.py in torch and open_clip; imports neither jax nor this project.

python tests/bench/torch_worker.py PROBLEM.npz {patch,align} {cpu,cuda} {plain,best}

best: bfloat16 by autocast, torch.compile, channels_last, AdamW in one kernel.

Prints "ready", or "missing: ..." where torch or open_clip cannot be imported. Then for
each line of standard input, the number of a batch, one step's seconds and loss; at the
end of input its peak memory in bytes.
"""

import json
import logging
import os
import pathlib
import resource
import sys
import time

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "golden"))
import torchvision_stub

torchvision_stub.install()
try:
    import open_clip
    import torch
    from torch.nn.functional import cross_entropy, mse_loss, normalize
except ImportError as problem:
    print(f"missing: {problem}", flush=True)
    sys.exit()


def main() -> None:
    path, stage, device, how = sys.argv[1:]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    torch.set_float32_matmul_precision("high")  # on a GPU it is jax's default too
    step = Step(dict(np.load(path)), stage, device, best=how == "best")
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        loss = step(int(line))
        print(time.perf_counter() - start, loss, flush=True)
    print(peak_memory(device), flush=True)


class Step:
    """One gradient step on a numbered batch of the problem."""

    def __init__(
        self, arrays: dict[str, np.ndarray], stage: str, device: str, *, best: bool
    ):
        self.device, self.arrays, self.best = device, arrays, best
        self.student = "rgb" if stage == "patch" else "s1"
        self.head = self.put("head")
        self.model = self.tower("params").train()
        self.teacher = None if stage == "patch" else self.tower("teacher").eval()
        params = list(self.model.parameters())
        matrices = [p for p in params if p.ndim > 1]
        others = [p for p in params if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": matrices}, {"params": others, "weight_decay": 0.0}],
            lr=float(arrays["lr"]),
            weight_decay=float(arrays["weight_decay"]),
            fused=best,
        )
        self.forward = torch.compile(self.loss) if best else self.loss

    def put(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name]).to(self.device)

    def tower(self, name: str) -> torch.nn.Module:
        """open_clip's visual tower with the problem's weights, over their bands."""
        logging.disable(logging.WARNING)  # it warns that nothing was pretrained
        config = json.loads(str(self.arrays["vision"]))
        text = {"width": 64, "heads": 1, "layers": 1}  # is not used
        quick = bool(self.arrays["quick_gelu"])
        dim = config.pop("embed_dim")
        tower = open_clip.CLIP(dim, config, text, quick_gelu=quick).visual
        prefix = f"{name}/visual."
        weights = {
            n.removeprefix(prefix): torch.from_numpy(a)
            for n, a in self.arrays.items()
            if n.startswith(prefix)
        }
        width, bands, *patch = weights["conv1.weight"].shape
        tower.conv1 = torch.nn.Conv2d(bands, width, patch, patch, bias=False)
        tower.load_state_dict(weights)
        tower = tower.to(self.device)
        return tower.to(memory_format=torch.channels_last) if self.best else tower

    def __call__(self, i: int) -> float:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.best):
            loss = self.forward(*self.inputs(i))
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def inputs(self, i: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The student's images, those of RGB, and labels of a batch."""
        images = self.put(f"{i}/{self.student}")
        return images, self.put(f"{i}/rgb"), self.put(f"{i}/label").long()

    def loss(self, images, rgb, label) -> torch.Tensor:
        features = self.model(self.pixels(images, self.student))
        logits = normalize(features.float()) @ self.head
        label = cross_entropy(logits, label)
        if self.teacher is None:
            return label
        with torch.no_grad():
            target = self.teacher(self.pixels(rgb, "rgb"))
        return mse_loss(features, target) + 0.05 * label

    def pixels(self, x: torch.Tensor, key: str) -> torch.Tensor:
        """Normalised [b, c, h, w], as the tower's own preprocessing has it."""
        x = x.float()
        x = (x - self.put(f"{key}_mean")) / self.put(f"{key}_std")
        if key == "s1":
            limit = float(self.arrays["s1_limit"])
            x = x.clamp(-limit, limit)
        return x.permute(0, 3, 1, 2)


def peak_memory(device: str) -> int:
    """Bytes: the accelerator's where there is one, else the process's."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
