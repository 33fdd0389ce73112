"""Readers of public archive layouts: folders in, (ids, labels, records) out."""
