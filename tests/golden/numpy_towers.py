"""The toy towers once more, in numpy float64, from the papers' equations."""

import math

import numpy as np

QUICK_GELU, GELU = "quick_gelu", "gelu"
CLIP_EPS, TIMM_EPS = 1e-5, 1e-6
HEADS = 2


def check(got: dict, want: dict) -> None:
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    for name, array in got.items():
        assert array.shape == want[name].shape, (name, array.shape, want[name].shape)
        np.testing.assert_allclose(
            array.detach().numpy(), want[name], rtol=0, atol=1e-10, err_msg=name
        )


def check_gradient(forward, weights, name, probe, grad) -> None:
    """Compares with central differences along eight random directions.

    forward: weights -> output; grad: torch's, of (output * probe).sum().
    """

    def loss(value: np.ndarray) -> float:
        return (forward(weights | {name: value}) * probe).sum()

    value, rng = weights[name].astype(float), np.random.default_rng(0)
    h = 1e-7  # small, so that few ReLUs turn over
    for _ in range(8):
        step = rng.standard_normal(value.shape)
        want = (loss(value + h * step) - loss(value - h * step)) / (2 * h)
        got = (grad.numpy() * step).sum()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5, err_msg=name)


def clip_reference(weights, image, text, activation) -> dict:
    out = clip_visual(under(weights, "visual."), image, activation)
    scale = weights["logit_scale"].astype(float)
    out |= {"logit_scale": scale, "t": np.exp(scale)}
    return units(out | clip_text(weights, text, activation))


def units(out: dict) -> dict:
    """With zimg and ztxt, which are fimg and ftxt at unit length."""
    for f, z in (("fimg", "zimg"), ("ftxt", "ztxt")):
        out[z] = out[f] / np.sqrt((out[f] ** 2).sum(-1, keepdims=True))
    return out


def clip_text(weights, text, activation) -> dict:
    out = {}
    x = weights["token_embedding.weight"].astype(float)[text]
    x = x + weights["positional_embedding"]
    n = text.shape[1]
    future = np.where(np.arange(n) > np.arange(n)[:, None], -np.inf, 0.0)
    for i in range(2):
        x = clip_block(weights, i, x, activation, future)
        out[f"text_block_{i}"] = x
    x = layer_norm(weights, "ln_final", x, CLIP_EPS)
    ends = x[np.arange(len(x)), text.argmax(-1)]
    return out | {"ftxt": ends @ weights["text_projection"]}


def clip_visual(weights, image, activation) -> dict:
    x = patches(image, weights["conv1.weight"])
    first = np.tile(weights["class_embedding"], (len(x), 1, 1))
    x = np.concatenate([first, x], 1) + weights["positional_embedding"]
    x = layer_norm(weights, "ln_pre", x, CLIP_EPS)
    out = {"visual_pre": x}
    for i in range(2):
        x = clip_block(weights, i, x, activation)
        out[f"visual_block_{i}"] = x
    x = layer_norm(weights, "ln_post", x[:, 0], CLIP_EPS)
    return out | {"fimg": x @ weights["proj"]}


def clip_block(weights, i, x, activation, mask=0.0) -> np.ndarray:
    w = under(weights, f"transformer.resblocks.{i}.")
    act = quick_gelu if activation == QUICK_GELU else gelu
    qkv = w["attn.in_proj_weight"], w["attn.in_proj_bias"]
    norms, layers = ("ln_1", "ln_2"), ("attn.out_proj", "mlp.c_fc", "mlp.c_proj")
    return block(w, x, qkv, norms, layers, act, CLIP_EPS, mask)


def timm_reference(weights, image) -> dict:
    x = patches(image, weights["patch_embed.proj.weight"])
    x = x + weights["patch_embed.proj.bias"]
    first = np.tile(weights["cls_token"], (len(x), 1, 1))
    x = np.concatenate([first, x], 1) + weights["pos_embed"]
    out = {"pre": x}
    for i in range(2):
        w = under(weights, f"blocks.{i}.")
        qkv = w["attn.qkv.weight"], w["attn.qkv.bias"]
        norms, layers = ("norm1", "norm2"), ("attn.proj", "mlp.fc1", "mlp.fc2")
        x = block(w, x, qkv, norms, layers, gelu, TIMM_EPS, mask=0.0)
        out[f"block_{i}"] = x
    return out | {"pooled": layer_norm(weights, "norm", x[:, 0], TIMM_EPS)}


def block(w, x, qkv, norms, layers, act, eps, mask) -> np.ndarray:
    """Pre-norm transformer block over x [b, n, width]."""
    (weight, bias), (norm1, norm2), (proj, fc1, fc2) = qkv, norms, layers
    b, n, width = x.shape
    y = layer_norm(w, norm1, x, eps) @ weight.T + bias
    q, k, v = y.reshape(b, n, 3, HEADS, width // HEADS).transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(width // HEADS) + mask
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    scores = scores / scores.sum(-1, keepdims=True)
    x = x + linear(w, proj, (scores @ v).transpose(0, 2, 1, 3).reshape(b, n, width))
    y = act(linear(w, fc1, layer_norm(w, norm2, x, eps)))
    return x + linear(w, fc2, y)


def patches(image, kernel) -> np.ndarray:
    """[b, h, w, c] and torch kernel [width, c, p, p] -> [b, n, width], row by row."""
    b, h, w, c = image.shape
    p = kernel.shape[-1]
    x = image.astype(float).reshape(b, h // p, p, w // p, p, c)
    return np.einsum("bipjqc,ocpq->bijo", x, kernel).reshape(b, -1, len(kernel))


def layer_norm(w, name, x, eps) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    variance = (centred**2).mean(-1, keepdims=True)
    return centred / np.sqrt(variance + eps) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(w, name, x) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def quick_gelu(x) -> np.ndarray:
    return x / (1 + np.exp(-1.702 * x))


def gelu(x) -> np.ndarray:
    return x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))) / 2


def under(weights, prefix: str) -> dict:
    named = (name for name in weights if name.startswith(prefix))
    return {name.removeprefix(prefix): weights[name] for name in named}
