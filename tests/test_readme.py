"""What the READMEs and docs show must be true: commands that parse, links and targets that exist."""

import re
import shlex
from pathlib import Path

import click
import pytest

from pipeline.cli import COMMANDS, root

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), *sorted(ROOT.glob("*/README.md"))]
SHOWN = [
    pytest.param(line[2:].split("  #")[0].strip(), id=f"{page.name}: {line[2:40]}")
    for page in PAGES
    for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ wattrate")
]


@pytest.mark.parametrize("line", SHOWN)
def test_commands_that_are_shown_are_commands(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Parsed with all options, without running; files that a reader would have are there."""
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line)[1:]
    for word in words:
        if re.fullmatch(r"[\w./-]+\.(csv|json|jsonl|toml|parquet)", word):
            (tmp_path / word).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / word).write_text("{}")
    group: click.Command = root
    context = click.Context(root)
    while isinstance(group, click.Group):
        name, found, words = group.resolve_command(context, words)
        assert found is not None
        group = found
        if not isinstance(found, click.Group):
            with found.make_context(name, words, parent=context):
                pass  # leaving it closes the files that parsing opened


def test_the_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert not [name for name in COMMANDS if f"wattrate {name}" not in text and f"make {name}" not in text]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#]+)", page.read_text("utf-8"))
    assert not [link for link in links if "://" not in link and not (page.parent / link).exists()]


def test_make_targets_that_are_named_exist() -> None:
    made = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = re.findall(r"(?:`|\$ )make ([a-z-]+)", (ROOT / "README.md").read_text("utf-8"))
    assert named and set(named) <= made
