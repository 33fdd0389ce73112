"""Stage align: a sensor encoder onto the features of the patched CLIP."""
