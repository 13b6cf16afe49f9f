"""The names that iwatch gives to the kernel's file events, and the masks that they stand for (inotify(7))."""

from __future__ import annotations

from inotify_simple import flags, masks

KINDS = int(masks.ALL_EVENTS)
"""The bits that tell what happened to a file or a folder."""

TOLD_ANYWAY = int(flags.UNMOUNT | flags.Q_OVERFLOW | flags.IGNORED)
"""What the kernel tells whether or not it was asked."""

DEFAULT = int(
    flags.CLOSE_WRITE | flags.CREATE | flags.DELETE | masks.MOVE | flags.DELETE_SELF | flags.MOVE_SELF
)  # fmt: skip

EVENTS: dict[str, int] = {
    "access": int(flags.ACCESS),
    "modify": int(flags.MODIFY),
    "attrib": int(flags.ATTRIB),
    "close_write": int(flags.CLOSE_WRITE),
    "close_nowrite": int(flags.CLOSE_NOWRITE),
    "close": int(masks.CLOSE),
    "open": int(flags.OPEN),
    "moved_from": int(flags.MOVED_FROM),
    "moved_to": int(flags.MOVED_TO),
    "move": int(masks.MOVE),
    "create": int(flags.CREATE),
    "delete": int(flags.DELETE),
    "delete_self": int(flags.DELETE_SELF),
    "move_self": int(flags.MOVE_SELF),
    "unmount": int(flags.UNMOUNT),
    "q_overflow": int(flags.Q_OVERFLOW),
    "ignored": int(flags.IGNORED),
    "isdir": int(flags.ISDIR),
    "oneshot": int(flags.ONESHOT),
    "all_events": KINDS,
    "default": DEFAULT,
}

_SINGLE_BITS = {int(flag): f"IN_{flag.name}" for flag in flags if flag not in {flags.ISDIR, flags.ONESHOT}}


def parse_events(words: str) -> tuple[int, tuple[str, ...]]:
    """The mask of a comma-separated list of event names, and the names in it that are none."""
    mask = 0
    unknown = []
    for word in filter(None, ("".join(part.split()) for part in words.split(","))):
        if word in EVENTS:
            mask |= EVENTS[word]
        else:
            unknown.append(word)
    return mask, tuple(unknown)


def event_words(mask: int) -> str:
    """How iwatch writes one event: "IN_CLOSE_WRITE"; "IN_ISDIR,IN_CREATE" where it is a folder's."""
    words = ["IN_ISDIR"] if mask & flags.ISDIR else []
    words += [name for bit, name in _SINGLE_BITS.items() if mask & bit]
    return ",".join(words)
