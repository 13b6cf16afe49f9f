"""Making the copies that the catalog wants."""
