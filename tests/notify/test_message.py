"""Events in words, however hostile their own are."""

from __future__ import annotations

from email import message_from_bytes
from email.message import EmailMessage
from email.policy import SMTP

from hypothesis import given
from hypothesis import strategies as st

from coldchain.model.events import Severity
from coldchain.notify.mail import as_mail
from coldchain.notify.message import MOST_LINES, SUBJECT_CHARACTERS, compose
from coldchain.notify.webhook import as_text
from tests.notify.notify_givens import HOSTILE, batch, notice

ANY = st.text(st.characters(), max_size=400) | st.just(HOSTILE) | st.just("x" * 5000) | st.just("ü" * 5000)


def parsed(mail: EmailMessage) -> EmailMessage:
    """The mail as its reader's program has it."""
    read = message_from_bytes(mail.as_bytes(), policy=SMTP)
    assert isinstance(read, EmailMessage)
    return read


def test_a_single_event_is_told_in_subject_and_line() -> None:
    """Who, what, where and when."""
    message = compose(batch(notice()), "EM unit")
    assert message.subject == "[EM unit] alert.raised: krios / visit: the focus has changed"
    assert message.lines == ("2026-02-03 04:05:06 UTC  warning  alert.raised  krios / visit: the focus has changed",)


def test_many_events_are_counted_and_the_severest_are_shown() -> None:
    """A digest has a bounded length; what is left out is counted by its kind."""
    flood = [notice(n, kind="file.damaged") for n in range(1, 500)]
    message = compose(batch(notice(0, severity=Severity.ERROR), *flood, lost={"x.y": 7}), "EM")
    assert message.subject == "[EM] 500 events: 1 error, 499 warning"
    assert len(message.lines) == MOST_LINES + 2
    assert "error" in message.lines[0]
    assert message.lines[-2] == "and 400 more: file.damaged 400"
    assert message.lines[-1].startswith("Not told before, and never will be: 7 (x.y 7).")


@given(text=ANY, kind=ANY, session=ANY, facility=ANY, several=st.booleans())
def test_no_text_can_break_out_of_its_line_or_its_header(
    text: str, kind: str, session: str, facility: str, several: bool
) -> None:
    """Whatever stands in names and messages: one line each, five headers of ours, one part, and no more lines."""
    events = [notice(n, message=text, kind=kind, session=session) for n in range(1 + several)]
    message = compose(batch(*events), facility)
    assert len(message.subject) <= SUBJECT_CHARACTERS
    assert all(line.isprintable() for line in (message.subject, *message.lines))
    read = parsed(as_mail(message, sender="cold@example.org", to=("a@example.org", "b@example.org"), facility=facility))
    assert sorted(read.keys()) == sorted(
        [
            "Subject",
            "From",
            "To",
            "Date",
            "Message-ID",
            "Auto-Submitted",
            "MIME-Version",
            "Content-Type",
            "Content-Transfer-Encoding",
        ]
    )
    assert read["Subject"] == message.subject
    assert [address.addr_spec for address in read["From"].addresses] == ["cold@example.org"]
    assert [address.addr_spec for address in read["To"].addresses] == ["a@example.org", "b@example.org"]
    assert read.get_content().splitlines() == list(message.lines)


@given(text=ANY, session=ANY)
def test_no_text_can_call_a_channel_or_end_its_block(text: str, session: str) -> None:
    """In a chat everything that is not ours stands in one block, in which nothing is markup."""
    head, block, end = as_text(batch(notice(message=text, session=session)), "EM").split("```")
    assert (head, end) == ("EM\n", "")
    assert "<" not in block
    assert ">" not in block
    assert block.count("\n") == 2
