"""Atomic writes, locks, torch files, lookup by name."""
