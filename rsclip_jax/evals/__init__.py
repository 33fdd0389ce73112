"""Evaluations: embeddings and labels in, records of results out."""
