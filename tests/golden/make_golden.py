"""Makes the goldens: python tests/golden/make_golden.py [folder, default: here].

Wants a Python with torch, open_clip_torch, timm, safetensors, ftfy and regex; the
project itself needs none of the first three. The towers run in float64 from float32
weights, so that what a float32 port is off by is its own error alone. Everything that
is written was compared with a second implementation, in numpy, further down.
"""

import collections
import copy
import html
import io
import json
import math
import pathlib
import random
import sys
import types
import zipfile

import numpy as np
import safetensors.numpy
import torch
import torchvision_stub

torchvision_stub.install()

import open_clip  # noqa: E402  (needs the stub)
import transformers  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

FOLDER = pathlib.Path(
    sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parent
)
QUICK_GELU, GELU = "quick_gelu", "gelu"
CLIP_EPS, TIMM_EPS = 1e-5, 1e-6
HEADS = 2
SIGNED = (torch.int8, torch.int16, torch.int32, torch.int64)
HF_NAMES = {
    "visual.class_embedding": "embeddings.class_embedding",
    "visual.positional_embedding": "embeddings.position_embedding.weight",
    "visual.conv1.weight": "embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "pre_layrnorm.weight",
    "visual.ln_pre.bias": "pre_layrnorm.bias",
    "visual.ln_post.weight": "post_layernorm.weight",
    "visual.ln_post.bias": "post_layernorm.bias",
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
TEXT = np.array(  # 62 starts, 63 ends: the largest id, where the text tower pools
    [
        [62, 5, 17, 42, 63, 0, 0, 0, 0, 0, 0, 0],
        [62, 61, 1, 30, 30, 8, 11, 54, 2, 19, 33, 63],
        [62, 63, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ],
    np.int32,
)


def main() -> None:
    make_clip(QUICK_GELU, seed=1)
    make_clip(GELU, seed=2)
    make_timm(seed=3)
    make_tokenizer()
    make_torch_files()
    make_positions()


# Towers


def make_clip(activation: str, seed: int) -> None:
    model = open_clip.CLIP(
        embed_dim=16,
        vision_cfg=open_clip.CLIPVisionCfg(
            layers=2, width=32, head_width=32 // HEADS, patch_size=8, image_size=16
        ),
        text_cfg=open_clip.CLIPTextCfg(
            layers=2, width=24, heads=HEADS, context_length=12, vocab_size=64
        ),
        quick_gelu=activation == QUICK_GELU,
    )
    rng = np.random.default_rng(seed)
    weights = randomise(model, rng)
    image = normal(rng, 3, 16, 16, 3)
    probe = normal(rng, 3, 16)

    seen = {}
    record(model.visual.ln_pre, "visual_pre", seen)
    for i in range(2):
        record(model.visual.transformer.resblocks[i], f"visual_block_{i}", seen)
        record(model.transformer.resblocks[i], f"text_block_{i}", seen)
    fimg = model.encode_image(as_nchw(image))
    ftxt = model.encode_text(torch.from_numpy(TEXT).long())
    conv1 = model.visual.conv1.weight
    in_proj = model.visual.transformer.resblocks[0].attn.in_proj_weight
    grads = torch.autograd.grad(
        (fimg * torch.from_numpy(probe)).sum(), (conv1, in_proj)
    )
    out = seen | {
        "fimg": fimg,
        "ftxt": ftxt,
        "zimg": fimg / fimg.norm(dim=-1, keepdim=True),
        "ztxt": ftxt / ftxt.norm(dim=-1, keepdim=True),
        "logit_scale": model.logit_scale,
        "t": model.logit_scale.exp(),
    }
    check(out, clip_reference(weights, image, TEXT, activation))
    check_gradient(weights, image, probe, activation, "conv1.weight", grads[0])
    name = "transformer.resblocks.0.attn.in_proj_weight"
    check_gradient(weights, image, probe, activation, name, grads[1])
    out |= {"grad_conv1": grads[0], "grad_in_proj_0": grads[1]}

    inputs = {"image": image, "text": TEXT, "grad_probe": probe}
    save(f"clip_toy_{activation}", weights, inputs | out)
    make_hf_folder(activation, weights, image, out)
    if activation == QUICK_GELU:
        make_open_clip_files(model, weights)


def make_hf_folder(
    activation: str, weights: dict, image: np.ndarray, out: dict
) -> None:
    """The same weights as transformers writes them; its own forward pass agrees."""
    towers = {"num_hidden_layers": 2, "num_attention_heads": HEADS}
    config = transformers.CLIPConfig(
        projection_dim=16,
        vision_config=towers
        | {
            "hidden_size": 32,
            "intermediate_size": 128,
            "image_size": 16,
            "patch_size": 8,
            "hidden_act": activation,
        },
        text_config=towers
        | {
            "hidden_size": 24,
            "intermediate_size": 96,
            "vocab_size": 64,
            "max_position_embeddings": 12,
            "hidden_act": activation,
            "eos_token_id": 63,
            "bos_token_id": 62,
            "pad_token_id": 0,
        },
    )
    model = transformers.CLIPModel(config).eval()
    state = dict(hf_names(weights))
    model.load_state_dict({k: torch.from_numpy(v.copy()) for k, v in state.items()})
    folder = FOLDER / f"clip_toy_{activation}_hf"
    model.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    model = model.double()
    with torch.no_grad():
        got = model(torch.from_numpy(TEXT).long(), as_nchw(image))
    for name, z in ("zimg", got.image_embeds), ("ztxt", got.text_embeds):
        np.testing.assert_allclose(z.numpy(), out[name].detach().numpy(), atol=1e-6)


def hf_names(weights: dict):
    """open_clip's names and arrays -> transformers'."""
    block = {
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
        "attn.out_proj": "self_attn.out_proj",
    }
    for name, array in weights.items():
        tower = "vision_model" if name.startswith("visual.") else "text_model"
        short = name.removeprefix("visual.")
        if short.startswith("transformer.resblocks."):
            i, rest = short.removeprefix("transformer.resblocks.").split(".", 1)
            layer = f"{tower}.encoder.layers.{i}"
            if rest.startswith("attn.in_proj_"):
                kind = rest.removeprefix("attn.in_proj_")
                for letter, part in zip("qkv", np.split(array, 3), strict=True):
                    yield f"{layer}.self_attn.{letter}_proj.{kind}", part
            else:
                part, kind = rest.rsplit(".", 1)
                yield f"{layer}.{block[part]}.{kind}", array
        elif name in ("visual.proj", "text_projection"):
            projection = "visual" if name == "visual.proj" else "text"
            yield f"{projection}_projection.weight", array.T
        elif name == "logit_scale":
            yield name, array
        else:
            first = "visual." if tower == "vision_model" else ""
            yield f"{tower}.{HF_NAMES[first + short]}", array


def make_open_clip_files(model, weights: dict) -> None:
    """A training checkpoint, and OpenAI's kind of archive, both in half precision."""
    state = {f"module.{k}": torch.from_numpy(v).half() for k, v in weights.items()}
    wrapped = {"epoch": 1, "name": "toy", "state_dict": state}
    torch.save(wrapped, FOLDER / "clip_toy_training.pt")
    half = copy.deepcopy(model).half()
    marks = {"input_resolution": 16, "context_length": 12, "vocab_size": 64}
    for name, value in marks.items():
        half.__dict__.pop(
            name, None
        )  # a plain number in open_clip, kept in the archive
        half.register_buffer(name, torch.tensor(value))
    example = torch.zeros(1, 3, 16, 16).half(), torch.from_numpy(TEXT).long()[:1]
    save_script(torch.jit.trace(half, example, check_trace=False), "clip_toy_script.pt")


def make_timm(seed: int) -> None:
    model = VisionTransformer(
        img_size=16,
        patch_size=4,
        in_chans=2,
        embed_dim=32,
        depth=2,
        num_heads=HEADS,
        num_classes=0,
        global_pool="token",
        class_token=True,
        qkv_bias=True,
    )
    assert model.norm.eps == TIMM_EPS
    rng = np.random.default_rng(seed)
    weights = randomise(model, rng)
    image = normal(rng, 3, 16, 16, 2)

    seen = {}
    record(model.norm_pre, "pre", seen)  # no norm in this variant: block 0's input
    for i in range(2):
        record(model.blocks[i], f"block_{i}", seen)
    out = seen | {"pooled": model(as_nchw(image))}
    check(out, timm_reference(weights, image))

    save("timm_toy", weights, {"image": image} | out)


def normal(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def as_nchw(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(0, 3, 1, 2)).double()


def randomise(model: torch.nn.Module, rng: np.random.Generator) -> dict:
    """Gives every parameter a value no initialiser gives; float64 model, eval mode."""
    weights = {}
    for name, old in model.state_dict().items():
        noise = rng.standard_normal(tuple(old.shape))
        if name == "logit_scale":
            new = math.log(1 / 0.07) + 0.3 * noise
        elif name.endswith(("embedding", "embedding.weight", "pos_embed", "cls_token")):
            new = 0.5 * noise
        elif old.ndim == 1:  # LayerNorm scales and every bias
            new = name.endswith("weight") + 0.3 * noise
        else:  # what a layer gives shall be as large as what it takes
            inputs_first = name.endswith(("proj", "projection"))
            inputs = old.shape[:1] if inputs_first else old.shape[1:]
            new = noise / math.sqrt(math.prod(inputs))
        weights[name] = np.asarray(new, np.float32)
    model.load_state_dict({k: torch.from_numpy(v) for k, v in weights.items()})
    model.double().eval()
    return weights


def record(module: torch.nn.Module, name: str, seen: dict) -> None:
    module.register_forward_hook(lambda _, __, out: seen.update({name: out}))


def save(name: str, weights: dict, arrays: dict) -> None:
    file = FOLDER / f"{name}.safetensors"
    file.write_bytes(safetensors.numpy.save(weights))
    for key, value in arrays.items():
        if isinstance(value, torch.Tensor):
            arrays[key] = value.detach().numpy().astype(np.float32)
    np.savez(FOLDER / f"{name}_out.npz", **arrays)


# The same towers once more, in numpy, from the papers' equations


def check(got: dict, want: dict) -> None:
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    for name, array in got.items():
        assert array.shape == want[name].shape, (name, array.shape, want[name].shape)
        np.testing.assert_allclose(
            array.detach().numpy(), want[name], rtol=0, atol=1e-10, err_msg=name
        )


def check_gradient(weights, image, probe, activation, name, grad) -> None:
    """Compares with central differences along eight random directions."""

    def loss(value: np.ndarray) -> float:
        moved = visual | {name: value}
        return (clip_visual(moved, image, activation)["fimg"] * probe).sum()

    visual = under(weights, "visual.")
    value, rng = visual[name].astype(float), np.random.default_rng(0)
    for _ in range(8):
        step = 1e-5 * rng.standard_normal(value.shape)
        want = (loss(value + step) - loss(value - step)) / 2
        got = (grad.numpy() * step).sum()
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-9, err_msg=name)


def clip_reference(weights, image, text, activation) -> dict:
    out = clip_visual(under(weights, "visual."), image, activation)
    x = weights["token_embedding.weight"].astype(float)[text]
    x = x + weights["positional_embedding"]
    n = text.shape[1]
    future = np.where(np.arange(n) > np.arange(n)[:, None], -np.inf, 0.0)
    for i in range(2):
        x = clip_block(weights, i, x, activation, future)
        out[f"text_block_{i}"] = x
    x = layer_norm(weights, "ln_final", x, CLIP_EPS)
    ends = x[np.arange(len(x)), text.argmax(-1)]
    out["ftxt"] = ends @ weights["text_projection"]
    for f, z in (("fimg", "zimg"), ("ftxt", "ztxt")):
        out[z] = out[f] / np.sqrt((out[f] ** 2).sum(-1, keepdims=True))
    scale = weights["logit_scale"].astype(float)
    return out | {"logit_scale": scale, "t": np.exp(scale)}


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


# Tokenizer

CLASSES = """
annual crop land; forest; brushland or shrubland; highway or road; industrial buildings
or commercial buildings; pasture land; permanent crop land; residential buildings or
homes or apartments; river; lake or sea; AnnualCrop; HerbaceousVegetation; SeaLake;
airplane; airport; baseball diamond; basketball court; beach; bridge; chaparral; church;
circular farmland; cloud; commercial area; dense residential; desert; freeway; golf
course; ground track field; harbor; industrial area; intersection; island; lake; meadow;
medium residential; mobile home park; mountain; overpass; palace; parking lot; railway;
railway station; rectangular farmland; roundabout; runway; sea ice; ship; snowberg;
sparse residential; stadium; storage tank; tennis court; terrace; thermal power station;
wetland; agricultural; buildings; mobilehomepark; storagetanks; golfcourse; Urban
fabric; Continuous urban fabric; Discontinuous urban fabric; Industrial or commercial
units; Road and rail networks and associated land; Port areas; Airports; Mineral
extraction sites; Dump sites; Construction sites; Green urban areas; Sport and leisure
facilities; Arable land; Non-irrigated arable land; Permanently irrigated land; Rice
fields; Vineyards; Fruit trees and berry plantations; Olive groves; Pastures; Permanent
crops; Annual crops associated with permanent crops; Complex cultivation patterns; Land
principally occupied by agriculture, with significant areas of natural vegetation;
Agro-forestry areas; Broad-leaved forest; Coniferous forest; Mixed forest; Natural
grassland and sparsely vegetated areas; Moors, heathland and sclerophyllous vegetation;
Transitional woodland/shrub; Beaches, dunes, sands; Bare rock; Sparsely vegetated areas;
Burnt areas; Inland marshes; Peatbogs; Salt marshes; Salines; Intertidal flats; Water
courses; Water bodies; Coastal lagoons; Estuaries; Sea and ocean; Inland wetlands;
Coastal wetlands; Inland waters; Marine waters; Savanna; Barren; Snow/Ice; compact
high-rise; open low-rise; lightweight low-rise; LCZ 4; tench; great white shark;
cockatiel; lorikeet; Gila monster; jack-o'-lantern; yellow lady's slipper; hot dog; can
opener; t-shirt
"""
TEMPLATES = """
a centered satellite photo of {c}.|a centered satellite photo of a {c}.|a centered
satellite photo of the {c}.|satellite imagery of {c}.|aerial imagery of {c}.|satellite
photo of {c}.|aerial photo of {c}.|satellite view of {c}.|aerial view of {c}.|satellite
imagery of a {c}.|aerial imagery of a {c}.|satellite photo of a {c}.|aerial photo of a
{c}.|satellite view of a {c}.|aerial view of a {c}.|satellite imagery of the {c}.|aerial
imagery of the {c}.|satellite photo of the {c}.|aerial photo of the {c}.|satellite view
of the {c}.|aerial view of the {c}.|a photo of a {c}.|a bad photo of a {c}.|itap of a
{c}.|a origami {c}.|a photo of the large {c}.|a {c} in a video game.|art of the {c}.|a
Sentinel-1 SAR (VV/VH) image of {c}.|a Sentinel-2 L2A composite of {c}, 10 m/px.|an
infrared image of {c}.|{c}
"""
# fmt: off
TRICKY = (
    "", " ", "\t\n", ".", "a", "I", "0", "!", "é", "中", "🛰", "'", "<", "&", "_", "--",
    # white space and control characters
    "hello world", "HELLO World", "  two  spaces ", "a\tb\nc\r\nd\x0be\x0cf", "a b",
    "no\u00a0break", "en\u2002em\u2003thin\u2009", "a\u3000b", "a\u2028b\u2029c",
    "zero\u200bwidth\u200djoin\ufeffbom", "soft\u00adhyphen", "a\x85b", "\u180eab",
    "a\x00b\x01c\x07d\x1be\x7ff", "\x1b[31mred\x1b[0m", "a\x1cb\x1db\x1eb\x1fb",
    "\ud800", "a\udcffb", "\ud83d\ude80", "\U0010ffff", "\ue000", "\x80\x9f", "\xad",
    # contractions and numbers
    "it's we're I've I'm you'll he'd can't", "IT'S WE'RE", "'s't're've'm'll'd", "''s",
    "o'clock rock'n'roll", "it\u2019s \u201cquoted\u201d", "'\u017f \u017ft", "'S 'LL",
    "2020", "3.14159", "1,000,000", "10m", "m2", "Ⅷ ½ ²", "٣٤٥", "१२३", "x86-64",
    # HTML entities, escaped once, twice and wrongly; beside a "<" ftfy leaves them
    "<b>R&amp;amp;D</b>", "1 < 2 &lt; 3 &amp;lt; 4 &amp;amp;lt; 5 &amp;amp;amp;lt; 6",
    "&amp;", "&amp;amp;", "&amp;amp;amp;", "&lt;b&gt;bold&lt;/b&gt;", "&nbsp;x&nbsp;",
    "&quot;q&quot; &#39;a&#39; &#x27;b&#x27;", "&#128752; &#x1F6F0;", "&amp;#233;",
    "&eacute;t&eacute;", "AT&T", "R&D &c", "&unknown; &notit;", "&#0; &#xD800; &#x85;",
    "&amp;lt;end&amp;gt;", "&copy; 2024 ESA", "caf&amp;eacute;", "&#28;a&#x9;b&#10;c",
    # mojibake, ligatures, letter case, combining marks
    "cafÃ©", "â€œquotesâ€\x9d", "schÃ¶n", "donâ€™t", "âœ” mojibake", "l’humanitÃ©",
    "Ð¿Ñ\x80Ð¸Ð²ÐµÑ‚", "ã\x81\x93ã\x82\x93", "Ã¢â‚¬â„¢", "Â©", "Â£5", "ï»¿bom",
    "ﬁne ﬂow oﬀice ﬅ", "ｆｕｌｌｗｉｄｔｈ １２３", "Ǆ ĳ ŉ", "ſtraſſe STRASSE straße",
    "İstanbul ISPARTA ı", "ΣΊΣΥΦΟΣ ΟΔΟΣ", "ÅNGSTRÖM \u212b A\u030a", "ÉCOLE", "ẞ",
    "e\u0301 e\u0300 n\u0303 a\u030a", "Z̸̡̛͇a̴l̵g̶o̷", "a\u0301\u0301\u0301", "\u0301",
    # other scripts, emoji, symbols
    "卫星图像中的森林", "衛星から見た森林です", "위성 사진", "这是 SAR 图像。",
    "صورة فضائية لغابة", "תמונת לוויין", "اَلْعَرَبِيَّةُ", "\u202eabc\u202c", "فارسی\u200cها",
    "спутниковый снимок леса", "δορυφορική εικόνα", "उपग्रह चित्र", "ภาพถ่ายดาวเทียม",
    "🌍🌲🛰️", "👨‍👩‍👧‍👦 family", "👍🏽", "🇬🇷🇫🇷", "☀️ ☁ ❄", "a🌊b", "🌍" * 30, "1️⃣",
    "℃ ™ ① ㎡ №", "𝒻𝒶𝓃𝒸𝓎 𝕋𝔼𝕏𝕋", "ᵘᵖ ₁₂", "→ ≤ ∞ √2", "€£¥₿", "「…」—–", "\ufffd",
    # special tokens by name, and what looks like markup
    "<start_of_text>", "<end_of_text>", "a <END_OF_TEXT> b", "<start_of_text", "<|>",
    "<|startoftext|>", "a <|endoftext|> b", "</w>", "a</w>b", "<\u017ftart_of_text>",
    "https://example.org/a?b=c&d=%20", "name@example.org", "C:\\dir\\x.tif", "S2B_L1C",
    "#hashtag @user", "snake_case", "camelCase", "co-operate", "a/b/c", "(x+y)=z;",
    "!!!!!!", "?!...", "\"'`´", "¡¿", "$$$ %%%", "{c} {} [0]", "\\n\\t", "^~|", "__",
    # as long as fits, longer, and much longer
    "a " * 75, "a " * 76, "é" * 76, "!" * 76, "x" * 1000, "word " * 200, "éàü" * 334,
    "1" * 1000, "森" * 1000, "a1" * 500, "." * 1000, "aaaaaaaa", "abababab", "zzyzx",
    "supercalifragilisticexpialidocious", "pneumonoultramicroscopicsilicosis " * 9,
)
# fmt: on
ALPHABETS = (
    "abcdefghijklmnopqrstuvwxyz",
    "ETAOINetaoin  '",
    "0123456789.,-+",
    " !\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~",
    " \t\n\u00a0\u2003\u200b",
    "".join(map(chr, range(0xA0, 0x180))),
    "".join(map(chr, range(0x20))),
    "αβγδεζηθΑΒΓΔабвгдежзАБВГДЕ",
    "的一是在不了有和人这中大为上个国",
    "ابتثجحخدذرזחטיכלमनपफ",
    "🌍🌲🛰🚀👍🏽\u200d\ufe0f☀❄",
    "\u0300\u0301\u0302\u0303\u0308\u0327e",
    "&amp;lt;#39;quot",
    "Ã©â€™Â",
)


def corpus() -> list[str]:
    """Class names in templates, hand-made traps, and 300 seeded random strings."""
    classes = [c.strip() for c in " ".join(CLASSES.split()).split(";")]
    templates = [t.strip() for t in " ".join(TEMPLATES.split()).split("|")]
    texts = [templates[i % len(templates)].format(c=c) for i, c in enumerate(classes)]
    texts += [t.format(c="forest") for t in templates] + list(TRICKY)
    rng = random.Random(0)
    for _ in range(300):
        letters = "".join(rng.sample(ALPHABETS, rng.randint(1, 4)))
        text = "".join(rng.choices(letters, k=rng.randint(1, 40)))
        texts.append(html.escape(text) if rng.random() < 0.1 else text)
    return list(dict.fromkeys(texts))


def make_tokenizer() -> None:
    tokenizer = open_clip.SimpleTokenizer()
    cases = []
    for text in corpus():
        # Token 0 is "!", but the row's last token is never 0: only padding goes.
        ids = np.trim_zeros(tokenizer(text)[0].numpy(), "b").tolist()
        cases.append(json.dumps({"text": text, "ids": ids}, separators=(",", ":")))
    (FOLDER / "tokenizer.json").write_text("[\n" + ",\n".join(cases) + "\n]\n")


def make_positions() -> None:
    """open_clip's resize_pos_embed, from a 7 x 7 grid to a finer and a coarser one."""
    positions = torch.from_numpy(normal(np.random.default_rng(7), 50, 8))
    out = {"positions": positions}
    for grid in (4, 12):
        state = {"visual.positional_embedding": positions}
        visual = types.SimpleNamespace(grid_size=(grid, grid))
        open_clip.model.resize_pos_embed(state, types.SimpleNamespace(visual=visual))
        out[f"to_{grid}"] = state["visual.positional_embedding"]
    np.savez(FOLDER / "positions_out.npz", **{k: v.numpy() for k, v in out.items()})


# torch's own files


class Script(torch.nn.Module):
    """Of every kind of attribute that a TorchScript archive keeps, one."""

    def __init__(self):
        super().__init__()
        self.conv1 = torch.nn.Conv2d(3, 4, 2, bias=False)
        self.blocks = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU())
        self.register_buffer("input_resolution", torch.tensor(4))
        self.scale = 0.5

    def forward(self, x):
        return self.blocks(self.conv1(x).flatten(2).mean(-1)) * self.scale


def save_script(script, name: str) -> None:
    """torch.jit.save, but for records that name folders of the machine."""
    buffer = io.BytesIO()
    torch.jit.save(script, buffer)
    with (
        zipfile.ZipFile(buffer) as whole,
        zipfile.ZipFile(FOLDER / name, "w") as file,
    ):
        for record in whole.namelist():
            if not record.endswith((".debug_pkl", "traced_inputs.pkl")):
                file.writestr(zipfile.ZipInfo(record), whole.read(record))


def make_torch_files() -> None:
    rng = np.random.default_rng(5)
    whole = torch.from_numpy(normal(rng, 6, 5))
    counts = torch.arange(-3, 5)
    tensors = {
        "f32": whole,
        "f16": whole.half(),
        "bf16": whole.bfloat16(),
        "f64": whole.double(),
        "u8": counts.abs().byte(),
        **{f"i{8 * counts.to(d).element_size()}": counts.to(d) for d in SIGNED},
        "bool": counts > 0,
        "shared": whole[2:, 1:4],
        "transposed": whole.T,
        "every_other": whole[::2, ::3],
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
        "parameter": torch.nn.Parameter(whole[0]),
    }
    for name, new in ("torch_state", True), ("torch_legacy", False):
        wrapped = {"state_dict": collections.OrderedDict(tensors), "epoch": 3}
        torch.save(wrapped, FOLDER / f"{name}.pt", _use_new_zipfile_serialization=new)
    torch.manual_seed(6)
    script = torch.jit.script(Script().half())
    save_script(script, "torch_script.pt")
    for name, state in ("state", tensors), ("script", script.state_dict()):
        values = {
            key: (x.float() if x.dtype == torch.bfloat16 else x).detach().numpy()
            for key, x in state.items()
        }
        np.savez(FOLDER / f"torch_{name}_out.npz", **values)


if __name__ == "__main__":
    main()
