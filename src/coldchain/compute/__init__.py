"""Where work runs. One interface; a pool of processes on this machine stands behind it."""
