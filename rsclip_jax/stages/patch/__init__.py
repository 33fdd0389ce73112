"""Stage patch: robust fine-tuning and interpolation."""
