"""The documentation says what the program does: every command, option and setting stands in it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_args

import pytest
import typer
from pydantic import BaseModel

from coldchain.cli.main import COMMANDS
from coldchain.config import Settings
from coldchain.preprocess.ctf_series import CtfReport
from coldchain.preprocess.pick_series import PickReport
from coldchain.preprocess.report import Report

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"


def commands() -> Iterator[tuple[str, Any]]:
    """Every command with its full name."""
    for name in COMMANDS:
        yield from members(name, typer.main.get_command(import_module(f"coldchain.cli.{name}").app))


def members(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    """A command, or those of a group, whatever its depth."""
    group = getattr(command, "commands", None)
    if group is None:
        yield name, command
        return
    for inner, member in group.items():
        yield from members(f"{name} {inner}", member)


ALL_COMMANDS = dict(commands())


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_and_option_is_documented(name: str) -> None:
    """docs/commands.md names the command and each of its options."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    assert name in text
    for parameter in ALL_COMMANDS[name].params:
        long = [option for option in parameter.opts if option.startswith("--")]
        if long and long[0] not in {"--help", "--install-completion", "--show-completion"}:
            assert any(option in text for option in (*long, *parameter.secondary_opts)), f"{name}: {long[0]}"


@pytest.mark.parametrize("report", [Report, CtfReport, PickReport])
def test_every_key_of_a_report_is_documented(report: type[Any]) -> None:
    """docs/commands.md names all that `align --json`, `ctf --json` and `pick --json` say of a file."""
    text = (DOCS / "commands.md").read_text(encoding="utf-8")
    for field in fields(report):
        assert f"`{field.name}`" in text


@pytest.mark.parametrize("name", ALL_COMMANDS)
def test_every_command_has_an_example(name: str) -> None:
    """The help of each command ends with a command that can be typed."""
    assert f"Example: coldchain {name}" in (ALL_COMMANDS[name].help or "")


def settings_keys(model: type[BaseModel]) -> Iterator[str]:
    """Every key of facility.toml."""
    for attribute, field in model.model_fields.items():
        name = field.alias or attribute
        inner = [field.annotation, *get_args(field.annotation)]
        sections = [part for part in inner if isinstance(part, type) and issubclass(part, BaseModel)]
        if sections:
            yield from settings_keys(sections[0])
        elif name != "origin":
            yield name


def test_every_setting_is_documented() -> None:
    """docs/configuration.md has a row for every key, and the template names it too."""
    text = (DOCS / "configuration.md").read_text(encoding="utf-8")
    template = (ROOT / "src/coldchain/templates/facility.toml").read_text(encoding="utf-8")
    for key in settings_keys(Settings):
        assert f"`{key}`" in text
        assert re.search(rf"\b{key} = ", template), f"the template lacks {key}"


def test_every_dependency_is_accounted_for() -> None:
    """docs/dependencies.md says what each dependency replaces."""
    text = (DOCS / "dependencies.md").read_text(encoding="utf-8")
    block = re.search(r"^dependencies = \[(.*?)^\]", (ROOT / "pyproject.toml").read_text(), re.DOTALL | re.MULTILINE)
    assert block
    for name in re.findall(r'"([a-z0-9-]+)>=', block[1]):
        assert name in text


def test_decisions_are_numbered_without_a_gap() -> None:
    """docs/decisions counts 0001, 0002, … and each note's title has its number."""
    notes = sorted((DOCS / "decisions").glob("*.md"))
    for number, note in enumerate(notes, start=1):
        assert note.name.startswith(f"{number:04}-")
        assert note.read_text(encoding="utf-8").startswith(f"# {number}. ")


def test_links_lead_somewhere() -> None:
    """Every relative link and picture of README and docs is there."""
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *DOCS.rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name} → {target}"
