"""CLIP (Radford et al. 2021, arXiv 2103.00020): two towers and a temperature.

SigLIP (Zhai et al. 2023, arXiv 2303.15343) is another family of the same shape.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from rsclip_jax.losses import dot, normalize
from rsclip_jax.models.compute import FLOAT32, Compute
from rsclip_jax.models.resnet import ModifiedResNet
from rsclip_jax.models.variants import Variant, get_variant
from rsclip_jax.models.vit import Features, VisionTransformer, run_blocks
from rsclip_jax.train.sharding import make_on


def make_visual(
    variant: str | Variant,
    *,
    compute: Compute = FLOAT32,
    name: str | None = None,
) -> VisionTransformer | ModifiedResNet:
    """The visual tower of a variant: apply(...) -> (fimg [b, d], block features)."""
    v = get_variant(variant)
    if isinstance(v.vision_layers, tuple):
        return ModifiedResNet(
            image_size=v.image_size,
            width=v.vision_width,
            layers=v.vision_layers,
            heads=v.vision_heads,
            out_dim=v.embed_dim,
            compute=compute,
            name=name,
        )
    return VisionTransformer(
        image_size=v.image_size,
        patch_size=v.patch_size,
        bands=3,
        width=v.vision_width,
        layers=v.vision_layers,
        heads=v.vision_heads,
        activation=v.activation,
        eps=v.layer_norm_eps,
        mlp_width=v.vision_mlp_width,
        compute=compute,
        name=name,
        **tower_fields(v),
    )


def tower_fields(v: Variant) -> dict[str, Any]:
    """The fields of VisionTransformer in which a visual tower is its family's."""
    if v.family == "siglip":
        return {
            "out_dim": 0,
            "ln_pre": False,
            "patch_bias": True,
            "proj_bias": False,
            "class_token": False,
            "pool": "map",
        }
    plain = {"ln_pre": True, "patch_bias": False, "proj_bias": False}
    return {"out_dim": v.embed_dim, **plain}


class TextTransformer(nn.Module):
    """The text tower, pooled and projected.

    CLIP's is causal and pooled at the end token; SigLIP's sees all tokens, is pooled at
    the last position, and its projection has a bias.
    """

    variant: Variant
    compute: Compute = FLOAT32

    @nn.compact
    def __call__(self, text: jax.Array) -> tuple[jax.Array, Features]:
        """Token ids [b, n] -> features [b, d] and per-block ones."""
        v = self.variant
        n, is_clip = text.shape[1], v.family == "clip"
        embed = nn.Embed(
            v.vocab_size,
            v.text_width,
            embedding_init=nn.initializers.normal(0.02),
            name="token_embedding",
        )
        positions = self.param(
            "positional_embedding",
            nn.initializers.normal(0.01),
            (v.context_length, v.text_width),
        )
        # Causal: what follows the end token is padding, and free to cut.
        x = embed(text) + positions[None, :n]
        x, blocks = run_blocks(
            self,
            x,
            layers=v.text_layers,
            compute=self.compute,
            heads=v.text_heads,
            activation=v.text_activation or v.activation,
            eps=v.layer_norm_eps,
            mlp_width=v.text_mlp_width,
            causal=is_clip,
        )
        x = nn.LayerNorm(v.layer_norm_eps, name="ln_final")(x)
        pooled = x[:, -1]
        if is_clip:
            ends = text if v.end_token < 0 else text == v.end_token
            last = jnp.argmax(ends, axis=-1)
            pooled = jnp.take_along_axis(x, last[:, None, None], axis=1)[:, 0]
        init = nn.initializers.normal(v.text_width**-0.5)
        projection = self.param("text_projection", init, (v.text_width, v.embed_dim))
        feats = dot(pooled, projection)
        if not is_clip:
            zeros = nn.initializers.zeros
            feats = feats + self.param("text_bias", zeros, (v.embed_dim,))[None]
        return feats, {f"block_{i}": y for i, y in enumerate(blocks)}


class CLIP(nn.Module):
    """apply({"params": params}, image, text) -> (zimg, ztxt, out).

    image [b, h, w, 3] normalised with the variant's mean and std, text [b, n] token
    ids; either may be None. zimg, ztxt [b, d] have unit norm; out holds fimg and ftxt
    (before normalisation), logit_scale (log), SigLIP's logit_bias, and every block's
    output.
    """

    variant: str | Variant
    compute: Compute = FLOAT32

    def setup(self):
        v = get_variant(self.variant)
        self.visual = make_visual(v, compute=self.compute)
        self.text = TextTransformer(v, self.compute)
        scale, bias = (10.0, -10.0) if v.family == "siglip" else (1 / 0.07, None)
        constant = nn.initializers.constant
        self.logit_scale = self.param("logit_scale", constant(np.log(scale)), ())
        if bias is not None:
            self.logit_bias = self.param("logit_bias", constant(bias), ())

    def __call__(self, image: jax.Array | None, text: jax.Array | None):
        zimg, ztxt, out = None, None, {"logit_scale": self.logit_scale}
        if get_variant(self.variant).family == "siglip":
            out["logit_bias"] = self.logit_bias
        if image is not None:
            out["fimg"], features = self.visual(image)
            out |= {f"visual_{k}": v for k, v in features.items()}
            zimg = normalize(out["fimg"])
        if text is not None:
            out["ftxt"], features = self.text(text)
            out |= {f"text_{k}": v for k, v in features.items()}
            ztxt = normalize(out["ftxt"])
        return zimg, ztxt, out


def init_clip(variant: str | Variant, rng: jax.Array, mesh: Mesh | None = None) -> dict:
    """Random params of a variant, as a plain nested dict.

    mesh: makes each device's part on it, by sharding.param_shardings.
    """
    v = get_variant(variant)

    def init(rng):
        image = jnp.zeros((1, v.image_size, v.image_size, 3))
        text = jnp.zeros((1, v.context_length), jnp.int32)
        return CLIP(v).init(rng, image, text)["params"]

    return make_on(mesh, init, rng)


def clip_shapes(variant: str | Variant, bands: int = 3) -> dict:
    """The shapes of a variant's params (ShapeDtypeStructs), without computing any.

    bands: what the visual tower takes instead of RGB, if it is a ViT.
    """
    shapes = jax.eval_shape(lambda rng: init_clip(variant, rng), jax.random.key(0))
    if bands == 3:
        return shapes
    kernel = shapes["visual"]["patch_embed"]["kernel"]
    size, _, _, width = kernel.shape
    kernel = jax.ShapeDtypeStruct((size, size, bands, width), kernel.dtype)
    return {**shapes, "visual": {**shapes["visual"], "patch_embed": {"kernel": kernel}}}


def tower_params(params: dict, with_text: bool) -> dict:
    """The visual tower's params; with_text, the text tower's too, as one more key."""
    return {**params["visual"], **({"text": params["text"]} if with_text else {})}


def visual_params(towers: dict) -> dict:
    """The visual tower's part of tower_params."""
    return {name: tree for name, tree in towers.items() if name != "text"}


def put_towers(params: dict, towers: dict) -> dict:
    """A CLIP's params with the towers of tower_params in place of its own."""
    text = {name: tree for name, tree in towers.items() if name == "text"}
    return {**params, "visual": visual_params(towers), **text}


def normalize_rgb(rgb: jax.Array, variant: str | Variant) -> jax.Array:
    """uint8 [b, h, w, 3] -> float32 normalised with the variant's mean and std."""
    v = get_variant(variant)
    mean = jnp.asarray(v.image_mean)[None, None, None]
    std = jnp.asarray(v.image_std)[None, None, None]
    return (rgb.astype(jnp.float32) / 255 - mean) / std


def image_features(
    visual_params: dict, rgb: jax.Array, variant: Variant, compute: Compute = FLOAT32
) -> jax.Array:
    """fimg [b, d] of raw uint8 RGB [b, h, w, 3], float32."""
    image = normalize_rgb(rgb, variant)
    tower = make_visual(variant, compute=compute)
    return tower.apply({"params": visual_params}, image)[0]


def text_features(
    text_params: dict, text: jax.Array, variant: Variant, compute: Compute = FLOAT32
) -> jax.Array:
    """ftxt [b, d] of token ids [b, n], float32."""
    return TextTransformer(variant, compute).apply({"params": text_params}, text)[0]
