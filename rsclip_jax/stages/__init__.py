"""One file, one stage; the only readers of a ConfigDict besides main."""
