"""Packing: rewrites an archive once as ArrayRecord shards."""
