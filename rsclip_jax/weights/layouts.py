"""The rule table of each layout: OpenAI's and open_clip's, Hugging Face's, timm's."""

from collections.abc import Iterable

from rsclip_jax.io.texts import first_of
from rsclip_jax.weights.rules import Rule, block_rules
from rsclip_jax.weights.wrappers import shared_prefix

_OPEN_CLIP_BLOCK = {
    "ln_1/scale": "ln_1.weight",
    "ln_1/bias": "ln_1.bias",
    "attn/in_proj/kernel": "attn.in_proj_weight",
    "attn/in_proj/bias": "attn.in_proj_bias",
    "attn/out_proj/kernel": "attn.out_proj.weight",
    "attn/out_proj/bias": "attn.out_proj.bias",
    "ln_2/scale": "ln_2.weight",
    "ln_2/bias": "ln_2.bias",
    "mlp/c_fc/kernel": "mlp.c_fc.weight",
    "mlp/c_fc/bias": "mlp.c_fc.bias",
    "mlp/c_proj/kernel": "mlp.c_proj.weight",
    "mlp/c_proj/bias": "mlp.c_proj.bias",
}

_OPEN_CLIP_TEXT: list[Rule] = [
    ("logit_scale", "logit_scale", "same"),
    ("token_embedding.weight", "text/token_embedding/embedding", "same"),
    ("positional_embedding", "text/positional_embedding", "same"),
    ("ln_final.weight", "text/ln_final/scale", "same"),
    ("ln_final.bias", "text/ln_final/bias", "same"),
    ("text_projection", "text/text_projection", "same"),
    *block_rules("transformer.resblocks", "text/blocks", _OPEN_CLIP_BLOCK),
]
OPEN_CLIP: list[Rule] = [
    *_OPEN_CLIP_TEXT,
    ("visual.class_embedding", "visual/class_embedding", "same"),
    ("visual.positional_embedding", "visual/positional_embedding", "same"),
    ("visual.conv1.weight", "visual/patch_embed/kernel", "conv"),
    ("visual.ln_pre.weight", "visual/ln_pre/scale", "same"),
    ("visual.ln_pre.bias", "visual/ln_pre/bias", "same"),
    ("visual.ln_post.weight", "visual/ln_post/scale", "same"),
    ("visual.ln_post.bias", "visual/ln_post/bias", "same"),
    ("visual.proj", "visual/proj/kernel", "same"),  # stored [in, out] already
    *block_rules("visual.transformer.resblocks", "visual/blocks", _OPEN_CLIP_BLOCK),
]


def _conv_norm(theirs: str, ours: str, n: str) -> list[Rule]:
    """conv<n> and bn<n>, where n may be "{i}"."""
    return [
        (f"{theirs}conv{n}.weight", f"{ours}conv{n}/kernel", "conv"),
        *_norm(f"{theirs}bn{n}", f"{ours}bn{n}"),
    ]


def _norm(theirs: str, ours: str) -> list[Rule]:
    names = {
        "weight": "scale",
        "bias": "bias",
        "running_mean": "mean",
        "running_var": "var",
    }
    return [(f"{theirs}.{t}", f"{ours}/{o}", "same") for t, o in names.items()]


def _stages(theirs: str, ours: str) -> list[Rule]:
    """The four stages, named alike in CLIP's ResNet and torchvision's."""
    theirs, ours = f"{theirs}layer{{i}}.{{j}}.", f"{ours}layer{{i}}_{{j}}/"
    shortcut = f"{theirs}downsample.0.weight", f"{ours}downsample_conv/kernel", "conv"
    return [
        *(rule for n in "123" for rule in _conv_norm(theirs, ours, n)),
        shortcut,
        *_norm(f"{theirs}downsample.1", f"{ours}downsample_bn"),
    ]


OPEN_CLIP_RESNET: list[Rule] = [
    *_OPEN_CLIP_TEXT,
    *_conv_norm("visual.", "visual/", "{i}"),
    *_stages("visual.", "visual/"),
    (
        "visual.attnpool.positional_embedding",
        "visual/attnpool/positional_embedding",
        "same",
    ),
    *(
        (f"visual.attnpool.{x}_proj.{t}", f"visual/attnpool/{x}_proj/{o}", how)
        for x in "qkvc"
        for t, o, how in (("weight", "kernel", "dense"), ("bias", "bias", "same"))
    ),
]
# The number of batches behind the statistics: nothing reads it, but torch expects it.
BATCHES = "num_batches_tracked"
# Buffers and sizes in some files that are not weights.
OPEN_CLIP_IGNORE = (
    "attn_mask",
    "input_resolution",
    "context_length",
    "vocab_size",
    rf"visual\..*\.{BATCHES}",
)

_HF_BLOCK = {
    "ln_1/scale": "layer_norm1.weight",
    "ln_1/bias": "layer_norm1.bias",
    "attn/in_proj/kernel[0/3]": "self_attn.q_proj.weight",
    "attn/in_proj/kernel[1/3]": "self_attn.k_proj.weight",
    "attn/in_proj/kernel[2/3]": "self_attn.v_proj.weight",
    "attn/in_proj/bias[0/3]": "self_attn.q_proj.bias",
    "attn/in_proj/bias[1/3]": "self_attn.k_proj.bias",
    "attn/in_proj/bias[2/3]": "self_attn.v_proj.bias",
    "attn/out_proj/kernel": "self_attn.out_proj.weight",
    "attn/out_proj/bias": "self_attn.out_proj.bias",
    "ln_2/scale": "layer_norm2.weight",
    "ln_2/bias": "layer_norm2.bias",
    "mlp/c_fc/kernel": "mlp.fc1.weight",
    "mlp/c_fc/bias": "mlp.fc1.bias",
    "mlp/c_proj/kernel": "mlp.fc2.weight",
    "mlp/c_proj/bias": "mlp.fc2.bias",
}
_HF_VISUAL, _HF_TEXT = "vision_model", "text_model"

HF_CLIP: list[Rule] = [
    ("logit_scale", "logit_scale", "same"),
    (f"{_HF_VISUAL}.embeddings.class_embedding", "visual/class_embedding", "same"),
    (
        f"{_HF_VISUAL}.embeddings.position_embedding.weight",
        "visual/positional_embedding",
        "same",
    ),
    (
        f"{_HF_VISUAL}.embeddings.patch_embedding.weight",
        "visual/patch_embed/kernel",
        "conv",
    ),
    (f"{_HF_VISUAL}.pre_layrnorm.weight", "visual/ln_pre/scale", "same"),  # sic
    (f"{_HF_VISUAL}.pre_layrnorm.bias", "visual/ln_pre/bias", "same"),
    (f"{_HF_VISUAL}.post_layernorm.weight", "visual/ln_post/scale", "same"),
    (f"{_HF_VISUAL}.post_layernorm.bias", "visual/ln_post/bias", "same"),
    ("visual_projection.weight", "visual/proj/kernel", "dense"),
    (
        f"{_HF_TEXT}.embeddings.token_embedding.weight",
        "text/token_embedding/embedding",
        "same",
    ),
    (
        f"{_HF_TEXT}.embeddings.position_embedding.weight",
        "text/positional_embedding",
        "same",
    ),
    (f"{_HF_TEXT}.final_layer_norm.weight", "text/ln_final/scale", "same"),
    (f"{_HF_TEXT}.final_layer_norm.bias", "text/ln_final/bias", "same"),
    ("text_projection.weight", "text/text_projection", "dense"),
    *block_rules(f"{_HF_VISUAL}.encoder.layers", "visual/blocks", _HF_BLOCK),
    *block_rules(f"{_HF_TEXT}.encoder.layers", "text/blocks", _HF_BLOCK),
]
# Buffers of older versions: 0, 1, 2, ...
HF_IGNORE = (r"(text|vision)_model\.embeddings\.position_ids",)

HF_SIGLIP: list[Rule] = [
    ("logit_scale", "logit_scale", "one"),
    ("logit_bias", "logit_bias", "one"),
    *(
        (f"{_HF_VISUAL}.{theirs}", f"visual/{ours}", how)
        for theirs, ours, how in (
            ("embeddings.position_embedding.weight", "positional_embedding", "same"),
            ("embeddings.patch_embedding.weight", "patch_embed/kernel", "conv"),
            ("embeddings.patch_embedding.bias", "patch_embed/bias", "same"),
            ("post_layernorm.weight", "ln_post/scale", "same"),
            ("post_layernorm.bias", "ln_post/bias", "same"),
            ("head.probe", "pool/probe", "token"),
            ("head.attention.in_proj_weight", "pool/in_proj/kernel", "dense"),
            ("head.attention.in_proj_bias", "pool/in_proj/bias", "same"),
            ("head.attention.out_proj.weight", "pool/out_proj/kernel", "dense"),
            ("head.attention.out_proj.bias", "pool/out_proj/bias", "same"),
            ("head.layernorm.weight", "pool/ln/scale", "same"),
            ("head.layernorm.bias", "pool/ln/bias", "same"),
            ("head.mlp.fc1.weight", "pool/mlp/c_fc/kernel", "dense"),
            ("head.mlp.fc1.bias", "pool/mlp/c_fc/bias", "same"),
            ("head.mlp.fc2.weight", "pool/mlp/c_proj/kernel", "dense"),
            ("head.mlp.fc2.bias", "pool/mlp/c_proj/bias", "same"),
        )
    ),
    *(
        rule
        for rule in HF_CLIP
        if rule[0].startswith((f"{_HF_TEXT}.", f"{_HF_VISUAL}.encoder"))
    ),
    (f"{_HF_TEXT}.head.weight", "text/text_projection", "dense"),
    (f"{_HF_TEXT}.head.bias", "text/text_bias", "same"),
]

_TIMM_BLOCK = {
    "ln_1/scale": "norm1.weight",
    "ln_1/bias": "norm1.bias",
    "attn/in_proj/kernel": "attn.qkv.weight",
    "attn/in_proj/bias": "attn.qkv.bias",
    "attn/out_proj/kernel": "attn.proj.weight",
    "attn/out_proj/bias": "attn.proj.bias",
    "ln_2/scale": "norm2.weight",
    "ln_2/bias": "norm2.bias",
    "mlp/c_fc/kernel": "mlp.fc1.weight",
    "mlp/c_fc/bias": "mlp.fc1.bias",
    "mlp/c_proj/kernel": "mlp.fc2.weight",
    "mlp/c_proj/bias": "mlp.fc2.bias",
    "scale_1": "ls1.gamma",
    "scale_2": "ls2.gamma",
}


_TIMM_POOL = (
    ("latent", "probe", "token"),
    ("q.weight", "in_proj/kernel[0/3]", "dense"),
    ("q.bias", "in_proj/bias[0/3]", "same"),
    ("kv.weight", "in_proj/kernel[1-3/3]", "dense"),
    ("kv.bias", "in_proj/bias[1-3/3]", "same"),
    ("proj.weight", "out_proj/kernel", "dense"),
    ("proj.bias", "out_proj/bias", "same"),
    ("norm.weight", "ln/scale", "same"),
    ("norm.bias", "ln/bias", "same"),
    ("mlp.fc1.weight", "mlp/c_fc/kernel", "dense"),
    ("mlp.fc1.bias", "mlp/c_fc/bias", "same"),
    ("mlp.fc2.weight", "mlp/c_proj/kernel", "dense"),
    ("mlp.fc2.bias", "mlp/c_proj/bias", "same"),
)


def timm_vit(norm: str = "norm") -> list[Rule]:
    """timm's ViT; norm: "fc_norm" if it follows the mean over patches."""
    return [
        ("cls_token", "class_embedding", "token"),
        ("reg_token", "register_embedding", "tokens"),
        ("pos_embed", "positional_embedding", "tokens"),
        ("patch_embed.proj.weight", "patch_embed/kernel", "conv"),
        ("patch_embed.proj.bias", "patch_embed/bias", "same"),
        ("norm_pre.weight", "ln_pre/scale", "same"),
        ("norm_pre.bias", "ln_pre/bias", "same"),
        (f"{norm}.weight", "ln_post/scale", "same"),
        (f"{norm}.bias", "ln_post/bias", "same"),
        ("head.weight", "proj/kernel", "dense"),
        ("head.bias", "proj/bias", "same"),
        *block_rules("blocks", "blocks", _TIMM_BLOCK),
        *((f"attn_pool.{t}", f"pool/{ours}", how) for t, ours, how in _TIMM_POOL),
    ]


_TRUNK = "visual.trunk."
# open_clip's SigLIP: timm's ViT with an attention head, and open_clip's text tower.
OPEN_CLIP_SIGLIP: list[Rule] = [
    *(rule for rule in _OPEN_CLIP_TEXT if rule[1] != "text/text_projection"),
    ("logit_bias", "logit_bias", "same"),
    ("text_projection.weight", "text/text_projection", "dense"),
    ("text_projection.bias", "text/text_bias", "same"),
    *((_TRUNK + theirs, f"visual/{ours}", how) for theirs, ours, how in timm_vit()),
]

# Parts of the pretraining task: MAE's decoder, and a classifier or projector, which the
# linear map to CLIP's width replaces.
TIMM_HEAD = r"head\..*"
TIMM_IGNORE = (TIMM_HEAD, r"fc\..*", r"decoder_.*", r"mask_token")

# torchvision, timm, torchgeo and MoCo v2 name a ResNet's tensors alike.
TORCHVISION_RESNET: list[Rule] = [
    *_conv_norm("", "", "1"),
    *_stages("", ""),
    ("fc.weight", "proj/kernel", "dense"),
    ("fc.bias", "proj/bias", "same"),
]
TORCHVISION_HEAD = r"fc\..*"
TORCHVISION_IGNORE = (TORCHVISION_HEAD, r"head\..*", rf".*\.{BATCHES}")

# Prefixes of the encoder in self-supervised checkpoints: MoCo v3, MoCo v2, DINO.
# The last two: transformers' classifiers.
ENCODER_PREFIXES = (
    *("base_encoder.", "encoder_q.", "backbone."),
    *("dinov2.", "dinov2_with_registers."),
)


def find_clip_layout(names: Iterable[str]) -> tuple[list[Rule], tuple[str, ...]]:
    """(rules, patterns to ignore) of the layout with these tensor names.

    Raises ValueError listing the first names if no layout has them.
    """
    names = list(names)
    if "visual.attnpool.positional_embedding" in names:
        return OPEN_CLIP_RESNET, OPEN_CLIP_IGNORE
    if "visual.conv1.weight" in names:
        return OPEN_CLIP, OPEN_CLIP_IGNORE
    if "vision_model.head.probe" in names:
        return HF_SIGLIP, HF_IGNORE
    if any(name.startswith("vision_model.") for name in names):
        return HF_CLIP, HF_IGNORE
    if f"{_TRUNK}attn_pool.latent" in names:
        return OPEN_CLIP_SIGLIP, OPEN_CLIP_IGNORE
    if any(name.startswith(_TRUNK) for name in names):
        raise ValueError(
            "the visual tower of this CLIP is one of timm's (visual.trunk.*) without"
            " SigLIP's attention head, as in CLIPA and MobileCLIP: not supported"
        )
    hint = ""
    if prefix := shared_prefix(names):
        hint = f"; most begin with {prefix!r}: save those alone, without it"
    if any(".lora_A." in name or ".base_layer." in name for name in names):
        hint = "; it is an adapter of PEFT: put its base beside it, or merge the two"
    raise ValueError(
        "not a CLIP in the layout of OpenAI, open_clip or Hugging Face: it has"
        f" {len(names)} tensors, {first_of(sorted(names))}"
        f" (weights.load_encoder reads sensor encoders){hint}"
    )
