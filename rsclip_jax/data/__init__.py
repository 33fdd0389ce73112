"""Data: sensors, datasets, pipelines, prompts. Imports neither models nor optax."""
