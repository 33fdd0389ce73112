"""Write a model for other tools: set config.init to a workdir, a file or a name.

--config=configs/export.py --config.init=runs/align_sar --config.export.layout=hf
    the patched CLIP, its sensor encoders in timm's names and a model card, in
    runs/export/export/
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("export",))
    config.export = common.export()
    return config
