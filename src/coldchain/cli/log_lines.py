"""What a service says on standard error."""

from __future__ import annotations

import logging
import sys


def log_to_terminal() -> None:
    """One line for each thing that happens, on standard error, with the time."""
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s")
    for talkative in ("alembic", "uvicorn"):
        logging.getLogger(talkative).setLevel(logging.WARNING)
