"""Runs side by side: what differs between their results, and how surely.

--config=configs/compare.py --config.runs="('runs/a','runs/b')"
    the first is the baseline, each other one is compared with it; the same examples are
    drawn for both, so a small difference can be told from chance. A table is printed;
    it, comparison.jsonl and compare.html are in runs/compare/compare/. One combination
    of an ablation is a run, too: 'runs/ablate/ablate/losses=mse,student=vit'
"""

from rsclip_jax.configs import common


def get_config():
    config = common.base(stages=("compare",))
    # Two or more workdirs whose stages are done; the first is the baseline.
    config.runs = ()
    return config
