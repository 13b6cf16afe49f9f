"""Processes that tests kill, forked from one that has imported what they need: a kill then costs no start of Python."""

from __future__ import annotations

import multiprocessing
from multiprocessing.context import ForkServerContext

# The server is started once for all tests of a process, by whichever comes first.
_PRELOADED = ["tests.collect.collecting_process", "tests.notify.telling_process"]


def forking() -> ForkServerContext:
    """Where such processes are started."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)
    return context
