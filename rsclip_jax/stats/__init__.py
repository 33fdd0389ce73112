"""Bootstrap and paired tests."""
