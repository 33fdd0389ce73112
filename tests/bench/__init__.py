"""Benchmarks that print; pytest does not collect them. Outcomes are in NOTES.md."""
