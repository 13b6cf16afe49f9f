"""`coldchain notify`: those who are told what happens."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Annotated

import typer

from coldchain import config
from coldchain.cli.console import DEFAULT_CONFIG, ConfigOption, output
from coldchain.errors import DeliveryError
from coldchain.model.events import Event, Notice, Severity
from coldchain.model.identity import new_id
from coldchain.notify.channel import Channel
from coldchain.notify.mail import Mail
from coldchain.notify.message import Batch

app = typer.Typer(add_completion=False, no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Those who are told what happens."""


@app.command("test")
def test(
    name: Annotated[str, typer.Argument(help="The rule's name in facility.toml.")],
    config_file: ConfigOption = DEFAULT_CONFIG,
) -> None:
    """Send a test message to a rule's receiver, once, and say what became of it.

    Example: coldchain notify test staff
    """
    receiver = config.load(config_file).receiver_named(name)
    text = "A test message, sent by hand. The rule reaches you."
    event = Event(new_id(), datetime.now(UTC), Severity.INFO, "notify.test", text)
    began = time.monotonic()
    try:
        complaints = receiver.channel.send(Batch((Notice(event, owner_mail=_stand_in(receiver.channel)),)))
    except DeliveryError as error:
        error.found = f"{name}: {receiver.channel}: {error.found}"
        raise
    seconds = time.monotonic() - began
    output.print(f"{name}: {receiver.channel}: handed over in {seconds:.1f} s", markup=False, highlight=False)
    if complaints:
        raise DeliveryError(f"{name}: refused: {'; '.join(complaints)}", remedy="Check these addresses.")


def _stand_in(channel: Channel) -> str:
    """Who gets the test of a rule that reaches owners alone: the mails' sender."""
    return channel.sender if isinstance(channel, Mail) and not channel.to else ""
