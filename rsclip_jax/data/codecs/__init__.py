"""Bytes to arrays, and checks of an array."""
