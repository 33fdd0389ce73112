"""Packing: an archive rewritten once as ArrayRecord shards."""
