"""What a dataset holds, before anything is trained on it: counts, values, pictures.

--config=configs/inspect.py --config.dataset=eurosat_rgb --config.data_root=DIR
    prints a table; summary.json and contact_sheet.png are in
    runs/inspect/inspect/eurosat_rgb/
"""

import ml_collections

from configs import common


def get_config():
    config = common.base(stages=("inspect",))
    config.dataset = "miniature"  # a name of the table in README.md, or a TOML file
    config.inspect = ml_collections.ConfigDict(
        {"samples": 200}  # records read of each split, evenly over it; 0 = all
    )
    return config
