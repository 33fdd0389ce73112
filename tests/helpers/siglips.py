"""A SigLIP at toy size, and its tokenizer, trained on a few sentences."""

import functools
import json
import tempfile
from pathlib import Path

import jax
import numpy as np
import tokenizers

from rsclip_jax.data import tokenizer_files
from rsclip_jax.data.pipeline.fitting import Resize
from rsclip_jax.data.tokenizer_files import TokenizerFile
from rsclip_jax.models.clip import init_clip
from rsclip_jax.models.variants import Variant

CORPUS = ["a satellite photo of a river", "a radar image of the harbour and fields"] * 9
VOCABULARY = 120


@functools.cache  # training draws
def tokenizer_json() -> str:
    """Unigrams and an end token, as T5's."""
    made = tokenizers.Tokenizer(tokenizers.models.Unigram())
    made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
    trainer = tokenizers.trainers.UnigramTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "</s>", "<unk>"],
        unk_token="<unk>",
        show_progress=False,
    )
    made.train_from_iterator(CORPUS, trainer)
    made.post_processor = tokenizers.processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return made.to_str()


def register_tokenizer() -> str:
    """The digest of tokenizer_json with a config."""
    told = {"tokenizer_class": "T5Tokenizer", "pad_token": "</s>"}
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer.json").write_text(tokenizer_json())
        (Path(folder) / "tokenizer_config.json").write_text(json.dumps(told))
        return tokenizer_files.register(Path(folder))


def toy_variant(**changes) -> Variant:
    """Its tokenizer is registered."""
    half = (0.5, 0.5, 0.5)
    fields = {
        "name": "siglip-toy",
        "embed_dim": 48,
        "image_size": 40,
        "patch_size": 12,  # 4 pixels are no whole patch
        "vision_width": 48,
        "vision_layers": 2,
        "vision_heads": 6,
        "text_width": 32,
        "text_layers": 2,
        "text_heads": 4,
        "activation": "gelu_tanh",
        "context_length": 48,
        "vocab_size": VOCABULARY,
        "layer_norm_eps": 1e-6,
        "image_mean": half,
        "image_std": half,
        "vision_mlp_width": 100,
        "text_mlp_width": 72,
        "resize": Resize("squash", like="transformers"),
        "family": "siglip",
        "tokenizer": TokenizerFile(register_tokenizer(), (), pad=1),
    }
    return Variant(**{**fields, **changes})


def toy_params(variant: Variant, seed: int = 0) -> dict:
    """Random ones, every bias and norm away from its usual start."""
    params = init_clip(variant, jax.random.key(seed))
    rng = np.random.default_rng(seed)

    def move(x):
        x = np.asarray(x)
        return x + 0.05 * rng.normal(size=x.shape).astype(np.float32)

    return jax.tree.map(move, params)
