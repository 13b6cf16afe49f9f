"""Commands of facility.toml: `exec = ["rsync", "-a", "{path}", "store:/data/"]`, run as it stands, without a shell.

Each element is one argument, whatever it holds: spaces, quotes and newlines of a name need no quoting and cannot break
out. What remains is seen to here:

- An argument that would begin with a dash because of a name begins with `./` instead, so that none is an option.
- A text that a shell or another interpreter reads as code (`sh -c`, `perl -e`, `awk`) may hold no name.
- Programs that give their arguments to a shell elsewhere (`ssh`, `parallel`) get plain names only.

| | stands for |
|---|---|
| `{path}` | what something happened to |
| `{relative}` | the same, relative to the rule's path |
| `{folder}`, `{name}` | its folder, and its name in it |
| `{old_path}` | on a move, the path that it had; else nothing |
| `{events}` | the event: `IN_CLOSE_WRITE`, `IN_ISDIR,IN_CREATE` |
| `{cookie}` | the kernel's number that a move's two halves share |
| `{rule}` | the rule's name |
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from coldchain.collect.iwatch_command import PLAIN_CHARACTERS, is_plain, is_read_by_a_shell
from coldchain.errors import ProcessingError, UsageError, printable

NAMES = ("path", "relative", "folder", "name", "old_path", "events", "cookie", "rule")

_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
_INTERPRETER = re.compile(
    r"(?:ba|da|a|k|mk|z|c|tc|fi|pw|power)?sh(?:ell)?|busybox|su|runuser|script|flock|sg|env|perl|python[\d.]*|pypy[\d.]*"
    r"|ruby|node|deno|php|lua[\d.]*|Rscript|R|julia|octave|matlab|tclsh|sbatch|salloc|sqlite3|mysql|mariadb|psql"
)
_CODE_OPTION = re.compile(
    r"-\w*[cCeESrp]|-batch|-Command|-EncodedCommand|--command|--eval|--execute|--split-string|--print|--wrap"
)
_CODE_FIRST = re.compile(r"[gmn]?awk|sed")
"""Programs whose first argument is code, where no option brings it."""
_REMEDY = "Put it into a script of its own and give it the names as arguments"


@dataclass(frozen=True, slots=True)
class _Slot:
    name: str


@dataclass(frozen=True, slots=True)
class ArgvTemplate:
    """An argv that has been read; `fill` makes the arguments. Made by `read_argv`."""

    elements: tuple[tuple[str | _Slot, ...], ...]
    is_read_again: bool

    def fill(self, values: Mapping[str, str]) -> tuple[str, ...]:
        """The program and its arguments, from the values of `NAMES` (`os.fsdecode`d).

        Raises ProcessingError where a shell elsewhere would interpret a character of a name.
        """
        return tuple(self._filled(element, values) for element in self.elements)

    def _filled(self, element: tuple[str | _Slot, ...], values: Mapping[str, str]) -> str:
        for piece in element:
            if self.is_read_again and isinstance(piece, _Slot) and not is_plain(values[piece.name]):
                raise ProcessingError(
                    f"the command hands its arguments to another shell, which would interpret characters of the name "
                    f"{printable(values[piece.name])}",
                    expected=PLAIN_CHARACTERS,
                    remedy=f"{_REMEDY}; rsync takes any name with its option -s",
                )
        text = "".join(piece if isinstance(piece, str) else values[piece.name] for piece in element)
        is_name_first = bool(element) and isinstance(element[0], _Slot)
        return f"./{text}" if is_name_first and text.startswith("-") else text


def read_argv(argv: Sequence[str]) -> ArgvTemplate:
    """Read an argv. Raises UsageError, with the reason, where it cannot be run, or not safely."""
    if not argv or not argv[0].strip():
        raise UsageError("the command names no program", expected='["program", "argument", …]')
    elements = tuple(tuple(_pieces(element)) for element in argv)
    if _has_slot(elements[0]):
        raise UsageError(
            f"the program itself is {argv[0]!r}: a file's name would choose what is run",
            remedy="Name the program, and give it the name as an argument",
        )
    _refuse_names_in_code(argv, elements)
    return ArgvTemplate(elements, is_read_by_a_shell(" ".join(argv)))


def _pieces(element: str) -> Iterator[str | _Slot]:
    if "\0" in element:
        raise UsageError("an argument holds a NUL")
    literal, at = "", 0
    for found in _PART.finditer(element):
        literal += element[at : found.start()]
        at = found.end()
        if found[0] in {"{{", "}}"}:
            literal += found[0][0]
        elif found[1] in NAMES:
            if literal:
                yield literal
            literal = ""
            yield _Slot(found[1])
        else:
            known = ", ".join(f"{{{name}}}" for name in NAMES)
            raise UsageError(
                f"{found[0]} in {element!r} stands for nothing",
                expected=known,
                remedy="Write {{ and }} for braces themselves",
            )
    literal += element[at:]
    if literal:
        yield literal


def _has_slot(element: Sequence[str | _Slot]) -> bool:
    return any(isinstance(piece, _Slot) for piece in element)


def _refuse_names_in_code(argv: Sequence[str], elements: Sequence[Sequence[str | _Slot]]) -> None:
    program = ""
    is_next, is_first = False, False
    for text, element in zip(argv, elements, strict=True):
        is_code = is_next or (is_first and not text.startswith("-")) or bool(re.match(r"--\w[\w-]*=", text) and program)
        if is_code and _has_slot(element):
            raise UsageError(
                f"{program} reads {text!r} as code, and a name in it could be obeyed",
                expected='such as ["sh", "-c", "cp \\"$1\\" /data", "sh", "{path}"]',
                remedy=_REMEDY,
            )
        base = text.rpartition("/")[2]
        is_option = bool(_CODE_OPTION.fullmatch(text))
        # After -c there may be more options before the code.
        is_next = bool(program) and (is_option or (is_next and text.startswith("-")))
        is_first = is_first and text.startswith("-") and not is_option
        if _INTERPRETER.fullmatch(base) or _CODE_FIRST.fullmatch(base):
            program = base
            is_first = _CODE_FIRST.fullmatch(base) is not None
