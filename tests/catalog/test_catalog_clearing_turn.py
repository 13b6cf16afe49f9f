"""One process at a time clears a site's copies, whichever configuration or host it was started from."""

from __future__ import annotations

from contextlib import closing

from coldchain.catalog.clearing_turn import clearing_turn
from coldchain.catalog.engine import Catalog, open_catalog


def test_one_process_of_a_site_has_the_turn(url: str, catalog: Catalog) -> None:
    """A second one of the same site has not, until the first has ended; another site has its own."""
    with closing(open_catalog(url, "here")) as second, closing(open_catalog(url, "there")) as elsewhere:
        with clearing_turn(catalog) as first:
            assert first
            for _ in range(2):
                with clearing_turn(second) as is_ours:
                    assert not is_ours
            with clearing_turn(elsewhere) as is_ours:
                assert is_ours
        with clearing_turn(second) as is_ours:
            assert is_ours
        with clearing_turn(catalog) as is_ours:
            assert is_ours


def test_a_turn_ends_with_its_process(url: str, catalog: Catalog) -> None:
    """Whoever dies in its turn, here by the loss of its connections, holds up nobody."""
    second = open_catalog(url, "here")
    try:
        with clearing_turn(second) as is_ours:
            assert is_ours
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        second.close()
    with clearing_turn(catalog) as is_ours:
        assert is_ours
