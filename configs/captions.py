"""A CLIP from captioned images: contrastive training from scratch, then retrieval.

--config=configs/captions.py --config.data_root=DATA
    trains on RSICD and RSITMD; sets of classes can stand beside them in
    config.pretrain.train, such as 'resisc45:train', their class names being captions
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
