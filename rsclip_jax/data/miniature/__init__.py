"""The embedded world of synthetic scenes, which needs no files."""
