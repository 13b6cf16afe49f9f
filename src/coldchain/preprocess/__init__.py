"""What is computed for each exposure and in what order: align → CTF → pick → previews."""
