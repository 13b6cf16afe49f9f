"""Stores on another host, by SSH and a small helper that runs there."""
