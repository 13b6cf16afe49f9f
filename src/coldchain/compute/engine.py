"""What the pipeline asks of whatever runs its steps."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, Protocol, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Engine(Protocol):
    """Runs functions elsewhere. It holds nothing that matters: the catalog knows what was begun."""

    @property
    def slots(self) -> int:
        """How many functions can run at once."""
        ...

    def submit(self, function: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> Future[R]:
        """Run a module-level function with arguments that can be pickled.

        A worker that dies fails the future with `ComputeError`; the next submission gets a fresh worker.
        """
        ...

    def close(self) -> None:
        """Wait for what runs, then let the workers go."""
        ...
