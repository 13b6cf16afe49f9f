"""All trees of a watch configuration, watched together; the file may be read again without missing anything."""

from __future__ import annotations

import logging
import select
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from coldchain.collect.event_tree import POLL_SECONDS, SETTLE_SECONDS, EventTree
from coldchain.collect.iwatch_config import PathRule, WatchConfig
from coldchain.collect.watch_rules import Exceptions, Happening, RuleKeeper, spelled

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.2
"""How often is looked at what no event tells of: files that settle, roots that come and go."""

_Key = tuple[str, bool]


class WatchService:
    """Watches what a configuration names. No thread: the owner calls `poll`, and `close` at the end.

    Parameters
    ----------
    config : the rules. Those of one path share a tree.
    initial : tell what is there at the start as if it had just come.
    """

    def __init__(
        self,
        config: WatchConfig,
        *,
        initial: bool = False,
        settle_seconds: float = SETTLE_SECONDS,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._initial = initial
        self._settle_seconds = settle_seconds
        self._poll_seconds = poll_seconds
        self._trees: dict[_Key, EventTree] = {}
        self._keepers: dict[_Key, list[RuleKeeper]] = {}
        self._said: set[str] = set()
        self._exceptions = Exceptions(config, self._notice)
        self.change(config)

    def change(self, config: WatchConfig) -> None:
        """Go over to other rules. Trees that stay miss nothing meanwhile; those that are new begin now."""
        self._said.clear()
        self._exceptions = Exceptions(config, self._notice)
        rules: dict[_Key, list[PathRule]] = {}
        for rule in config.rules:
            rules.setdefault((rule.path, rule.recursive), []).append(rule)
        for key in self._trees.keys() - rules.keys():
            self._trees.pop(key).close()
        before, self._keepers = self._keepers, {}
        for key, wanted in rules.items():
            old = {keeper.rule: keeper for keeper in before.get(key, ())}
            self._keepers[key] = [old.get(rule) or RuleKeeper(rule, self._notice) for rule in wanted]
            events = 0
            for rule in wanted:
                events |= rule.events
            if key in self._trees:
                self._trees[key].change(events)
            else:
                self._trees[key] = self._tree(key, events)

    def poll(self, timeout_seconds: float = PAUSE_SECONDS) -> Iterator[Happening]:
        """What has happened to what the rules are about; waits for something to happen, but not longer than that."""
        self._wait(timeout_seconds)
        now = time.monotonic()
        for key, tree in list(self._trees.items()):
            for event in tree.poll(now):
                for keeper in self._keepers[key]:
                    happening = keeper.judge(event, self._exceptions)
                    if happening is not None:
                        yield happening

    @property
    def is_ready(self) -> bool:
        """Whether all that was there has been listed, and is watched."""
        return not any(tree.is_busy for tree in self._trees.values())

    def close(self) -> None:
        """Stop watching."""
        for tree in self._trees.values():
            tree.close()
        self._trees.clear()

    def _tree(self, key: _Key, events: int) -> EventTree:
        path, recursive = key
        return EventTree(
            Path(path),
            recursive=recursive,
            events=events,
            notice=lambda notice: _warn(notice.message),
            initial=self._initial,
            enters=partial(self._enters, path),
            settle_seconds=self._settle_seconds,
            poll_seconds=self._poll_seconds,
        )

    def _enters(self, root: str, folder: str) -> bool:
        return not self._exceptions.keep_out_of(spelled(root, folder))

    def _wait(self, timeout_seconds: float) -> None:
        if not self.is_ready:
            return
        waiting = select.poll()
        for tree in self._trees.values():
            descriptor = tree.fileno()
            if descriptor is not None:
                waiting.register(descriptor, select.POLLIN)
        waiting.poll(timeout_seconds * 1000)

    def _notice(self, message: str) -> None:
        if message not in self._said:
            self._said.add(message)
            _warn(message)


def _warn(message: str) -> None:
    log.warning("%s", message)
