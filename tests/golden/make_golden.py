"""Makes the goldens: python tests/golden/make_golden.py [folder, default: here].

Wants the Python of requirements.txt; the project itself needs no torch. The towers run
in float64 from float32 weights, so that what a float32 port is off by is its own error
alone. What they give is compared with a second implementation, numpy_towers.py and, for
the residual networks of make_resnet.py, numpy_resnets.py.
"""

import collections
import copy
import io
import json
import types
import zipfile

import numpy as np
import torch
import torchvision_stub
from make_resnet import make_resnets
from numpy_towers import (
    GELU,
    HEADS,
    QUICK_GELU,
    TIMM_EPS,
    check,
    check_gradient,
    clip_reference,
    clip_visual,
    timm_reference,
    under,
)
from texts import corpus
from torch_models import FOLDER, as_nchw, normal, randomise, record, save

torchvision_stub.install()

import make_dino  # noqa: E402  (needs the stub)
import make_encoders  # noqa: E402
import open_clip  # noqa: E402
import transformers  # noqa: E402
from timm.models.vision_transformer import VisionTransformer  # noqa: E402

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
    for seed, name in enumerate(make_encoders.TIMM, 21):
        make_encoders.make_timm(name, seed)
    make_encoders.make_dofa(seed=25)
    make_dino.make_dinos(seed=31)
    make_resnets(seed=13)
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

    def fimg_of(moved: dict) -> np.ndarray:
        return clip_visual(under(moved, "visual."), image, activation)["fimg"]

    names = "conv1.weight", "transformer.resblocks.0.attn.in_proj_weight"
    for name, grad in zip(names, grads, strict=True):
        check_gradient(fimg_of, weights, f"visual.{name}", probe, grad)
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


# Tokenizer


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
