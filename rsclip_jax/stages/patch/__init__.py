"""Stage patch: robust fine-tuning and weight interpolation."""
