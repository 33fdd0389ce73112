"""The CLIP architectures by name, with everything that weight files do not store."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from rsclip_jax.data.pipeline.fitting import AS_CLIP, Fit, Resize
from rsclip_jax.data.tokenizer_files import TokenizerFile
from rsclip_jax.io.lookup import look_up
from rsclip_jax.models.activations import ACTIVATIONS

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
FAMILIES = ("clip", "siglip")
HEAD_WIDTH = 64  # channels of a head: all of OpenAI's, and open_clip's default


def attention_width(width: int, layers: int | Sequence[int]) -> int:
    """Channels of a visual tower's attention: for a ResNet, 32 times its stem's."""
    return width if isinstance(layers, int) else 32 * width


def with_tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    """The dict with its lists, as JSON has them, turned into tuples."""
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}


@dataclasses.dataclass(frozen=True)
class Variant:
    """Sizes, activation and preprocessing of one CLIP.

    family: "clip", or "siglip" (Zhai et al. 2023, arXiv 2303.15343; SigLIP 2, arXiv
    2502.14786): an image tower without class token, pooled by attention and not mapped
    further, so embed_dim is its width; a text tower that is not causal, pooled at the
    last position and mapped with a bias; a bias beside the temperature.
    activation: "quick_gelu" (x * sigmoid(1.702 x), OpenAI's), "gelu" (exact) or
    "gelu_tanh". Most weight files do not store it; the wrong one of the first two
    causes about 7 % relative error. text_activation: the text tower's, if it differs.
    vision_mlp_width, text_mlp_width: 0 means four times the width. vision_layers: the
    number of transformer blocks, or a ResNet's blocks in each of its four stages. A
    ResNet's patch_size is 32: one position of its last grid covers 32 x 32 pixels.
    resize: how images are made square. end_token: the id at whose first place
    CLIP's text tower is pooled; -1 is the largest of a text. tokenizer: the file that
    texts are tokenized by; None is CLIP's own tokenizer.
    """

    name: str
    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int | tuple[int, ...]
    vision_heads: int
    text_width: int
    text_layers: int
    text_heads: int
    activation: str
    context_length: int = 77
    vocab_size: int = 49408
    layer_norm_eps: float = 1e-5
    image_mean: tuple[float, float, float] = CLIP_MEAN
    image_std: tuple[float, float, float] = CLIP_STD
    vision_mlp_width: int = 0
    resize: Resize = AS_CLIP
    family: str = "clip"
    text_activation: str = ""
    text_mlp_width: int = 0
    end_token: int = -1
    tokenizer: TokenizerFile | None = None

    def __post_init__(self):
        if self.family not in FAMILIES:
            raise ValueError(
                f"variant {self.name}: family {self.family!r} is not known; use"
                f" {' or '.join(FAMILIES)}"
            )
        for activation in (self.activation, self.text_activation or self.activation):
            if activation not in ACTIVATIONS:
                raise ValueError(
                    f"variant {self.name}: activation {activation!r} is not known; use"
                    f" {', '.join(map(repr, ACTIVATIONS))}"
                )
        layers = self.vision_layers
        if isinstance(layers, tuple) and (len(layers), self.patch_size) != (4, 32):
            raise ValueError(
                f"variant {self.name}: a ResNet has 4 stages and patch_size 32, not"
                f" vision_layers {layers} and patch_size {self.patch_size}"
            )
        # SigLIP's convolution leaves out what is no whole patch (384 pixels by 14)
        if self.family == "clip" and self.image_size % self.patch_size:
            raise ValueError(
                f"variant {self.name}: image_size {self.image_size} is not a multiple"
                f" of patch_size {self.patch_size}"
            )

    @property
    def vision_head_width(self) -> int:
        """Channels of one attention head of the visual tower."""
        width = attention_width(self.vision_width, self.vision_layers)
        return width // self.vision_heads

    @property
    def fit(self) -> Fit:
        """How images are fitted to the visual tower's input."""
        return Fit(self.image_size, self.resize)

    def at_size(self, image_size: int) -> "Variant":
        """The variant for images of another size, cut with as large a margin."""
        side = round(self.resize.side * image_size / self.image_size)
        resize = dataclasses.replace(self.resize, side=side)
        return dataclasses.replace(self, image_size=image_size, resize=resize)

    @property
    def has_class_token(self) -> bool:
        """Whether a class token precedes the patches of the visual tower."""
        return self.family == "clip"

    @classmethod
    def from_json(cls, values: Mapping) -> "Variant":
        resize = Resize(**values.get("resize", {}))
        told = values.get("tokenizer")
        tokenizer = TokenizerFile.from_json(told) if told else None
        built = {"resize": resize, "tokenizer": tokenizer}
        return cls(**{**with_tuples(values), **built})


def _vit_b(name: str, patch_size: int, activation: str) -> Variant:
    return Variant(name, 512, 224, patch_size, 768, 12, 12, 512, 12, 8, activation)


def _vit_h(name: str, activation: str) -> Variant:
    return Variant(name, 1024, 224, 14, 1280, 32, 16, 1024, 24, 16, activation)


def _vit_g(name: str, activation: str) -> Variant:
    sizes = (1024, 224, 14, 1408, 40, 16, 1024, 24, 16)
    return Variant(name, *sizes, activation, vision_mlp_width=6144)


def _vit_bigg(name: str, activation: str) -> Variant:
    sizes = (1280, 224, 14, 1664, 48, 16, 1280, 32, 20)
    return Variant(name, *sizes, activation, vision_mlp_width=8192)


def _vit_l(name: str, image_size: int, activation: str) -> Variant:
    return Variant(name, 768, image_size, 14, 1024, 24, 16, 768, 12, 12, activation)


def _resnets(suffix: str, activation: str) -> list[Variant]:
    """OpenAI's five ResNets; heads are 64 wide in both towers."""
    sizes = (  # image size, width, layers, embedding, text width
        ("RN50", 224, 64, (3, 4, 6, 3), 1024, 512),
        ("RN101", 224, 64, (3, 4, 23, 3), 512, 512),
        ("RN50x4", 288, 80, (4, 6, 10, 6), 640, 640),
        ("RN50x16", 384, 96, (6, 8, 18, 8), 768, 768),
        ("RN50x64", 448, 128, (3, 15, 36, 10), 1024, 1024),
    )
    variants = []
    for name, image, width, layers, embed, text in sizes:
        vision = (width, layers, attention_width(width, layers) // 64)
        told = (embed, image, 32, *vision, text, 12, text // 64)
        variants.append(Variant(name + suffix, *told, activation))
    return variants


# OpenAI's names ("ViT-B/32") mean QuickGELU. open_clip's names ("ViT-B-32") mean exact
# GELU, and its suffix "-quickgelu" means OpenAI's activation: we keep both conventions.
# A ResNet has one name in both: "RN50" is OpenAI's here, with QuickGELU in the text
# tower, and "RN50-gelu" is open_clip's "RN50".
_VARIANTS = (
    _vit_b("ViT-B/32", 32, "quick_gelu"),
    _vit_b("ViT-B/16", 16, "quick_gelu"),
    _vit_l("ViT-L/14", 224, "quick_gelu"),
    _vit_l("ViT-L/14@336px", 336, "quick_gelu"),
    _vit_b("ViT-B-32", 32, "gelu"),
    _vit_b("ViT-B-16", 16, "gelu"),
    _vit_l("ViT-L-14", 224, "gelu"),
    _vit_l("ViT-L-14-336", 336, "gelu"),
    _vit_b("ViT-B-32-quickgelu", 32, "quick_gelu"),
    _vit_b("ViT-B-16-quickgelu", 16, "quick_gelu"),
    _vit_l("ViT-L-14-quickgelu", 224, "quick_gelu"),
    _vit_l("ViT-L-14-336-quickgelu", 336, "quick_gelu"),
    _vit_h("ViT-H-14", "gelu"),
    _vit_h("ViT-H-14-quickgelu", "quick_gelu"),
    _vit_g("ViT-g-14", "gelu"),
    _vit_bigg("ViT-bigG-14", "gelu"),
    _vit_bigg("ViT-bigG-14-quickgelu", "quick_gelu"),
    *_resnets("", "quick_gelu"),
    *_resnets("-quickgelu", "quick_gelu"),
    *_resnets("-gelu", "gelu"),
    # Small enough to train on two CPU cores: "mini" in a minute, "small" in a quarter
    # of an hour.
    Variant("mini", 64, 32, 8, 96, 3, 3, 64, 2, 2, "quick_gelu", context_length=24),
    Variant("small", 128, 64, 8, 128, 4, 4, 128, 2, 4, "quick_gelu", context_length=24),
)
VARIANTS: dict[str, Variant] = {variant.name: variant for variant in _VARIANTS}


def get_variant(variant: str | Variant) -> Variant:
    """The variant of that name; a Variant is returned as it is.

    Raises ValueError for an unknown name, with the nearest and the list.
    """
    if isinstance(variant, Variant):
        return variant
    return look_up(VARIANTS, variant, "variant")
