"""The toy ResNets once more, in numpy float64, from the papers' description."""

import numpy as np
from numpy_towers import linear, under

EPS = 1e-5


def clip_resnet(w: dict, image: np.ndarray, heads: int) -> dict:
    """CLIP's: every block's output, and fimg."""
    x = image.astype(float)
    for n, stride in ((1, 2), (2, 1), (3, 1)):
        x = relu(norm(w, f"bn{n}", conv(w, f"conv{n}", x, stride)))
    x = mean_pool(x, 2)
    out = {"stem": x, **stages(w, x, antialias=True)}
    x = out[[*out][-1]]
    x = x.reshape(len(x), -1, x.shape[-1])
    x = np.concatenate([x.mean(1, keepdims=True), x], 1)
    return out | {"fimg": attention(under(w, "attnpool."), x, heads)[:, 0]}


def plain_resnet(w: dict, image: np.ndarray) -> dict:
    """torchvision's: every block's output, and their mean at the end."""
    x = relu(norm(w, "bn1", conv(w, "conv1", image.astype(float), 2)))
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    x = windows(x, 3)[:, ::2, ::2].max((-1, -2))
    out = {"stem": x, **stages(w, x, antialias=False)}
    return out | {"pooled": out[[*out][-1]].mean((1, 2))}


def stages(w: dict, x: np.ndarray, *, antialias: bool) -> dict:
    out = {}
    for i in range(1, 5):
        j = 0
        while f"layer{i}.{j}.conv1.weight" in w:
            stride = 2 if i > 1 and j == 0 else 1
            x = bottleneck(under(w, f"layer{i}.{j}."), x, stride, antialias)
            out[f"layer{i}_{j}"] = x
            j += 1
    return out


def bottleneck(w: dict, x: np.ndarray, stride: int, antialias: bool) -> np.ndarray:
    y = relu(norm(w, "bn1", conv(w, "conv1", x)))
    if antialias:
        y = mean_pool(relu(norm(w, "bn2", conv(w, "conv2", y))), stride)
    else:
        y = relu(norm(w, "bn2", conv(w, "conv2", y, stride)))
    y = norm(w, "bn3", conv(w, "conv3", y))
    if "downsample.0.weight" in w:
        x = mean_pool(x, stride) if antialias else x[:, ::stride, ::stride]
        x = norm(w, "downsample.1", conv(w, "downsample.0", x))
    return relu(x + y)


def attention(w: dict, x: np.ndarray, heads: int) -> np.ndarray:
    """Over all of x [b, n, c], though only the first is asked for."""
    x = x + w["positional_embedding"]
    split = (*x.shape[:2], heads, -1)
    q, k, v = (
        linear(w, f"{name}_proj", x).reshape(split).swapaxes(1, 2) for name in "qkv"
    )
    scores = np.exp(q @ k.swapaxes(-1, -2) / np.sqrt(q.shape[-1]))
    scores = scores / scores.sum(-1, keepdims=True)
    return linear(w, "c_proj", (scores @ v).swapaxes(1, 2).reshape(x.shape))


def conv(w: dict, name: str, x: np.ndarray, stride: int = 1) -> np.ndarray:
    """x [b, h, w, c], torch's kernel [out, c, k, k], k // 2 zeros around."""
    kernel = w[f"{name}.weight"].astype(float)
    k = kernel.shape[-1]
    x = np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0)))
    return np.einsum("bhwcij,ocij->bhwo", windows(x, k)[:, ::stride, ::stride], kernel)


def windows(x: np.ndarray, k: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), axis=(1, 2))


def mean_pool(x: np.ndarray, k: int) -> np.ndarray:
    return windows(x, k)[:, ::k, ::k].mean((-1, -2))


def norm(w: dict, name: str, x: np.ndarray) -> np.ndarray:
    part = {k: v.astype(float) for k, v in under(w, f"{name}.").items()}
    x = (x - part["running_mean"]) / np.sqrt(part["running_var"] + EPS)
    return x * part["weight"] + part["bias"]


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)
