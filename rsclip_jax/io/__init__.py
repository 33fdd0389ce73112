"""Files: atomic writing, torch archives, look-up by name."""
