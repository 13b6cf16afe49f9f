"""How full stores are, and when they will be."""
