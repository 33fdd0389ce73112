"""Inspection of a dataset before it is used."""
