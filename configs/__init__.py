"""Configs: one file per run that a person starts; values only."""
