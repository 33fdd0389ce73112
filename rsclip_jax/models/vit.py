"""Transformer blocks, and one vision transformer for CLIP and every sensor."""

import flax.linen as nn
import jax
import jax.numpy as jnp

Features = dict[str, jax.Array]


def quick_gelu(x: jax.Array) -> jax.Array:
    """x * sigmoid(1.702 x), the activation of OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


def gelu(x: jax.Array) -> jax.Array:
    """Exact GELU, torch's default; jax.nn.gelu's default is the tanh approximation."""
    return jax.nn.gelu(x, approximate=False)


ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}


class Attention(nn.Module):
    """Multi-head self-attention with one joint projection for query, key and value."""

    heads: int
    out_std: float

    @nn.compact
    def __call__(
        self, x: jax.Array, tokens: int, mask: jax.Array | None = None
    ) -> jax.Array:
        """Tokens of all images [b * n, width], n per image -> the same shape."""
        width = x.shape[-1]
        depth = width // self.heads
        in_init = nn.initializers.normal(width**-0.5)
        in_proj = nn.Dense(3 * width, kernel_init=in_init, name="in_proj")
        qkv = in_proj(x).reshape(-1, tokens, 3, self.heads, depth)
        q, k, v = qkv.transpose(2, 0, 3, 1, 4)  # each [b, heads, n, depth]
        scores = jnp.einsum("bhqd,bhkd->bhqk", q * depth**-0.5, k)
        if mask is not None:
            scores = jnp.where(mask[None, None], scores, -jnp.inf)
        weights = jax.nn.softmax(scores, axis=-1)
        x = jnp.einsum("bhqk,bhkd->bhqd", weights, v)
        x = x.transpose(0, 2, 1, 3).reshape(-1, width)
        out_init = nn.initializers.normal(self.out_std)
        out = nn.Dense(width, kernel_init=out_init, name="out_proj")
        return out(x)


class Mlp(nn.Module):
    """Two dense layers with mlp_width channels between them."""

    activation: str
    out_std: float
    mlp_width: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        fc_init = nn.initializers.normal((2 * width) ** -0.5)
        out_init = nn.initializers.normal(self.out_std)
        x = nn.Dense(self.mlp_width, kernel_init=fc_init, name="c_fc")(x)
        x = ACTIVATIONS[self.activation](x)
        return nn.Dense(width, kernel_init=out_init, name="c_proj")(x)


class Block(nn.Module):
    """Pre-norm transformer block, as in CLIP and timm.

    Works on [b * n, width]: XLA's CPU backward pass through dense layers is 1.1 to 1.3
    times faster on two dimensions than on three; elsewhere the reshape is free.
    mlp_width: 0 means four times the width. layer_scale: a trained factor per channel
    on the output of each half (Touvron et al. 2021), as in DINOv2.
    """

    heads: int
    activation: str
    eps: float
    out_std: float
    mlp_width: int = 0
    layer_scale: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | None = None) -> jax.Array:
        b, n, width = x.shape
        x = x.reshape(b * n, width)
        y = nn.LayerNorm(self.eps, name="ln_1")(x)
        y = Attention(self.heads, self.out_std, name="attn")(y, n, mask)
        x = x + self._scaled(y, "scale_1")
        y = nn.LayerNorm(self.eps, name="ln_2")(x)
        inside = self.mlp_width or 4 * width
        y = Mlp(self.activation, self.out_std, inside, name="mlp")(y)
        return (x + self._scaled(y, "scale_2")).reshape(b, n, width)

    def _scaled(self, y: jax.Array, name: str) -> jax.Array:
        if not self.layer_scale:
            return y
        init = nn.initializers.constant(1e-5)
        return y * self.param(name, init, (y.shape[-1],))[None]


def run_blocks(
    x: jax.Array,
    *,
    layers: int,
    heads: int,
    activation: str,
    eps: float,
    mlp_width: int = 0,
    layer_scale: bool = False,
    mask: jax.Array | None = None,
) -> tuple[jax.Array, list[jax.Array]]:
    """blocks_0 .. blocks_{layers-1} of the calling module, and every block's output.

    Unrolled: a scan over layers is 1.6 times slower on CPU.
    """
    out_std = x.shape[-1] ** -0.5 * (2 * layers) ** -0.5  # CLIP's initialisation
    outputs = []
    for i in range(layers):
        named = Block(
            heads,
            activation,
            eps,
            out_std,
            mlp_width,
            layer_scale,
            name=f"blocks_{i}",
        )
        x = named(x, mask)
        outputs.append(x)
    return x, outputs


class PatchEmbed(nn.Module):
    """Non-overlapping patches to tokens; the kernel is [patch, patch, bands, width].

    A reshape and one matmul: the equivalent strided convolution is 1.7 times slower in
    XLA's CPU backward pass at ViT-B/32's size.
    """

    patch_size: int
    width: int
    use_bias: bool

    @nn.compact
    def __call__(self, image: jax.Array) -> jax.Array:
        b, h, w, c = image.shape
        p = self.patch_size
        kernel = self.param(
            "kernel",
            nn.initializers.lecun_normal(in_axis=(0, 1, 2)),
            (p, p, c, self.width),
        )
        x = image.astype(jnp.float32).reshape(b, h // p, p, w // p, p, c)
        x = x.transpose(0, 1, 3, 2, 4, 5).reshape(b, (h // p) * (w // p), p * p * c)
        x = x @ kernel.reshape(p * p * c, self.width)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.width,))
            x = x + bias[None, None]
        return x


class VisionTransformer(nn.Module):
    """A vision transformer over any number of bands, mapped to out_dim.

    With ln_pre and without patch_bias and proj_bias it is CLIP's visual tower (Radford
    et al. 2021); with the opposite values it is timm's ViT with a linear map on top.

    pool: "token" takes the class token's output, "mean" the mean over the patches.
    out_dim: 0 returns the pooled features without a map. class_token: whether a class
    token precedes the patches. registers: the number of register tokens, whose outputs
    are unused (Darcet et al. 2024). prefix_positions: whether these tokens have
    position embeddings. patch_offset: pixels of zero padding above and left of the
    image, by which the patch grid is shifted.
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
    layer_scale: bool = False
    patch_offset: int = 0

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
        if k := self.patch_offset:
            image = jnp.pad(image, ((0, 0), (k, 0), (k, 0), (0, 0)))[:, :-k, :-k]
        x = PatchEmbed(
            self.patch_size, self.width, self.patch_bias, name="patch_embed"
        )(image)
        x = self._add_positions(x)
        if self.ln_pre:
            x = nn.LayerNorm(self.eps, name="ln_pre")(x)
        pre = x
        x, blocks = run_blocks(
            x,
            layers=self.layers,
            heads=self.heads,
            activation=self.activation,
            eps=self.eps,
            mlp_width=self.mlp_width,
            layer_scale=self.layer_scale,
        )
        prefix = self.class_token + self.registers
        one = x[:, 0] if self.pool == "token" else x[:, prefix:].mean(axis=1)
        pooled = nn.LayerNorm(self.eps, name="ln_post")(one)
        feats = self._map(pooled) if self.out_dim else pooled
        features = {"pre": pre, "pooled": pooled}
        features |= {f"block_{i}": y for i, y in enumerate(blocks)}
        return feats, features

    def _map(self, pooled: jax.Array) -> jax.Array:
        dense = nn.Dense(
            self.out_dim,
            use_bias=self.proj_bias,
            kernel_init=nn.initializers.normal(self.width**-0.5),
            name="proj",
        )
        return dense(pooled)

    def _add_positions(self, x: jax.Array) -> jax.Array:
        """Patches [b, n, width] -> all tokens, the class token and registers first."""
        init = nn.initializers.normal(self.width**-0.5)
        prefix = []
        if self.class_token:
            prefix.append(self.param("class_embedding", init, (self.width,))[None])
        if self.registers:
            shape = (self.registers, self.width)
            prefix.append(self.param("register_embedding", init, shape))
        first = jnp.concatenate([*prefix, jnp.zeros((0, self.width))])
        n = x.shape[1] + (len(first) if self.prefix_positions else 0)
        positions = self.param("positional_embedding", init, (n, self.width))
        if not self.prefix_positions:
            x = x + positions[None]
        first = jnp.broadcast_to(first, (len(x), *first.shape))
        x = jnp.concatenate([first, x], axis=1)
        return x + positions[None] if self.prefix_positions else x
