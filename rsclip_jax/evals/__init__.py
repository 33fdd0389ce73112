"""Evaluations: a dataset in, records out."""
