"""A part of the facility that looks at something in the catalog again and again, and tells of it there."""

from __future__ import annotations

import logging
import threading
from abc import ABC, abstractmethod

from coldchain.errors import CatalogError

log = logging.getLogger(__name__)


class RegularLook(ABC):
    """Looks every `pause_seconds`, in a thread of its own that bears `name`. A look that the catalog refuses is logged
    with `fault` ("orphans cannot be looked for"), and the next one is made all the same."""

    def __init__(self, name: str, *, pause_seconds: float, fault: str) -> None:
        self._pause_seconds = pause_seconds
        self._fault = fault
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    @abstractmethod
    def look(self) -> int:
        """Look once; how much was told. Raises CatalogError."""

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End. Calling it again does nothing."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def idle(self) -> bool:
        """Always: looking is no work that anybody waits for."""
        return True

    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def _run(self) -> None:
        while not self._stopping.wait(self._pause_seconds):
            try:
                self.look()
            except CatalogError as error:
                log.warning("%s: %s", self._fault, error)
