"""Stage align: trains sensor encoders to reproduce the patched CLIP's features."""
