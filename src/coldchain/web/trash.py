"""What of a session lies in trashes, and until when at least, as its page shows it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from coldchain.catalog import stores
from coldchain.model.policy import SOURCE
from coldchain.model.retention import Amount, Trashed
from coldchain.web.site import Site


@dataclass(frozen=True, slots=True)
class TrashBox:
    """So much lies in the trash of a store, `source` among them. `until` is when the first of it may be removed, None
    where no rule removes it, or it is only on its way."""

    store: str
    amount: Amount
    until: datetime | None

    @property
    def shell_store(self) -> str:
        """The store's name in a command that can be pasted."""
        return shlex.quote(self.store)


def boxes(site: Site, found: Sequence[Trashed]) -> list[TrashBox]:
    """A session's boxes, one for each store in whose trash something of it lies."""
    if not found:
        return []
    tiers = {(state.site, state.name): str(state.tier) for state in stores.all_stores(site.catalog)}
    made = []
    for each in found:
        names = {each.store} if each.store == SOURCE else {each.store, tiers.get((each.site, each.store), each.store)}
        grace_days = min((rule.grace_days for rule in site.retire_rules if names & set(rule.places)), default=None)
        until = None
        if each.since is not None and grace_days is not None and each.site == site.catalog.site:
            until = each.since + timedelta(days=grace_days)
        made.append(TrashBox(each.store, each.amount, until))
    return made
