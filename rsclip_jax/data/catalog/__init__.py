"""The datasets: what the files of each hold, class names, prompts, a TOML file."""
