"""From an archive on disk to a source."""
