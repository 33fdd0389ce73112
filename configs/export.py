"""Write a model for other tools: set config.init to a workdir, a file or a name.

--config=configs/export.py --config.init=runs/align_sar --config.export.layout=hf
    the patched CLIP, its sensor encoders in timm's names and a model card, in
    runs/export/export/
"""

import ml_collections

from configs import common


def get_config():
    config = common.base(stages=("export",))
    config.export = ml_collections.ConfigDict(
        {
            "layout": "open_clip",  # open_clip | openai | hf
            "dtype": "float32",  # float32 | float16 | bfloat16
            # of a patched CLIP another alpha than the chosen one; without its sensor
            # encoders, which were aligned to the chosen one
            "alpha": ml_collections.config_dict.placeholder(float),
        }
    )
    return config
