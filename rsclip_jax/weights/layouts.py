"""The rule table of each layout: OpenAI's / open_clip's flat CLIP, timm's ViT."""

from rsclip_jax.weights.rules import Rule, block_rules

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

OPEN_CLIP: list[Rule] = [
    ("logit_scale", "logit_scale", "same"),
    ("visual.class_embedding", "visual/class_embedding", "same"),
    ("visual.positional_embedding", "visual/positional_embedding", "same"),
    ("visual.conv1.weight", "visual/patch_embed/kernel", "conv"),
    ("visual.ln_pre.weight", "visual/ln_pre/scale", "same"),
    ("visual.ln_pre.bias", "visual/ln_pre/bias", "same"),
    ("visual.ln_post.weight", "visual/ln_post/scale", "same"),
    ("visual.ln_post.bias", "visual/ln_post/bias", "same"),
    ("visual.proj", "visual/proj/kernel", "same"),  # stored [in, out] already
    ("token_embedding.weight", "text/token_embedding/embedding", "same"),
    ("positional_embedding", "text/positional_embedding", "same"),
    ("ln_final.weight", "text/ln_final/scale", "same"),
    ("ln_final.bias", "text/ln_final/bias", "same"),
    ("text_projection", "text/text_projection", "same"),
    *block_rules("visual.transformer.resblocks", "visual/blocks", _OPEN_CLIP_BLOCK),
    *block_rules("transformer.resblocks", "text/blocks", _OPEN_CLIP_BLOCK),
]
# Buffers and sizes that some files carry along and that are not weights.
OPEN_CLIP_IGNORE = ("attn_mask", "input_resolution", "context_length", "vocab_size")

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
}

TIMM_VIT: list[Rule] = [
    ("cls_token", "class_embedding", "token"),
    ("pos_embed", "positional_embedding", "tokens"),
    ("patch_embed.proj.weight", "patch_embed/kernel", "conv"),
    ("patch_embed.proj.bias", "patch_embed/bias", "same"),
    ("norm.weight", "ln_post/scale", "same"),
    ("norm.bias", "ln_post/bias", "same"),
    *block_rules("blocks", "blocks", _TIMM_BLOCK),
]
# A classifier of the pretraining task: the linear map to CLIP's width takes its place.
TIMM_IGNORE = (r"head\..*", r"fc\..*")
