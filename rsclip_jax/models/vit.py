"""Transformer blocks, and one vision transformer for CLIP and every sensor."""

import re
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rsclip_jax.models import tiles
from rsclip_jax.models.activations import ACTIVATIONS
from rsclip_jax.models.block_fields import BlockFields
from rsclip_jax.models.compute import (
    FLOAT32,
    Compute,
    Dense,
    check_attention,
)
from rsclip_jax.models.patches import PatchEmbed
from rsclip_jax.models.rope import Rope

Features = dict[str, jax.Array]


def attend(
    q: jax.Array, k: jax.Array, v: jax.Array, *, causal: bool, compute: Compute
) -> jax.Array:
    """softmax(q k^T / sqrt(depth)) v of [b, n, heads, depth]; softmax in float32."""
    backend = jax.default_backend()
    check_attention(compute, backend)
    if backend == "cpu":
        # forward and backward of jax.nn.dot_product_attention take 1.2 to 1.4 times as
        # long, at the sizes of "mini" and of ViT-B/32
        return _attend_by_einsums(q, k, v, causal=causal, compute=compute)
    how: Literal["cudnn", "xla"] = "cudnn" if compute.attention == "cudnn" else "xla"
    with jax.default_matmul_precision(compute.precision.name.lower()):
        return jax.nn.dot_product_attention(
            q, k, v, is_causal=causal, implementation=how
        )


def _attend_by_einsums(q, k, v, *, causal: bool, compute: Compute) -> jax.Array:
    n, depth = q.shape[1], q.shape[-1]
    q, k, v = (x.transpose(0, 2, 1, 3) for x in (q, k, v))
    scores = jnp.einsum(
        "bhqd,bhkd->bhqk",
        q * depth**-0.5,
        k,
        precision=compute.precision,
        preferred_element_type=jnp.float32,
    )
    if causal:
        mask = jnp.tril(jnp.ones((n, n), bool))
        scores = jnp.where(mask[None, None], scores, -jnp.inf)
    weights = compute.cast(jax.nn.softmax(scores, axis=-1))
    x = jnp.einsum("bhqk,bhkd->bhqd", weights, v, precision=compute.precision)
    return x.transpose(0, 2, 1, 3)


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection for query, key and value.

    causal: a token attends to itself and those before it. rope: turns queries and keys.
    """

    heads: int
    out_std: float
    causal: bool = False
    rope: Rope | None = None
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array, tokens: int) -> jax.Array:
        """Tokens of all images [b * n, width], n per image -> the same shape."""
        width = x.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        in_proj = Dense(3 * width, init, compute=self.compute, name="in_proj")
        qkv = in_proj(x).reshape(-1, tokens, 3, self.heads, width // self.heads)
        q, k, v = (qkv[:, :, i] for i in range(3))  # each [b, n, heads, depth]
        if self.rope:
            q, k = self.rope.turn(q), self.rope.turn(k)
        x = attend(q, k, v, causal=self.causal, compute=self.compute)
        init = nn.initializers.normal(self.out_std)
        out = Dense(width, init, compute=self.compute, name="out_proj")
        return out(x.reshape(-1, width))


class Mlp(nn.Module):
    """Two dense layers with mlp_width channels between them.

    gated: the first layer gives a gate and a value of mlp_width channels each, and
    silu(gate) * value is between them, whatever the activation.
    """

    activation: str
    out_std: float
    mlp_width: int
    gated: bool = False
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        init = nn.initializers.normal((2 * width) ** -0.5)
        inside = self.mlp_width * (2 if self.gated else 1)
        x = Dense(inside, init, compute=self.compute, name="c_fc")(x)
        if self.gated:
            gate, value = jnp.split(x, 2, axis=-1)
            x = jax.nn.silu(gate) * value
        else:
            x = ACTIVATIONS[self.activation](x)
        init = nn.initializers.normal(self.out_std)
        return Dense(width, init, compute=self.compute, name="c_proj")(x)


class Block(BlockFields):
    """Pre-norm transformer block, as in CLIP and timm.

    Works on [b * n, width]: XLA's CPU backward pass through dense layers is 1.1 to 1.3
    times faster on two dimensions than on three; elsewhere the reshape is free.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        b, n, width = x.shape
        x = x.reshape(b * n, width)
        c = self.compute
        y = nn.LayerNorm(self.eps, name="ln_1")(x)
        attend = Attention(
            self.heads, self.out_std, self.causal, self.rope, c, name="attn"
        )
        y = attend(y, n)
        x = x + self.scaled(y, "scale_1")
        y = nn.LayerNorm(self.eps, name="ln_2")(x)
        inside = self.mlp_width or 4 * width
        mlp = Mlp(self.activation, self.out_std, inside, self.gated, c, name="mlp")
        y = mlp(y)
        return (x + self.scaled(y, "scale_2")).reshape(b, n, width)


def run_blocks(
    parent: nn.Module,
    x: jax.Array,
    *,
    layers: int,
    compute: Compute,
    **sizes: Any,
) -> tuple[jax.Array, list[jax.Array]]:
    """blocks_0 .. blocks_{layers-1} of the parent module, and every block's output.

    sizes: Block's fields. Unrolled unless compute.scan: a scan over layers is 1.6 times
    slower on CPU.
    """
    x = compute.cast(x)
    out_std = x.shape[-1] ** -0.5 * (2 * layers) ** -0.5  # CLIP's initialisation
    sizes |= {"out_std": out_std, "compute": compute}
    plain = not (sizes.get("rope") or sizes.get("gated"))  # tiles has no form of these
    kind = tiles.Block if compute.layout == "tiles" and plain else Block
    if compute.scan and not parent.is_initializing():  # the loop needs the params
        return _scan_blocks(parent.variables["params"], x, kind(**sizes, parent=None))
    make, outputs = compute.recomputed(kind), []
    for i in range(layers):
        x = make(**sizes, name=f"blocks_{i}")(x)
        outputs.append(x)
    return x, outputs


def _scan_blocks(params: Mapping, x: jax.Array, block: nn.Module):
    """run_blocks as one loop; the params are stacked inside the program."""

    def body(x, layer):
        y = block.apply({"params": layer}, x)
        return y, y

    stacked = stack_blocks(params)["blocks"]
    x, outputs = jax.lax.scan(block.compute.recomputed(body), x, stacked)
    return x, list(outputs)


def stack_blocks(tower: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer's params with "blocks" [layers, ...] in place of blocks_0, ...

    Numpy arrays stay numpy arrays. unstack_blocks is the inverse, bit for bit.
    """
    names = [name for name in tower if re.fullmatch(r"blocks_\d+", name)]
    blocks = [tower[f"blocks_{i}"] for i in range(len(names))]

    def stack(*leaves):
        return (np if isinstance(leaves[0], np.ndarray) else jnp).stack(leaves)

    rest = {name: leaf for name, leaf in tower.items() if name not in names}
    return {**rest, "blocks": jax.tree.map(stack, *blocks)}


def unstack_blocks(tower: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer's params with blocks_0, ... in place of "blocks" [layers, ...]."""
    rest = {name: leaf for name, leaf in tower.items() if name != "blocks"}
    layers = len(jax.tree.leaves(tower["blocks"])[0])
    for i in range(layers):
        rest[f"blocks_{i}"] = jax.tree.map(lambda x, i=i: x[i], tower["blocks"])
    return rest


class AttentionPool(nn.Module):
    """One learned query's attention over the patches, and an MLP (SigLIP's "MAP").

    In float32, as all that follows the blocks: it is one row an image.
    """

    heads: int
    activation: str
    eps: float
    mlp_width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Patches [b, n, width] -> [b, width]."""
        b, _, width = x.shape
        std = width**-0.5
        init = nn.initializers.normal(std)
        probe = self.param("probe", init, (width,))
        kernel, bias = _InProj(width, name="in_proj")()
        q = FLOAT32.dot(probe[None], kernel[:, :width]) + bias[None, :width]
        kv = FLOAT32.dot(x, kernel[:, width:]) + bias[None, None, width:]
        depth = width // self.heads
        q = jnp.broadcast_to(q, (b, width)).reshape(b, 1, self.heads, depth)
        k, v = (part.reshape(b, -1, self.heads, depth) for part in jnp.split(kv, 2, -1))
        y = attend(q, k, v, causal=False, compute=FLOAT32).reshape(b, width)
        y = Dense(width, init, name="out_proj")(y)
        mlp = Mlp(self.activation, std, self.mlp_width, name="mlp")
        return y + mlp(nn.LayerNorm(self.eps, name="ln")(y))


class _InProj(nn.Module):
    """The joint kernel and bias of query, key and value, as files hold them."""

    width: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        init = nn.initializers.normal(self.width**-0.5)
        kernel = self.param("kernel", init, (self.width, 3 * self.width))
        return kernel, self.param("bias", nn.initializers.zeros, (3 * self.width,))


class VisionTransformer(nn.Module):
    """A vision transformer over any number of bands, mapped to out_dim.

    With ln_pre and without patch_bias and proj_bias it is CLIP's visual tower (Radford
    et al. 2021); with the opposite values it is timm's ViT with a linear map on top.

    pool: "token" takes the class token's output, "mean" the mean over the patches,
    "normed_mean" the mean over the patches after LayerNorm, "map" an attention head
    over the patches after LayerNorm (SigLIP).
    out_dim: 0 returns the pooled features without a map. class_token: whether a class
    token precedes the patches. registers: the number of register tokens, whose outputs
    are unused (Darcet et al. 2024). prefix_positions: whether these tokens have
    position embeddings. rope: the base of a rotary embedding in place of position
    embeddings; 0 for none. gated: the MLPs are SwiGLUs. patch_offset: pixels of zero
    padding above and left of the image, by which the patch grid is shifted.
    """

    image_size: int
    patch_size: int
    bands: int
    width: int
    layers: int
    heads: int
    out_dim: int
    activation: str
    eps: float
    ln_pre: bool
    patch_bias: bool
    proj_bias: bool
    mlp_width: int = 0
    pool: str = "token"
    class_token: bool = True
    registers: int = 0
    prefix_positions: bool = True
    rope: float = 0.0
    gated: bool = False
    layer_scale: bool = False
    patch_offset: int = 0
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, Features]:
        """Normalised image [b, h, w, bands] -> features [b, out_dim], per-block ones.

        Raises ValueError if the image is not image_size x image_size x bands.
        """
        want = (self.image_size, self.image_size, self.bands)
        if image.shape[1:] != want:
            raise ValueError(
                f"this encoder takes images of [h, w, bands] = {want}, got"
                f" {image.shape[1:]}: resize the image or select its bands first"
            )
        whole = self.image_size // self.patch_size * self.patch_size
        image = image[:, :whole, :whole]  # as an unpadded convolution leaves them out
        if k := self.patch_offset:
            image = jnp.pad(image, ((0, 0), (k, 0), (k, 0), (0, 0)))[:, :-k, :-k]
        embed = PatchEmbed(
            self.patch_size,
            self.width,
            self.patch_bias,
            self.compute,
            name="patch_embed",
        )
        x = self._add_positions(embed(image))
        if self.ln_pre:
            x = nn.LayerNorm(self.eps, name="ln_pre")(x)
        pre = x
        x, blocks = run_blocks(
            self,
            x,
            layers=self.layers,
            compute=self.compute,
            heads=self.heads,
            activation=self.activation,
            eps=self.eps,
            mlp_width=self.mlp_width,
            gated=self.gated,
            layer_scale=self.layer_scale,
            rope=self._rope(),
        )
        pooled = self._pool(x)
        feats = self._map(pooled) if self.out_dim else pooled
        features = {"pre": pre, "pooled": pooled}
        features |= {f"block_{i}": y for i, y in enumerate(blocks)}
        return feats, features

    @property
    def _prefix(self) -> int:
        return self.class_token + self.registers

    def _rope(self) -> Rope | None:
        if not self.rope:
            return None
        return Rope(self.rope, self.image_size // self.patch_size, self._prefix)

    def _pool(self, x: jax.Array) -> jax.Array:
        norm = nn.LayerNorm(self.eps, name="ln_post")
        if self.pool == "token":
            return norm(x[:, 0].astype(jnp.float32))
        patches = x[:, self._prefix :].astype(jnp.float32)
        if self.pool == "normed_mean":
            return norm(patches).mean(axis=1)
        if self.pool == "map":
            inside = self.mlp_width or 4 * self.width
            sizes = self.heads, self.activation, self.eps, inside
            return AttentionPool(*sizes, name="pool")(norm(patches))
        return norm(patches.mean(axis=1))

    def _map(self, pooled: jax.Array) -> jax.Array:
        init = nn.initializers.normal(self.width**-0.5)
        # in float32 always: one row an image, and the features' last rounding
        return Dense(self.out_dim, init, self.proj_bias, name="proj")(pooled)

    def _add_positions(self, x: jax.Array) -> jax.Array:
        """Patches [b, n, width] -> all tokens, the class token and registers first."""
        init = nn.initializers.normal(self.width**-0.5)
        prefix = []
        if self.class_token:
            prefix.append(self.param("class_embedding", init, (self.width,))[None])
        if self.registers:
            shape = (self.registers, self.width)
            prefix.append(self.param("register_embedding", init, shape))
        n = x.shape[1] + (self._prefix if self.prefix_positions else 0)
        if not self.rope:
            positions = self.param("positional_embedding", init, (n, self.width))
            if not (self.prefix_positions and prefix):
                x = x + positions[None]
        if not prefix:
            return x
        first = jnp.concatenate(prefix)
        first = jnp.broadcast_to(first, (x.shape[0], *first.shape))
        x = jnp.concatenate([first, x], axis=1)
        return x if self.rope or not self.prefix_positions else x + positions[None]
