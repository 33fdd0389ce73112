"""Pack a dataset: its small files into a few large ones, which are read faster.

Purpose   Copy a dataset that is read often into files that a disk reads in sequence.
Command   python -m rsclip_jax.main --config=configs/pack.py --config.data_root=DATA
              --config.dataset=eurosat_rgb --config.pack.out=PACKED
          The same command continues after an interruption.
Hardware  CPU; room for one more copy of the dataset.
Time      About that of reading the dataset once.
Result    PACKED/eurosat_rgb/<split>/part-*.array_record and manifest.json, which
          --config.data_root=PACKED reads.
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("pack",))
    # Dataset to pack: a name in the table of datasets, or a TOML file.
    config.dataset = ""
    config.pack = common.pack()
    return config
