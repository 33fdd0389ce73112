"""A CLIP from captioned images: contrastive training from scratch, then retrieval.

Purpose   Train image and text towers on RSICD and RSITMD. Datasets of classes can be
          mixed in, such as 'resisc45:train': their class names are the captions.
Command   python -m rsclip_jax.main --config=configs/captions.py --config.data_root=DATA
Hardware  Two CPU cores.
Time      3,000 steps of 64 images with a tower of variant "small"; not measured.
Result    runs/captions: recall of images by text and of text by images, before and
          after. Not measured.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("pretrain", "evaluate"))
    config.variant = "small"
    config.pretrain = common.pretrain(
        train=("rsicd:train", "rsitmd:train"),
        test=("rsicd:val",),
        batch_size=64,
        steps=3000,
        lr=1e-3,
        warmup=100,
        weight_decay=0.1,
        b2=0.98,
        augment={"crop_scale": (0.5, 1.0), "flip_ud": True, "rotate": True},
    )
    config.datasets = ("rsicd:test", "rsitmd:test")
    config.evaluate = common.evaluate()
    return config
