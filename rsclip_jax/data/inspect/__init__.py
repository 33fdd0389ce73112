"""A dataset looked through before it is used."""
