"""facility.toml: what is accepted, and how what is not is answered."""

from __future__ import annotations

import traceback
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coldchain import config
from coldchain.errors import ConfigError
from coldchain.notify.mail import Mail

VALUES = {"name": 'Nut & Bolt "facility"', "movie_root": "camera", "live": "stores/live", "archive": "stores/archive"}


def load(tmp_path: Path, text: str) -> config.Settings:
    """The settings of a facility.toml of that text."""
    path = tmp_path / "facility.toml"
    path.write_text(text, encoding="utf-8")
    return config.load(path)


def test_the_template_runs_as_it_is(tmp_path: Path) -> None:
    """What `init` writes is loaded without a change, with every path absolute."""
    settings = load(tmp_path, config.template(VALUES))
    assert settings.facility.name == VALUES["name"]
    assert settings.instrument[0].movie_root == tmp_path / "camera"
    assert [store.folder for store in settings.store] == [tmp_path / "stores/live", tmp_path / "stores/archive"]
    assert settings.catalog.url == f"sqlite:///{tmp_path}/catalog.sqlite"
    assert settings.web.host == "127.0.0.1"


def test_the_template_shows_the_true_defaults(tmp_path: Path) -> None:
    """Every commented setting of the template, uncommented, is the default that it claims to be."""
    lines = config.template(VALUES).splitlines()
    unrepeatable = ("# voltage", "# pixel_size", "# dose", "# gain", "# workers", "# threads", "# particle")
    uncommented = [
        line.removeprefix("# ")
        if line.startswith("# ") and " = " in line and not line.startswith(unrepeatable)
        else line
        for line in lines
    ]
    assert load(tmp_path, "\n".join(uncommented)) == load(tmp_path, "\n".join(lines))


def test_a_template_survives_any_path(tmp_path: Path) -> None:
    """Quotes, backslashes and non-ASCII letters in a path come back as they went in."""
    name = 'a "b" \\ ü\n'
    settings = load(tmp_path, config.template(VALUES | {"movie_root": name}))
    assert settings.instrument[0].movie_root == tmp_path / name


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[webb]\nport = 1", ["unknown key webb", "Did you mean web?"]),
        ("[web]\nprt = 1", ["unknown key web.prt", "Did you mean port?"]),
        ('[[store]]\nname = "a"\nurl = "ftp://x"', ["store[1].url = 'ftp://x'", "s3://bucket/prefix"]),
        ('[[store]]\nname = "a"', ["store[1].url is missing"]),
        ("[quality]\nice_thickness = 0.3", ["quality.ice_thickness = 0.3", "two numbers: [doubtful, bad]"]),
        ("[quality]\nice_thickness = [0.3]", ["quality.ice_thickness = [0.3]", "two numbers: [doubtful, bad]"]),
        ("[quality]\nfewest_picks = [9, 5, 1]", ["[9, 5, 1]", "two numbers: [doubtful, bad]"]),
        ("[quality]\nunevenness = [0.3, 0.1]", ["[0.3, 0.1]", "the second not less than the first"]),
        ("[quality]\nfewest_picks = [1, 10]", ["[1, 10]", "the second not more than the first"]),
        ('[[store]]\nname = "a/b"\nurl = "x"', ["store[1].name = 'a/b'", "without slashes"]),
        ('[[store]]\nname = "a"\nurl = "x"\n[[store]]\nname = "a"\nurl = "y"', ["names that differ", "'a'"]),
        ("[web]\nport = 70000", ["web.port = 70000", "65535"]),
        ('[web]\nport = "x"', ["web.port = 'x'", "integer"]),
        ("web = 3", ["web = 3", "a table"]),
        ('[[instrument]]\nname = "k"\nmovie_rot = "m"', ["unknown key instrument[1].movie_rot", "mean movie_root?"]),
        ('[[notify]]\nname = "a"', ["found notify[1];", "one of [notify.mail], [notify.syslog] and [notify.webhook]"]),
        ('[[notify]]\nname = "a"\nseverty = "x"', ["unknown key notify[1].severty", "mean severity?"]),
        ('[[notify]]\nname = "a"\n[notify.syslog]\naddres = "x"', ["notify[1].syslog.addres", "mean address?"]),
        ('[[notify]]\nname = "a"\n[notify.syslog]\naddress = "ftp://x"', ["udp://host:port"]),
        ('[[notify]]\nname = "a"\n[notify.webhook]', ["found notify[1].webhook;", "one of url_file and url_variable"]),
        ('[[notify]]\nname = "a"\n[notify.syslog]\nca_file = "x"', ["tls://", "ca_file"]),
        ('[[notify]]\nname = "a\\nb"\n[notify.syslog]', ["notify[1].name"]),
        (2 * '[[notify]]\nname = "a"\n[notify.syslog]\n', ["notify names that differ", "'a'"]),
        (
            '[[instrument]]\nname = "k"\nmovie_root = "m"\nname_pattern = "("',
            ["instrument[1].name_pattern = '('", "does not compile"],
        ),
        (
            '[[instrument]]\nname = "k"\nmovie_root = "m"\nname_pattern = "(?P<session>.*)/.*"',
            ["instrument[1].name_pattern", "no group 'exposure'", "(?P<session>…)"],
        ),
        (
            '[[instrument]]\nname = "k"\nmovie_root = "m"\nname_pattern = "(?P<session>.)(?P<exposure>.)(?P<hole>.)"',
            ["instrument[1].name_pattern", "a group 'hole'"],
        ),
        ('[[instrument]]\nname = "k"\nmovie_root = "m"\norphan_seconds = 0', ["instrument[1].orphan_seconds = 0"]),
        ("x ==", ["is not TOML", "line 1"]),
        ("origin = 1", ["unknown key origin"]),
        (
            '[[instrument]]\nname = "k"\nmovie_root = "m"\n[instrument.optics]\npixel_siz = 1',
            ["unknown key instrument[1].optics.pixel_siz", "Did you mean pixel_size_angstrom?"],
        ),
        (
            '[[instrument]]\nname = "k"\nmovie_root = "m"\n[instrument.optics]\npixel_size_angstrom = 0',
            ["instrument[1].optics.pixel_size_angstrom = 0", "greater than or equal to 0.05"],
        ),
    ],
)
def test_an_error_names_file_key_found_and_expected(tmp_path: Path, text: str, says: list[str]) -> None:
    """Each mistake is answered with where it is, what was found and what was wanted."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    for part in ["facility.toml", *says]:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [("a", "a"), ("a", "a/b"), ("a/b", "a"), ("a", "x/../a"), ("camera", "store"), ("results/x", "b")],
)
def test_places_that_overlap_are_refused(tmp_path: Path, first: str, second: str) -> None:
    """Two stores in one folder, or a store in the camera's folder, are an error, by any name."""
    (tmp_path / "m" / "inside").mkdir(parents=True)
    (tmp_path / "camera").symlink_to(tmp_path / "m" / "inside")
    text = '[[instrument]]\nname = "k"\nmovie_root = "m"\n'
    text += f'[[store]]\nname = "s"\nurl = "{first}"\n[[store]]\nname = "t"\nurl = "{second}"\n'
    with pytest.raises(ConfigError, match="overlap"):
        load(tmp_path, text)


@pytest.mark.parametrize("roots", [["m"], ["m/inside"], ["a", "a/b"], ["store"], ["results"], ["x/../m"]])
def test_metadata_roots_lie_apart_from_all_else(tmp_path: Path, roots: list[str]) -> None:
    """From each other, the movie root, the stores and the results: what lies in two would be taken twice."""
    text = f'[[instrument]]\nname = "k"\nmovie_root = "m"\nmetadata_roots = {roots}\n'
    with pytest.raises(ConfigError, match=r"instrument\[1\]\.metadata_roots\[[12]\].*overlap"):
        load(tmp_path, text + '[[store]]\nname = "s"\nurl = "store"\n')
    settings = load(tmp_path, text.replace(str(roots), '["scope", "other"]'))
    assert settings.instrument[0].metadata_roots == (tmp_path / "scope", tmp_path / "other")


def test_a_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    """Without a facility.toml the remedy is `coldchain init`."""
    with pytest.raises(ConfigError, match="coldchain init"):
        config.load(tmp_path / "facility.toml")


def test_bytes_that_are_not_text_are_a_stated_error(tmp_path: Path) -> None:
    """A file that is not UTF-8 is said to be so."""
    path = tmp_path / "facility.toml"
    path.write_bytes(b"name = '\xff'")
    with pytest.raises(ConfigError, match="not UTF-8"):
        config.load(path)


@given(st.text(max_size=200))
def test_any_text_gives_settings_or_a_stated_error(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever stands in the file, the answer is settings or a ConfigError."""
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    try:
        config.load(path)
    except ConfigError as error:
        assert "any.toml" in str(error)


def test_an_unknown_instrument_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    """Asking for an instrument that is not there names those that are."""
    settings = load(tmp_path, config.template(VALUES))
    with pytest.raises(ConfigError, match="one of: microscope"):
        settings.instrument_named("krios")


MAIL = '[[notify]]\nname = "staff"\n[notify.mail]\nhost = "mail.example.org"\nsender = "a@b.org"\nto = ["c@d.org"]\n'


def test_a_rule_for_mail_becomes_a_receiver(tmp_path: Path) -> None:
    """Ports follow from the kind of TLS, and the file of the password lies beside facility.toml."""
    text = 'digest_seconds = 0\nmost_per_hour = 5\nevents = ["alert.*"]\n[notify.mail]'
    login = 'user = "u"\npassword_file = "pw"\nsecurity = "tls"\n'
    settings = load(tmp_path, MAIL.replace("[notify.mail]", text) + login)
    (tmp_path / "pw").write_text("secret")
    receiver = settings.receiver_named("staff")
    channel = receiver.channel
    assert isinstance(channel, Mail)
    assert (channel.port, channel.to, str(channel)) == (465, ("c@d.org",), "mail to c@d.org by mail.example.org:465")
    assert channel.password is not None
    assert channel.password.read() == "secret"
    assert (receiver.rule.kinds, receiver.pace.digest_seconds, receiver.pace.most_per_hour) == (("alert.*",), 0, 5)
    with pytest.raises(ConfigError, match="one of: staff"):
        settings.receiver_named("stuff")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (MAIL + 'password = "XyZZy"', "unknown key notify[1].mail.password"),
        (MAIL + 'user = "u"\npassword_variable = "smtp://XyZZy"', "not the secret"),
        (MAIL + 'password_file = "XyZZy"', "user and one of"),
        (MAIL + 'user = "u"\npassword_file = "XyZZy"\nsecurity = "none"', '"starttls" or "tls"'),
        ('[[notify]]\nname = "a"\n[notify.webhook]\nurl = "https://x/XyZZy"', "Did you mean url_file?"),
        ('[[notify]]\nname = "a"\n[notify.webhook]\nurl_file = "https://x/XyZZy"', "not the secret"),
        ('[[notify]]\nname = "a"\n[notify.webhook]\nurl_file = ["https://x/XyZZy"]', "url_file"),
    ],
)
def test_a_secret_in_the_file_is_refused_and_not_shown(tmp_path: Path, text: str, says: str) -> None:
    """Who writes a password or a secret URL where its file is to be named is told so without a copy in the log."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert says in str(caught.value)
    assert "XyZZy" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("address", ["a", "a@", "A <a@b.org>", "a@b.org\\nBcc: x@y.org", "a@b.org,c@d.org", "ä@b.org"])
def test_what_is_no_mail_address_is_refused(tmp_path: Path, address: str) -> None:
    """No address can bring another one, or a header, with it."""
    with pytest.raises(ConfigError, match=r"name@example\.org"):
        load(tmp_path, MAIL.replace("a@b.org", address))


@pytest.mark.parametrize(
    ("address", "leads"),
    [
        ("/dev/log", "/dev/log"),
        ("udp://h", "udp://h:514"),
        ("tcp://h", "tcp://h:601"),
        ("tcp://[::1]:9", "tcp://[::1]:9"),
        ("tls://h", "tls://h:6514"),
    ],
)
def test_where_syslog_listens(tmp_path: Path, address: str, leads: str) -> None:
    """A socket's path, or a host with the port that is usual for it."""
    settings = load(tmp_path, f'[[notify]]\nname = "log"\n[notify.syslog]\naddress = "{address}"')
    assert str(settings.receiver_named("log").channel) == f"syslog at {leads}"


def test_the_template_s_rules_are_rules(tmp_path: Path) -> None:
    """What the template shows of notification loads when it is uncommented."""
    lines = config.template(VALUES).splitlines()
    uncommented = [line[1:] if line.startswith("#") and not line.startswith("# ") else line for line in lines]
    settings = load(tmp_path, "\n".join(uncommented))
    assert [rule.name for rule in settings.notify] == ["staff", "log", "chat"]
    assert len(settings.receivers()) == 3
