"""Records to batches: order, augmentation, normalisation."""
