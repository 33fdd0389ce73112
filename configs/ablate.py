"""Stage align at every combination of some settings, and one table of the results.

Purpose   Compare loss terms, initialisations or any other setting of stage align.
Command   python -m rsclip_jax.main --config=configs/ablate.py
              the embedded miniature, which needs no data
          python -m rsclip_jax.main --config=configs/ablate.py:vit_b32
              --config.init=CLIP --config.data_root=DATA
              the paper's axes (loss terms, lambda, initialisation) on BigEarthNet's
              Sentinel-2
          Another sweep:
              --config.ablate.sweep="(('align.lr',(1e-3,1e-4)),('seed',(0,1)))"
Hardware  miniature: two CPU cores; vit_b32: a GPU.
Time      miniature: minutes; vit_b32: 18 alignments of 5,265 steps, not measured.
Result    ablate/table.md and table.csv in the workdir, a row for each combination.
"""

from rsclip_jax.configs import common

MSE = (("mse", 1.0),)
LABELS = (("labels", 1.0),)
CONTRASTIVE = (("info_nce", 1.0),)


def get_config(size: str = "miniature"):
    return common.choose({"miniature": miniature, "vit_b32": vit_b32}, size)()


def miniature():
    config = common.base(stages=("pretrain", "ablate"))
    config.variant = "mini"
    config.pretrain = common.pretrain_miniature(
        test=("miniature_natural:test", "miniature:test"), steps=150, warmup=20
    )
    config.align = common.align(
        train="miniature:train",
        test=("miniature:test",),
        batch_size=64,
        steps=40,
        lr=1e-3,
        warmup=5,
        vit={
            "image_size": 32,
            "patch_size": 8,
            "width": 64,
            "layers": 2,
            "heads": 4,
        },
        augment={"flip_ud": True, "rotate": True},
    )
    config.ablate = common.ablate(
        sweep=(
            ("align.losses", (MSE, (*MSE, ("labels", 0.05)), CONTRASTIVE)),
            ("align.student", ("clip", "vit")),
        )
    )
    return config


def vit_b32():
    config = common.base(stages=("ablate",))
    config.align = common.align(
        train="bigearthnet:train",
        test=("bigearthnet:test",),
        sensor="s2",
        batch_size=256,
        steps=5265,
        lr=1e-4,
        warmup=2000,
        checkpoint_every=500,
        pretrained={"missing": "zero"},
        vit={
            "image_size": 224,
            "patch_size": 16,
            "width": 384,
            "layers": 12,
            "heads": 6,
        },
        augment={"crop_scale": (0.5, 1.0), "flip_ud": True},
    )
    lambdas = tuple((*MSE, ("labels", weight)) for weight in (0.01, 0.05, 0.1, 0.5))
    config.ablate = common.ablate(
        sweep=(
            ("align.losses", (MSE, LABELS, *lambdas)),
            ("align.student", ("vit", "clip", "ssl4eo-moco-vits16-s2")),
        )
    )
    return config
