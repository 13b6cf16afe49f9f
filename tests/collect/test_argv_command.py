"""An argv of facility.toml: each element one argument, whatever the name; nothing that reads a name as code."""

from __future__ import annotations

import os
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.collect.argv_command import NAMES, read_argv
from coldchain.errors import ProcessingError, UsageError


def values(path: str) -> dict[str, str]:
    """What the names stand for."""
    folder, _, name = path.rpartition("/")
    return dict.fromkeys(NAMES, "") | {"path": path, "relative": name, "folder": folder, "name": name}


BYTES = st.sampled_from(list(b"ab'\"\\$`(){}[]<>;&|#*?~!%-. \n\t\r\x01\x7f\x80\xc3\xa9\xff"))


@settings(max_examples=30)
@given(st.lists(BYTES, min_size=1, max_size=30).map(bytes))
def test_any_name_is_one_argument_byte_for_byte(name: bytes) -> None:
    """Spaces, quotes, newlines, braces, invalid UTF-8; and what begins with a dash is no option."""
    template = read_argv(["printf", r"%s\0", "{path}", "a{{{name}}}b", "{name}"])
    argv = template.fill(values("/w/" + os.fsdecode(name)))
    run = subprocess.run(argv, capture_output=True, check=True)
    alone = b"./" + name if name.startswith(b"-") else name
    assert run.stdout.split(b"\0") == [b"/w/" + name, b"a{" + name + b"}b", alone, b""]


@pytest.mark.parametrize(
    ("argv", "says"),
    [
        ([], "names no program"),
        (["  "], "names no program"),
        (["{path}"], "would choose what is run"),
        (["x", "{pth}"], r"\{pth\} in '\{pth\}' stands for nothing"),
        (["x", "{}"], "stands for nothing"),
        (["x", "{path"], r"Write \{\{ and \}\}"),
        (["x", "}"], "stands for nothing"),
        (["x", "{path!r}"], "stands for nothing"),
        (["x", "a\0b"], "NUL"),
        (["sh", "-c", "cp {path} /x"], "as code"),
        (["/bin/bash", "-ec", "cp '{path}' /x"], "as code"),
        (["nice", "sudo", "-u", "x", "bash", "-c", "{path}"], "as code"),
        (["su", "ada", "--command=cp {path} /x"], "as code"),
        (["awk", "{{print {name}}}", "x"], "as code"),
        (["sed", "-i", "s/a/{name}/", "x"], "as code"),
        (["python3", "-c", "print('{path}')"], "as code"),
    ],
)
def test_what_cannot_be_run_or_not_safely_is_refused(argv: list[str], says: str) -> None:
    """When the file is read, with the reason and what to write instead."""
    with pytest.raises(UsageError, match=says):
        read_argv(argv)


@pytest.mark.parametrize(
    "argv",
    [
        ["sh", "-c", 'cp "$1" /x', "sh", "{path}"],
        ["awk", "-f", "x.awk", "{path}"],
        ["sed", "-i", "s/a/b/", "{path}"],
        ["python3", "x.py", "{path}"],
        ["rsync", "-a", "-e", "ssh -p 22", "{path}", "store:/data/"],
        ["rsync", "-as", "{path}", "store:/data/{relative}"],
        ["env", "NAME={name}", "x"],
    ],
)
def test_names_that_are_arguments_may_be_anything(argv: list[str]) -> None:
    """Nobody reads them as code."""
    assert any("a b;c" in argument for argument in read_argv(argv).fill(values("/w/a b;c")))


@pytest.mark.parametrize(
    "argv", [["ssh", "h", "cp", "{path}", "/x"], ["scp", "{path}", "h:/x/{name}"], ["rsync", "{path}", "h:/x/{name}"]]
)
def test_where_another_machine_reads_the_name_it_must_be_plain(argv: list[str]) -> None:
    """Its shell would interpret what no quoting here can keep from it."""
    template = read_argv(argv)
    assert "/w/krios-1_001.mrc" in template.fill(values("/w/krios-1_001.mrc"))
    for name in ("a b", "$(x)", "a;b", "\udcff"):
        with pytest.raises(ProcessingError, match="another shell"):
            template.fill(values("/w/" + name))
