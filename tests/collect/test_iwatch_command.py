"""No name breaks out of a command string, wherever in it the name is put."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coldchain.collect.iwatch_command import read_command
from coldchain.errors import ProcessingError, UsageError

PRINT = r"printf '%s\0' "
HOSTILE = [
    b"/w/a b",
    b"/w/'; touch broken; '",
    b'/w/"; touch broken; "',
    b"/w/$(touch broken)",
    b"/w/`touch broken`",
    b"/w/${IFS}x",
    b"/w/a\nb\n",
    b"/w/\\",
    b"/w/\\'\\\"\\$x\\`",
    b"/w/\xff\xfe\x80",
    b"/w/a;b&c|d<e>f(g)#h*i?[j]~!%f%%",
    b"-rf",
    b"2",
    b"/w/\\\\\\n\\x27;touch broken;\\x27",
]
# Each prints its specifiers' values, and what is to arrive with {} for the name.
PLACES = [
    (PRINT + "%f", [b"{}"]),
    (PRINT + "x%f.y", [b"x{}.y"]),
    (PRINT + "'%f'", [b"{}"]),
    (PRINT + "'a%f b'", [b"a{} b"]),
    (PRINT + '"%f"', [b"{}"]),
    (PRINT + '"a %f\\" b"', [b'a {}" b']),
    (PRINT + "%f %f '%f'\"%f\"", [b"{}", b"{}", b"{}{}"]),
    (PRINT + '"$(printf %%s.x %f)"', [b"{}.x"]),
    (PRINT + '"$(printf %%s.x "%f")"', [b"{}.x"]),
    (PRINT + "\"$(printf %%s.x '%f')\"", [b"{}.x"]),
    (PRINT + '"`printf %%s.x %f`"', [b"{}.x"]),
    (PRINT + '"`printf %%s.x \'%f\'`"', [b"{}.x"]),
    (PRINT + '"`printf %%s.x "%f"`"', [b"{}.x"]),
    ("x=`printf %%s.x %f`; " + PRINT + '"$x"', [b"{}.x"]),
    ("x=`printf %%s.x \"%f\"`; " + PRINT + '"$x"', [b"{}.x"]),
    ("x=$( (printf %%s.x %f) ); " + PRINT + '"$x"', [b"{}.x"]),
    ("x=%f; (" + PRINT + '"${x}" %f)', [b"{}", b"{}"]),
    ("x=$((1+2)); " + PRINT + '$x%f "\\%%"', [b"3{}", b"\\%"]),
    ("cat <%f >/dev/null 2>&1; case a in a) " + PRINT + "%f;; esac", [b"{}"]),
    ("sh -c '" + PRINT.replace("'", "\"") + "\"$1\"' sh %f", [b"{}"]),
    ("echo it\\'s '#' \"'\" >/dev/null && " + PRINT + '%f # ', None),
]  # fmt: skip
SHELLS = [shell for shell in ("/bin/sh", "/bin/bash", "/usr/bin/busybox") if shutil.which(shell)]


def values(name: bytes) -> dict[str, str]:
    """What the specifiers stand for, when that file was moved."""
    return {"f": os.fsdecode(name), "F": "", "e": "IN_MOVED_TO", "c": "7", "p": "coldchain", "v": "1"}


def arrived(line: str, shell: str) -> list[bytes]:
    """The words that come out."""
    words = [shell, *(["sh"] if shell.endswith("busybox") else []), "-c", line]
    run = subprocess.run([os.fsencode(word) for word in words], capture_output=True, timeout=30)
    assert run.stdout.endswith(b"\0"), (line, run)
    return run.stdout[:-1].split(b"\0")


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(("source", "expected"), PLACES)
def test_hostile_names_arrive_as_they_are(
    source: str, expected: list[bytes] | None, shell: str, tmp_path: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the name and wherever it stands, the words that arrive hold it byte for byte, and nothing is run."""
    monkeypatch.chdir(str(tmp_path))
    if expected is None:
        with pytest.raises(UsageError, match="a comment"):
            read_command(source)
        return
    template = read_command(source)
    # One shell for all names: each line ends for itself.
    names = [name for name in HOSTILE if not (name.endswith(b"\n") and "`" in source)]
    lines = [template.fill(values(name)) for name in names]
    found = arrived("\n".join(f"({line}\n)" for line in lines), shell)
    assert found == [words.replace(b"{}", name) for name in names for words in expected]
    assert not os.path.exists("broken")  # noqa: PTH110


ALPHABET = st.sampled_from(list(b"ab'\"\\$`(){}[]<>;&|#*?~!%^=-.:, \n\t\r\x01\x7f\x80\xc3\xa9\xff/"))
NAMES = st.lists(ALPHABET, min_size=1, max_size=24).map(bytes)


@settings(max_examples=40)
@given(st.lists(NAMES, min_size=12, max_size=12))
def test_any_name_arrives_as_it_is(names: list[bytes]) -> None:
    """The same for names made of what shells find special."""
    sources = [source for source, expected in PLACES[:16] if expected]
    expected = [[words.replace(b"{}", b"/" + name + b".") for words in expected or []] for name in names
                for _, expected in PLACES[:16]]  # fmt: skip
    lines = [read_command(source).fill(values(b"/" + name + b".")) for name in names for source in sources]
    assert arrived("\n".join(f"({line}\n)" for line in lines), "/bin/sh") == [w for words in expected for w in words]


def test_every_specifier_has_its_value() -> None:
    """%p %v %f %F %e %c, and %% for a percent sign; other percent signs stay; nothing is left of an empty value."""
    template = read_command(PRINT + "%p-%v %f %e %c '%%f' %d %F 100%")
    line = template.fill(values(b"/w/x"))
    assert arrived(line, "/bin/sh") == [b"coldchain-1", b"/w/x", b"IN_MOVED_TO", b"7", b"%f", b"%d", b"100%"]
    moved = {**values(b"/w/x"), "F": "/w/old one"}
    assert arrived(read_command(PRINT + "%F %f").fill(moved), "/bin/sh") == [b"/w/old one", b"/w/x"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("cat <<E\n%f\nE", "here-document"),
        ("echo %f # %f", "comment"),
        ("echo \\%f", "backslash before"),
        ('echo "\\%f"', "backslash before"),
        ("echo ${x:-%f}", "inside"),
        ("echo ${x:-'a'} %f", "quotes or expansions"),
        ("echo $((%c + 1))", "inside"),
        ("echo $'%f'", "not every shell knows"),
        ("echo $%f", r"a \$ before"),
        ('echo "$%f"', r"a \$ before"),
        ("echo `echo \\\\ %f`", "backslash inside"),
        ("echo 'a %f", "does not end"),
        ('echo "a %f', "does not end"),
        ("echo $(echo %f", "does not end"),
        ("x=$(case a in a) echo %f;; esac)", "case"),
        ("", "empty"),
        ("a\0b", "NUL"),
    ],
)
def test_what_cannot_be_quoted_is_refused(source: str, reason: str) -> None:
    """Where no quoting is safe the line is refused with the reason, before anything happens."""
    with pytest.raises(UsageError, match=reason):
        read_command(source)


@pytest.mark.parametrize("source", ["cat <<E\nx\nE", "echo it's # fine'", "echo ${x:-'y'} 10%"])
def test_a_line_without_specifiers_is_the_shells_own_matter(source: str) -> None:
    """Nothing is filled in, so nothing can break out: it is handed on as it is."""
    assert read_command(source).fill(values(b"/x")) == source


@pytest.mark.parametrize(
    "source",
    [
        "ssh host cp %f /data",
        "sh -c 'cp %f /data'",
        "bash -ec \"cp %f /data\"",
        "sh -c %f",
        "su - ada -c 'cp %f /data'",
        "eval cp %f /data",
        "/usr/bin/ssh host cp '%f' /data",
        "cd / && sudo -u x sh -c 'cp %f /data'",
        "sed 's/x/%f/' y",
    ],
)  # fmt: skip
def test_where_another_shell_reads_the_name_it_must_be_plain(source: str) -> None:
    """A second shell would interpret what the first has unquoted: only names without special characters pass."""
    template = read_command(source)
    assert "/w/krios-1_001.mrc" in template.fill(values(b"/w/krios-1_001.mrc"))
    for name in (b"/w/a b", b"/w/$(x)", b"/w/a;b", b"-c", b"/w/\xff", b"/w/~"):
        with pytest.raises(ProcessingError, match="another shell"):
            template.fill(values(name))


@pytest.mark.parametrize(
    "source", ["sh /opt/x.sh %f", "sed -i s/a/b/ %f", "sh -c 'cp \"$1\" /d' sh %f", "/x/ssh.sh %f"]
)
def test_names_that_are_arguments_may_be_anything(source: str) -> None:
    """A script takes its arguments as they are."""
    assert "'/w/a b;c'" in read_command(source).fill(values(b"/w/a b;c"))


@pytest.mark.parametrize(
    "source",
    [
        "(w;ps -ef)|mail -s '%f was changed' root@localhost",
        "(echo %e %f | mailx -s 'store %p' root@localhost)",
        "/etc/iwatch/scan.sh %e %f",
        "/usr/bin/sleep 2; /data/bin/convert --csv %f >> /var/log/convert.log 2>&1",
        "cd /srv/site; ./publish.sh cmd >> /var/log/publish.log",
        "/etc/iwatch/set-rights '%f' ",
        "logger iwatch %f",
        "if [ -d %f ]; then chmod 2775 %f; else chmod 664 %f; fi",
        "[ -f %f ] && mv %f /data/in/ || true",
        'echo "`date`: %e %F -> %f" >> /var/log/moves',
        "rsync -az --delete -e 'ssh -p 2222 -i /root/key' /data/ store:/data/ # the whole",
        "rsync -aze ssh %f store:/data/",
        "rsync -a --rsh=ssh '%f' store:/data/ && rm %f",
        "scp -q %f store:/data/",
        "curl -sS -F file=@%f -F event=%e https://example.org/in",
        "(sleep 60; /opt/x.sh %f) &",
    ],
)
def test_lines_as_people_write_them_take_any_name(source: str) -> None:
    """None of these is refused, and none is held to plain names."""
    template = read_command(source)
    assert not template.is_read_again
    template.fill(values(b"/w/a b;$(c)"))


@pytest.mark.parametrize(
    ("source", "is_held"),
    [
        ("rsync -a %f store:/data/%f", True),
        ("rsync -a %f 'store:/my data/%f'", True),
        ("rsync -as %f store:/data/%f", False),
        ("rsync -a --protect-args %f store:/data/%f", False),
        ("scp %f store:/data/%f", True),
        ("rsync -a -e ssh %f store:/data/; ssh store touch %f", True),
        ("rsync -a -e 'sh -c \"ssh %f\"' /x store:/data/", True),
    ],
)
def test_a_name_in_a_path_of_another_machine_must_be_plain(source: str, is_held: bool) -> None:
    """Older versions of rsync and scp have it read by a shell there, unless they are told not to."""
    template = read_command(source)
    assert template.is_read_again is is_held
    assert "krios-1.mrc" in template.fill(values(b"/w/krios-1.mrc"))
