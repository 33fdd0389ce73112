"""The records that a run writes: results, outcomes, meta, comparisons."""
