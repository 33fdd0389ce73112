"""Stage evaluate: every measurement of a CLIP and its sensor encoders."""
