"""Readers of public archive layouts: a folder in, a Listing out."""
