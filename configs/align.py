"""Align the sensors of your own dataset to a CLIP, through the RGB beside them.

Purpose   Train an encoder for each sensor beside RGB, so that its embeddings can be
          compared with text and with RGB images.
Command   python -m rsclip_jax.main --config=configs/align.py --config.data=mine.toml
              --config.init=runs/patch
          config.data: the TOML file of your dataset, or a name with --config.data_root.
          Every sensor beside rgb is aligned; labels, where there are any, add a small
          loss term. Its splits give train and test.
          config.init: a patched workdir, a weight file, or a name of weights.
Hardware  One GPU for a ViT-B/32 teacher and student; on CPU it runs, and takes hours.
Time      2,000 steps of 32 pairs.
Result    runs/align: a table with zero-shot and retrieval of each sensor before and
          after, report.html, and the encoders, which --config.init=runs/align takes.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("align",))
    config.align = common.align(
        sensor="",  # as the dataset says
        losses=(),  # as the dataset says: mse, and labels where it has some
        batch_size=32,
        steps=2000,
        lr=1e-4,
        warmup=200,
        augment={"flip_ud": True, "rotate": True},
    )
    return config
