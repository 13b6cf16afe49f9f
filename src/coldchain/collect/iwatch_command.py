"""iwatch's command strings, made safe: `exec="rsync %f host:/data"` for whatever name the file has.

A command string is a line of shell in which `%f` and its kin stand for what happened. A name is anything but a slash or
a NUL; pasted in as it is, `a; rm -rf ~` would be obeyed. So the line is read once, when it is set up, as the shell will
read it; for each specifier it is known where it stands (bare, inside '…', inside "…", inside `…`), and the value is
quoted for that place. Where no quoting is safe, the line is refused with the reason, never run.

| | stands for |
|---|---|
| `%p`, `%v` | this program, its version |
| `%f` | the path that something happened to |
| `%F` | on a move, the path that it had; else nothing |
| `%e` | the event: `IN_CLOSE_WRITE`, `IN_ISDIR,IN_CREATE` |
| `%c` | the kernel's number that a move's two halves share |
| `%%` | a percent sign |

Lines that hand a text to another shell (`sh -c "… %f …"`, `ssh host …`, `eval`) are read a second time by somebody
else. There only names without any special character are filled in; others are refused, name by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from coldchain.errors import ProcessingError, UsageError, printable

SPECIFIERS = "pvfFec"
_SCRIPT = "Put the command into a script of its own and give it the names as arguments"
_SPECIFIER = re.compile(rf"%[{SPECIFIERS}]")
_WORD_STARTS = " \t\n;&|()<>"
PLAIN_CHARACTERS = "letters, digits and _ . / : @ % + = , -"
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_./:@%+=,][A-Za-z0-9_./:@%+=,-]*", re.ASCII)
_CASE = re.compile(r"\b(?:case|esac)\b")
_WORD = r"(?:^|[\s;&|(`\"'/{])"
_END = r"(?:$|[\s\"';&|)`])"
_READS_ALL = re.compile(
    rf"{_WORD}(?:eval|ssh|parallel|trap|watch|tmux|screen|sudo\s(?:.*\s)?(?:-\w*[si]|--shell|--login)){_END}", re.DOTALL
)
"""Programs that give the whole of their arguments to a shell."""
_OF_RSYNC = re.compile(r"(\brsync\b[^;&|\n]*?\s)(?:-\w*e|--rsh)[\s=]*(?:'[^'%{]*'|\"[^\"%{]*\"|[^\s'\"%{]+)(?=\s)")
"""rsync's own way to another machine: the shell there is not given what stands beside it."""
_REMOTE_PATH = re.compile(
    r"\b(?:rsync|scp)\b(?![^;&|\n]*\s(?:-[A-Za-z]*s[A-Za-z]*|--protect-args|--secluded-args)\s)"
    r"[^;&|\n]*?[\s'\"][\w.@\[\]-]+:[^;&|\n]*?(?:%[fF]|\{(?:path|relative|folder|name|old_path)\})"
)
"""A path on another machine, which older versions of these have a shell there read."""
_READS_ONE = re.compile(
    rf"""{_WORD}(?:
        (?: (?:ba|da|a|k|mk|z|c|tc|fi)?sh | su | runuser | script | flock | sg | env | perl | python[\d.]* | ruby )
            \s (?:.*\s)? (?:-\w*[cCeES]|--command|--split-string)
        | [gmn]?awk | sed
    ){_END}""",
    re.VERBOSE | re.DOTALL,
)
"""Programs that read one of their arguments as code."""
_BEFORE_WORD = re.compile(r"(?:^|[\s=])\Z")
_AFTER_WORD = re.compile(r"[\s;|&)<>`]|\Z")
_AFTER_OPTION = re.compile(r"\s(?:-\w*[cCeES]|--command|--split-string)[\s=]*\Z")


class _Place(Enum):
    """Where a specifier stands, as the shell sees it."""

    BARE = "outside quotes"
    SINGLE = "inside '…'"
    DOUBLE = 'inside "…"'


@dataclass(frozen=True, slots=True)
class _Slot:
    letter: str
    place: _Place
    in_backticks: bool


@dataclass(frozen=True, slots=True)
class CommandTemplate:
    """A command string that has been read; `fill` makes the line for the shell. Made by `read_command`."""

    source: str
    pieces: tuple[str | _Slot, ...]
    is_read_again: bool

    def fill(self, values: Mapping[str, str]) -> str:
        """The line for `sh -c`, from the values of the letters of `SPECIFIERS` (`os.fsdecode`d).

        Raises ProcessingError where the line is read by a second shell and a value has a character that it would
        interpret.
        """
        if self.is_read_again:
            self._refuse_what_a_second_shell_reads(values)
        return "".join(
            piece if isinstance(piece, str) else _quoted(values[piece.letter], piece) for piece in self.pieces
        )

    def _refuse_what_a_second_shell_reads(self, values: Mapping[str, str]) -> None:
        for piece in self.pieces:
            if isinstance(piece, _Slot) and not is_plain(values[piece.letter]):
                raise ProcessingError(
                    f"the command hands its text to another shell, which would interpret characters of the name "
                    f"{printable(values[piece.letter])}",
                    expected=PLAIN_CHARACTERS,
                    remedy=f"{_SCRIPT}; rsync takes any name with its option -s",
                )


def read_command(source: str) -> CommandTemplate:
    """Read a command string. Raises UsageError, with the reason, where no quoting would be safe."""
    if "\0" in source or not source.strip():
        raise UsageError("the command is empty or holds a NUL", remedy="Write what is to be run")
    reader = _Reader(source)
    reader.read()
    is_read_again = is_read_by_a_shell(source) or bool(reader.is_part_of_text and _READS_ONE.search(source))
    return CommandTemplate(source, tuple(reader.pieces), is_read_again)


def is_read_by_a_shell(source: str) -> bool:
    """Whether a command gives its arguments as a text to a shell, here or on another machine."""
    return bool(_READS_ALL.search(_OF_RSYNC.sub(r"\1", source)) or _REMOTE_PATH.search(source))


def is_plain(value: str) -> bool:
    """Whether a value means the same to every shell; nothing does."""
    return not value or _PLAIN_VALUE.fullmatch(value) is not None


def _quoted(value: str, slot: _Slot) -> str:
    if slot.place is _Place.SINGLE:
        text = value.replace("'", "'\\''")
    elif slot.place is _Place.DOUBLE:
        text = re.sub(r'([\\"$`])', r"\\\1", value)
    else:
        # As in iwatch, what is empty leaves no empty word behind. Always quoted: 2>x is not '2'>x.
        text = "'" + value.replace("'", "'\\''") + "'" if value else ""
    # What stands between backticks is unescaped once before it is read.
    return re.sub(r"([\\$`])", r"\\\1", text) if slot.in_backticks else text


class _Reader:
    """Goes through a command string as POSIX's shell does (XCU 2.2, 2.3), as far as quoting is concerned.

    `_open` holds what has been opened and not yet closed: `"`, `(` (also of `$(`), `` ` ``, `{` (of `${`), `+` (of
    `$((`).
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._at = 0
        self._open: list[str] = []
        self._literal = ""
        self.pieces: list[str | _Slot] = []
        self.is_part_of_text = False
        """Whether a specifier is anything but a word, or the whole of a quoted word: then it may be part of code."""
        self._has_specifier = _SPECIFIER.search(source.replace("%%", "")) is not None

    def read(self) -> None:
        """Fill `pieces`."""
        while self._at < len(self._source):
            self._step()
        if self._open and self._has_specifier:
            raise self._refusal(f"what {self._open[-1]} begins does not end")
        self._end_literal()

    def _step(self) -> None:
        character = self._source[self._at]
        if character == "%":
            self._percent(_Place.DOUBLE if self._inside == '"' else _Place.BARE)
        elif not self._has_specifier:
            self._take(1)  # nothing will be filled in: the shell may read it as it likes
        elif character == "\\":
            self._backslash()
        elif self._inside == "{":
            self._braces(character)
        elif self._inside == '"':
            self._common(character)
        else:
            self._bare(character)

    @property
    def _inside(self) -> str:
        return self._open[-1] if self._open else ""

    def _bare(self, character: str) -> None:
        if character == "'":
            self._single()
        elif character == "#" and self._begins_word():
            raise self._refusal("a comment, in which nothing can be quoted")
        elif self._source.startswith("<<", self._at):
            raise self._refusal("a here-document")
        elif self._source.startswith("$'", self._at):
            raise self._refusal("$'…', which not every shell knows")
        elif character == "(":
            self._enter("(")
        elif character == ")":
            self._close_parenthesis()
        else:
            self._common(character)

    def _common(self, character: str) -> None:
        """What means the same outside quotes and inside "…"."""
        if character == '"':
            self._toggle('"')
        elif character == "`":
            if "`" in self._open and self._inside != "`":
                raise self._refusal("a quote that ` ends")
            self._toggle("`")
        elif self._source.startswith("$((", self._at):
            self._open.append("+")
            self._enter("(", 3)
        elif self._source.startswith("$(", self._at):
            self._enter("(", 2)
        elif self._source.startswith("${", self._at):
            self._enter("{", 2)
        else:
            self._take(1)

    def _braces(self, character: str) -> None:
        if character in "'\"`$({":
            raise self._refusal("quotes or expansions inside ${…}")
        if character == "}":
            self._open.pop()
        self._take(1)

    def _close_parenthesis(self) -> None:
        if self._inside == "(":
            if _CASE.search(self._source):
                raise self._refusal("a `case`, whose parentheses cannot be told from others")
            self._open.pop()
            if self._inside == "+":  # its own second parenthesis follows
                self._open[-1] = "("
        self._take(1)

    def _single(self) -> None:
        end = self._source.find("'", self._at + 1)
        if end < 0:
            raise self._refusal("a ' that does not end")
        self._take(1)
        while self._at < end:
            if self._source[self._at] == "%":
                self._percent(_Place.SINGLE)
            elif "`" in self._open and self._source[self._at] in "\\`":
                raise self._refusal("a backslash or a backtick quoted inside `…`")
            else:
                self._take(1)
        self._take(1)

    def _backslash(self) -> None:
        if "`" in self._open:
            raise self._refusal("a backslash inside `…`")
        if _SPECIFIER.match(self._source, self._at + 1):
            raise self._refusal("a backslash before a specifier")
        if self._inside == "{":
            raise self._refusal("a backslash inside ${…}")
        following = self._source[self._at + 1 : self._at + 2]
        # A percent sign after it is looked at by itself: %% is one percent sign wherever it stands.
        self._take(1 if following == "%" else 2)

    def _percent(self, place: _Place) -> None:
        letter = self._source[self._at + 1 : self._at + 2]
        if letter == "%":
            self._literal += "%"
            self._at += 2
        elif letter and letter in SPECIFIERS:
            if self._inside == "{" or "+" in self._open:
                raise self._refusal(f"%{letter} inside ${{…}} or $((…))")
            if place is not _Place.SINGLE and self._source[: self._at].endswith("$"):
                raise self._refusal(f"a $ before %{letter}")
            self._end_literal()
            self.is_part_of_text |= not self._is_argument(place)
            self.pieces.append(_Slot(letter, place, "`" in self._open))
            self._at += 2
        else:
            self._take(1)

    def _is_argument(self, place: _Place) -> bool:
        before, after = self._source[: self._at], self._source[self._at + 2 :]
        if place is not _Place.BARE:
            mark = "'" if place is _Place.SINGLE else '"'
            if not (before.endswith(mark) and after.startswith(mark)):
                return False
            before, after = before[:-1], after[1:]
        return bool(_BEFORE_WORD.search(before) and _AFTER_WORD.match(after) and not _AFTER_OPTION.search(before))

    def _begins_word(self) -> bool:
        return self._at == 0 or self._source[self._at - 1] in _WORD_STARTS + "`"

    def _toggle(self, mark: str) -> None:
        if self._inside == mark:
            self._open.pop()
        elif mark == "`" and '"' in self._open and self._open.count('"') > 1:
            raise self._refusal("backticks inside quotes inside a substitution")
        else:
            self._open.append(mark)
        self._take(1)

    def _enter(self, mark: str, length: int = 1) -> None:
        self._open.append(mark)
        self._take(length)

    def _take(self, count: int) -> None:
        self._literal += self._source[self._at : self._at + count]
        self._at += count

    def _end_literal(self) -> None:
        if self._literal:
            self.pieces.append(self._literal)
            self._literal = ""

    def _refusal(self, what: str) -> UsageError:
        return UsageError(
            f"the command {self._source!r} holds {what}, so that its specifiers cannot be filled in safely",
            remedy=_SCRIPT,
        )
