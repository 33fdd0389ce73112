"""Atomic writing, locks, torch archives, look-up by name."""
