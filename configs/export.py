"""Write a model for other tools.

Purpose   Give a patched CLIP and its sensor encoders to open_clip, OpenAI's code,
          Hugging Face or timm.
Command   python -m rsclip_jax.main --config=configs/export.py
              --config.init=runs/align_sar --config.export.layout=hf
Hardware  CPU, with memory for the model.
Time      Seconds.
Result    runs/export/export: the CLIP, its sensor encoders in timm's names, and a model
          card.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("export",))
    config.export = common.export()
    return config
