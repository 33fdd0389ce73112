"""Patch a CLIP for your own labelled images, and keep what it knew.

Purpose   Fine-tune the visual tower on your dataset, interpolate with the original
          weights, and choose alpha on your validation images.
Command   python -m rsclip_jax.main --config=configs/patch.py --config.data=mine.toml
              --config.init=RemoteCLIP-ViT-B-32
          config.data: the TOML file of your dataset, or a name such as eurosat_rgb with
          --config.data_root. Its splits give train, val and test; where one is
          missing, a part of train stands for it, as the first lines printed say.
          config.init: a weight file, a name of weights, or an earlier workdir.
Hardware  One GPU for a ViT-B/32; on CPU it runs, and takes hours.
Time      500 steps of 32 images, and 11 evaluations of the validation images.
Result    runs/patch: a table with your test images before and after, report.html, and
          the patched CLIP, which --config.init=runs/patch takes.

What is forgotten is counted on supported datasets. The default is the embedded
miniature_natural; a CLIP that does no better than guessing on it is not limited by it,
which is logged. Name a dataset that your CLIP must not lose instead:
    --config.patch.supported_val="('cifar10:train[95%:]',)"
    --config.patch.supported_test="('cifar10:test',)" --config.data_root=DATA
Or take an alpha: --config.patch.alpha=0.5
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("patch",))
    config.patch = common.patch(
        supported_val=("miniature_natural:val",),
        supported_test=("miniature_natural:test",),
        supported_above_chance=True,
        batch_size=32,
        steps=500,
        lr=1e-5,
        warmup=50,
        weight_decay=0.1,
        augment={"crop_scale": (0.5, 1.0), "flip_ud": True, "rotate": True},
    )
    return config
