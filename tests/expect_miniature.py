"""python -m tests.expect_miniature WORKDIR: whether a run of the embedded job learned.

Wide margins below what the README reports: a machine's rounding moves the numbers, a
broken stage misses them by far.
"""

import sys
from pathlib import Path

from rsclip_jax.records.results import read_results
from rsclip_jax.train.checkpoint import load_meta


def main(workdir: Path) -> int:
    """Prints each expectation with what was found; the number of those that failed."""
    results = read_results(workdir / "results.jsonl")
    alpha = load_meta(workdir / "patch").alpha

    def value(**match):
        found = [
            r for r in results if all(getattr(r, k) == v for k, v in match.items())
        ]
        assert found, match
        return found[-1].value

    task = {"stage": "patch", "dataset": "miniature", "split": "test"}
    task |= {"task": "zero_shot", "metric": "accuracy"}
    kept = {**task, "dataset": "miniature_natural"}
    before, chosen, tuned = (value(**task, alpha=a) for a in (0.0, alpha, 1.0))
    kept_0, kept_chosen, kept_1 = (value(**kept, alpha=a) for a in (0.0, alpha, 1.0))
    sar = {"stage": "align", "sensor": "s1", "metric": "accuracy"}
    place = {"stage": "align", "sensor": "rgb->s1", "metric": "recall@50"}
    gap = {"stage": "align", "sensor": "rgb->s1", "metric": "centroid_distance"}
    probe = {"stage": "evaluate", "sensor": "s1", "metric": "accuracy"}
    last = max(r.step for r in results if r.stage == "align")
    expectations = [
        ("RGB zero-shot before patching is poor", before, 0.1, 0.6),
        ("fine-tuned RGB is good", tuned, 0.8, 1),
        ("the chosen mixture gains", chosen - before, 0.1, 1),
        ("fine-tuning alone forgets", kept_0 - kept_1, 0.1, 1),
        ("the chosen mixture forgets less", kept_chosen - kept_1, 0.1, 1),
        ("SAR zero-shot before alignment is poor", value(**sar, step=0), 0, 0.4),
        ("SAR zero-shot after it", value(**sar, step=last), 0.5, 1),
        ("retrieval before alignment is poor", value(**place, step=0), 0, 0.2),
        ("retrieval after it", value(**place, step=last), 0.3, 1),
        ("RGB and SAR lie apart before alignment", value(**gap, step=0), 0.4, 2),
        ("they do not after it", value(**gap, step=last), 0, 0.3),
        ("a linear probe of SAR", value(**probe, task="linear_probe"), 0.6, 1),
        ("its nearest neighbours", value(**probe, task="knn"), 0.6, 1),
    ]
    failed = 0
    for words, got, low, high in expectations:
        good = low <= got <= high
        failed += not good
        print(f"{'ok  ' if good else 'FAIL'} {words}: {got:.3f} in [{low}, {high}]")
    return failed


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
