"""Scenes: whole satellite images, which are read by windows."""
