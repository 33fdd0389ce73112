"""Random access to records, whatever holds them."""
