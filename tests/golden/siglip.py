"""SigLIPs of transformers and open_clip at toy size, with trained tokenizers.

python siglip.py make FOLDER: each case gets FOLDER/CASE with the weights' folder as its
library saves it (weights), and out.npz: pictures (uint8), ids of TEXTS, zimg, ztxt and
logits. The cases: "siglip" (SentencePiece, as transformers' SiglipTokenizer reads it),
"siglip2" (Gemma's tokenizer), "open_clip", and "metaclip", a MetaCLIP 2.
python siglip.py read FOLDER: out.npz of the pictures in FOLDER/pictures.npz and TEXTS,
by transformers, from a folder of ours, FOLDER/weights.
"""

import json
import pathlib
import sys

import numpy as np
import PIL.Image
import sentencepiece
import tokenizers
import torch
import torchvision_stub
from torch_models import randomise

# before the stand-ins, which it would take for torchvision itself
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import (
    SiglipImageProcessorPil,
)

torchvision_stub.install()

import open_clip  # noqa: E402  (needs the stub)
import timm  # noqa: E402
import timm.models.vision_transformer as vits  # noqa: E402
import transformers  # noqa: E402

TEXTS = [
    "A satellite photo of a river.",
    "  radar_image,   of THE harbour; (VV) ",
    "don't",
    "Größe &amp; Straße in 50% of Ünïts!",
    "",
    "a satellite photo of " + "many " * 30 + "fields",
]
CORPUS = [
    "a satellite photo of a river",
    "a radar image of the harbour and the fields",
    "many forests many fields many roads in the satellite photo",
    "units of measure in percent do not matter",
] * 20
LENGTH, IMAGE, PATCH, WIDTH = 16, 40, 12, 48


def make(folder: str) -> None:
    for seed, one in enumerate(
        (make_siglip, make_siglip2, make_open_clip, make_metaclip)
    ):
        name = one.__name__.removeprefix("make_")
        into = pathlib.Path(folder) / name
        into.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(seed)
        rng = np.random.default_rng(seed)
        shapes = ((60, 50, 3), (40, 40, 3))
        pictures = [rng.integers(0, 256, s).astype(np.uint8) for s in shapes]
        made = one(into / "weights", rng, pictures)
        made |= {f"picture_{i}": p for i, p in enumerate(pictures)}
        np.savez(into / "out.npz", **made)
    (pathlib.Path(folder) / "texts.json").write_text(json.dumps(TEXTS))


# transformers


def make_siglip(folder: pathlib.Path, rng: np.random.Generator, pictures) -> dict:
    """SiglipTokenizer reads spiece.model; tokenizer.json is the same, converted."""
    folder.mkdir(exist_ok=True)
    corpus, model = folder / "corpus.txt", folder / "spiece"
    corpus.write_text("\n".join(CORPUS))
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus),
        model_prefix=str(model),
        vocab_size=200,
        hard_vocab_limit=False,
        character_coverage=1.0,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    corpus.unlink()
    tokenizer = transformers.SiglipTokenizer(
        str(model) + ".model", model_max_length=LENGTH
    )
    tokenizer.save_pretrained(folder)
    write_converted(model.with_suffix(".model"), folder / "tokenizer.json")
    return finish_hf(folder, tokenizer, rng, pictures, hidden_act="gelu_pytorch_tanh")


def write_converted(spiece: pathlib.Path, path: pathlib.Path) -> None:
    """A tokenizer.json of a SentencePiece model, as T5's converter writes it."""
    held = sentencepiece.SentencePieceProcessor(model_file=str(spiece))
    scores = [(held.id_to_piece(i), held.get_score(i)) for i in range(len(held))]
    made = tokenizers.Tokenizer(tokenizers.models.Unigram(scores, unk_id=held.unk_id()))
    made.normalizer = tokenizers.normalizers.NFKC()
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace(prepend_scheme="always")
    end = ("</s>", held.eos_id())
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[end]
    )
    made.save(str(path))


def make_siglip2(folder: pathlib.Path, rng: np.random.Generator, pictures) -> dict:
    special = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>"]
    made = tokenizers.Tokenizer(
        tokenizers.models.BPE(byte_fallback=True, fuse_unk=True)
    )
    made.normalizer = tokenizers.normalizers.Replace(" ", "▁")
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=special + [f"<0x{i:02X}>" for i in range(256)],
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    state = json.loads(made.to_str())
    tokenizer = transformers.GemmaTokenizer(
        vocab=state["model"]["vocab"],
        merges=[tuple(m) for m in state["model"]["merges"]],
        add_bos_token=False,
        add_eos_token=True,
        padding_side="right",
        model_max_length=LENGTH,
    )
    tokenizer.save_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    return finish_hf(folder, tokenizer, rng, pictures, hidden_act="gelu_pytorch_tanh")


def finish_hf(folder, tokenizer, rng, pictures, hidden_act: str) -> dict:
    tower = {"num_hidden_layers": 2, "hidden_act": hidden_act}
    config = transformers.SiglipConfig(
        vision_config=tower
        | {"hidden_size": WIDTH, "intermediate_size": 100, "num_attention_heads": 6}
        | {"image_size": IMAGE, "patch_size": PATCH},
        text_config=tower
        | {"hidden_size": 32, "intermediate_size": 72, "num_attention_heads": 4}
        | {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
        | {"projection_size": WIDTH},
    )
    model = transformers.SiglipModel(config)
    randomise(model, rng)
    model.float().save_pretrained(folder)
    size = {"height": IMAGE, "width": IMAGE}
    images = SiglipImageProcessorPil(size=size)
    images.save_pretrained(folder)
    return run_hf(model, tokenizer, images, pictures)


def make_metaclip(folder: pathlib.Path, rng: np.random.Generator, pictures) -> dict:
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram())
    unigram.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=80,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    unigram.train_from_iterator(CORPUS, trainer)
    vocab = [tuple(x) for x in json.loads(unigram.to_str())["model"]["vocab"]]
    tokenizer = transformers.XLMRobertaTokenizer(vocab=vocab, model_max_length=LENGTH)
    tokenizer.save_pretrained(folder)
    size = {"num_hidden_layers": 2, "projection_dim": 24}
    config = transformers.MetaClip2Config(
        projection_dim=24,
        vision_config=size
        | {"hidden_size": WIDTH, "intermediate_size": 100, "num_attention_heads": 6}
        | {"image_size": IMAGE - 4, "patch_size": PATCH},
        text_config=size
        | {"hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4}
        | {"vocab_size": len(tokenizer), "max_position_embeddings": LENGTH}
        | {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": 0},
    )
    model = transformers.MetaClip2Model(config)
    randomise(model, rng)
    model.float().save_pretrained(folder)
    side = IMAGE - 4
    crop = {"height": side, "width": side}
    images = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=crop)
    images.save_pretrained(folder)
    return run_hf(model, tokenizer, images, pictures)


def read(folder: str) -> None:
    held = pathlib.Path(folder)
    weights = held / "weights"
    pictures = list(np.load(held / "pictures.npz").values())
    model = transformers.AutoModel.from_pretrained(weights)
    is_siglip = model.config.model_type == "siglip"
    images = SiglipImageProcessorPil if is_siglip else CLIPImageProcessorPil
    made = run_hf(
        model,
        transformers.AutoTokenizer.from_pretrained(weights),
        images.from_pretrained(weights),
        pictures,
    )
    np.savez(held / "out.npz", **made)


def run_hf(model, tokenizer, images, pictures) -> dict:
    length = model.config.text_config.max_position_embeddings
    ids = tokenizer(
        TEXTS, padding="max_length", truncation=True, max_length=length
    ).input_ids
    shown = [PIL.Image.fromarray(p) for p in pictures]
    pixels = images(shown, return_tensors="pt").pixel_values
    model.double().eval()
    with torch.no_grad():
        out = model(input_ids=torch.tensor(ids), pixel_values=pixels.double())
    found = {"ids": np.array(ids), "logits": out.logits_per_image.numpy()}
    return found | {"zimg": out.image_embeds.numpy(), "ztxt": out.text_embeds.numpy()}


# open_clip


def make_open_clip(folder: pathlib.Path, rng: np.random.Generator, pictures) -> dict:
    """Under timm's name of SigLIP's B/16, a tower of another width and depth."""

    def vit_base_patch16_siglip_224(pretrained: bool = False, **kwargs):
        sizes = {"patch_size": PATCH, "embed_dim": WIDTH, "depth": 2, "num_heads": 12}
        kwargs.pop("img_size", None)
        pool = {"class_token": False, "global_pool": "map", "img_size": IMAGE}
        return vits.VisionTransformer(**{**sizes, **pool, "num_classes": 0})

    timm.models._registry._model_entrypoints["vit_base_patch16_siglip_224"] = (
        vit_base_patch16_siglip_224
    )
    folder.mkdir(exist_ok=True)
    unigram = tokenizers.Tokenizer(tokenizers.models.Unigram())
    unigram.normalizer = tokenizers.normalizers.NFKC()
    unigram.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=80,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    unigram.train_from_iterator([text.lower() for text in CORPUS], trainer)
    vocab = [tuple(x) for x in json.loads(unigram.to_str())["model"]["vocab"]]
    tokenizer = transformers.T5Tokenizer(
        vocab=vocab, extra_ids=0, model_max_length=LENGTH, pad_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    text = {"context_length": LENGTH, "vocab_size": len(tokenizer), "width": 32}
    text |= {"heads": 4, "layers": 2, "no_causal_mask": True, "proj_bias": True}
    text |= {"pool_type": "last", "norm_kwargs": {"eps": 1e-6}, "mlp_ratio": 3.0}
    text |= {"act_kwargs": {"approximate": "tanh"}}
    text |= {"hf_tokenizer_name": str(folder)}
    text |= {"tokenizer_kwargs": {"clean": "canonicalize"}}
    vision = {"image_size": IMAGE, "timm_model_name": "vit_base_patch16_siglip_224"}
    vision |= {"timm_model_pretrained": False, "timm_pool": "map", "timm_proj": "none"}
    config = {"embed_dim": WIDTH, "init_logit_bias": -10, "custom_text": True}
    config |= {"vision_cfg": vision, "text_cfg": text}
    pixels = {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic"}
    pixels |= {"resize_mode": "squash", "size": [IMAGE, IMAGE]}
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": pixels})
    )
    name = f"local-dir:{folder}"
    model = open_clip.create_model(name, load_weights=False)
    randomise(model, rng)
    model.float()
    safe = {k: v.contiguous() for k, v in model.state_dict().items()}
    import safetensors.torch

    safetensors.torch.save_file(safe, folder / "open_clip_model.safetensors")
    ids = open_clip.get_tokenizer(name)(TEXTS)
    image = torch.stack([preprocess(picture) for picture in pictures])
    model = open_clip.create_model(name).double().eval()
    with torch.no_grad():
        zimg = model.encode_image(image.double(), normalize=True)
        ztxt = model.encode_text(ids, normalize=True)
    logits = model.logit_scale.exp() * zimg @ ztxt.T + model.logit_bias
    found = {"ids": ids, "zimg": zimg, "ztxt": ztxt, "logits": logits}
    return {name: value.detach().numpy() for name, value in found.items()}


def preprocess(picture: np.ndarray) -> torch.Tensor:
    """open_clip's "squash" with a mean and std of 0.5, without torchvision."""
    size, how = (IMAGE, IMAGE), PIL.Image.Resampling.BICUBIC
    resized = np.asarray(PIL.Image.fromarray(picture).resize(size, how))
    return torch.from_numpy((resized / 255 - 0.5) / 0.5).permute(2, 0, 1)


if __name__ == "__main__":
    {"make": make, "read": read}[sys.argv[1]](sys.argv[2])
