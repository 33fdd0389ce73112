"""What every golden of a torch model needs: random weights, hooks, files."""

import math
import pathlib
import sys

import numpy as np
import safetensors.numpy
import torch

FOLDER = pathlib.Path(
    sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent
)

# What the first LayerNorm sees has a variance of 1e-3: an eps of 1e-5 is not 1e-6.
SMALL = (
    *("embedding", "embedding.weight", "pos_embed", "cls_token", "reg_token"),
    "patch_embed.proj.bias",
)
PATCHES = (
    *("visual.conv1.weight", "patch_embed.proj.weight"),
    "vision_model.embeddings.patch_embedding.weight",
)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def as_nchw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(0, 3, 1, 2)).double()


def randomise(
    model: torch.nn.Module, rng: np.random.Generator, dtype: type = np.float32
) -> dict:
    """Gives every parameter a value no initialiser gives; float64 model, eval mode.

    The values are of dtype, exactly: weights of half precision make half a file.
    """
    weights = {}
    for name, old in model.state_dict().items():
        if name.endswith("num_batches_tracked"):
            weights[name] = old.numpy()
            continue
        noise = rng.standard_normal(tuple(old.shape))
        if name == "logit_scale":
            new = math.log(1 / 0.07) + 0.3 * noise
        elif name in PATCHES and old.shape[-1] > 3:  # not a ResNet's first convolution
            new = 0.02 * noise / math.sqrt(math.prod(old.shape[1:]))
        elif name.endswith(SMALL):
            new = 0.02 * noise
        elif old.ndim == 1:  # scales of norms and every bias
            new = name.endswith("weight") + 0.3 * noise
        else:  # what a layer gives shall be as large as what it takes
            inputs_first = name.endswith(("proj", "projection"))
            inputs = old.shape[:1] if inputs_first else old.shape[1:]
            new = noise / math.sqrt(math.prod(inputs))
        weights[name] = np.asarray(new, dtype)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    model.double().eval()
    return weights


def record(module: torch.nn.Module, name: str, seen: dict) -> None:
    """seen[name] becomes what the module gives; pictures as [b, h, w, c]."""

    def hook(_module, _inputs, out):
        seen[name] = out.permute(0, 2, 3, 1) if out.ndim == 4 else out

    module.register_forward_hook(hook)


def save(name: str, weights: dict, arrays: dict) -> None:
    file = FOLDER / f"{name}.safetensors"
    file.write_bytes(safetensors.numpy.save(weights))
    for key, value in arrays.items():
        if isinstance(value, torch.Tensor):
            arrays[key] = value.detach().numpy().astype(np.float32)
    np.savez(FOLDER / f"{name}_out.npz", **arrays)
