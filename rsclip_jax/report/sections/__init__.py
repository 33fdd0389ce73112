"""The sections of a run's report: each of the workdir, None without its data."""
