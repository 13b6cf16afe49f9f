"""See data arrive: watch a camera's folder, know when a file is whole, know what it is, journal it in the catalog."""
