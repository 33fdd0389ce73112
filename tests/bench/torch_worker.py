"""The steps of steps.py in torch and open_clip; imports neither jax nor this project.

python tests/bench/torch_worker.py PROBLEM.npz {patch,align} {cpu,cuda}

Prints "ready", or "missing: ..." where torch or open_clip cannot be imported. Then for
each line of standard input, the number of a batch, one step's seconds and loss; at the
end of input its peak memory in bytes.
"""

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
    path, stage, device = sys.argv[1:]
    torch.set_num_threads(os.cpu_count() or 1)
    torch.set_float32_matmul_precision("high")  # on a GPU it is jax's default too
    step = Step(dict(np.load(path)), stage, device)
    print("ready", flush=True)
    for line in sys.stdin:
        start = time.perf_counter()
        loss = step(int(line))
        print(time.perf_counter() - start, loss, flush=True)
    print(peak_memory(device), flush=True)


class Step:
    """One gradient step on a numbered batch of the problem."""

    def __init__(self, arrays: dict[str, np.ndarray], stage: str, device: str):
        self.device, self.arrays = device, arrays
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
        )

    def put(self, name: str) -> torch.Tensor:
        return torch.from_numpy(self.arrays[name]).to(self.device)

    def tower(self, name: str) -> torch.nn.Module:
        """open_clip's visual tower with the problem's weights, over their bands."""
        logging.disable(logging.WARNING)  # it warns that nothing was pretrained
        tower = open_clip.create_model("ViT-B-32-quickgelu", pretrained=None).visual
        prefix = f"{name}/visual."
        weights = {
            n.removeprefix(prefix): torch.from_numpy(a)
            for n, a in self.arrays.items()
            if n.startswith(prefix)
        }
        width, bands, *patch = weights["conv1.weight"].shape
        tower.conv1 = torch.nn.Conv2d(bands, width, patch, patch, bias=False)
        tower.load_state_dict(weights)
        return tower.to(self.device)

    def __call__(self, i: int) -> float:
        loss = self.loss(i)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        if self.device == "cuda":
            torch.cuda.synchronize()
        return loss.item()

    def loss(self, i: int) -> torch.Tensor:
        features = self.model(self.pixels(i, self.student))
        logits = normalize(features) @ self.head
        label = cross_entropy(logits, self.put(f"{i}/label").long())
        if self.teacher is None:
            return label
        with torch.no_grad():
            target = self.teacher(self.pixels(i, "rgb"))
        return mse_loss(features, target) + 0.05 * label

    def pixels(self, i: int, key: str) -> torch.Tensor:
        """Normalised [b, c, h, w], as the tower's own preprocessing has it."""
        x = self.put(f"{i}/{key}").float()
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
