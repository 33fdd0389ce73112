"""The package's version, for its face and for what it writes."""

__version__ = "0.2.0"
