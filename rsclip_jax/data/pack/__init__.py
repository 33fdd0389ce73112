"""An archive written once as sharded ArrayRecord."""
