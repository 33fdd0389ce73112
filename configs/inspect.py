"""What a dataset holds, before anything is trained on it: counts, values, pictures.

--config=configs/inspect.py --config.dataset=eurosat_rgb --config.data_root=DIR
    prints a table; summary.json and contact_sheet.png are in
    runs/inspect/inspect/eurosat_rgb/
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("inspect",))
    # Dataset to inspect: a name in the table of datasets, or a TOML file.
    config.dataset = "miniature"
    config.inspect = common.inspect()
    return config
