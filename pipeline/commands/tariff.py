"""`wattrate tariff lint`: what is legal in a tariff but probably not meant, offline.

Reads files, prints findings; what is found is `rating.lint`'s business.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from decimal import Decimal
from functools import lru_cache
from importlib.resources import files
from typing import Any, BinaryIO

import click
import msgspec

from pipeline.errors import DocumentError
from rating.errors import SheetError
from rating.lint import Finding, Stretch, lint

TWO_YEARS_MS = 2 * 366 * 86_400_000
COLOURS = {"error": "red", "warning": "yellow", "info": "blue"}


@click.group(name="tariff")
def command() -> None:
    """Check OCPI tariffs, offline."""


@command.command(name="lint")
@click.argument("tariffs", nargs=-1, required=True, type=click.File("rb"), metavar="FILE...")
@click.option("--zone", "zones", multiple=True, help="Time zone of the locations; else those of the tariff's country.")
@click.option("--ocpi-version", type=click.Choice(["2.1.1", "2.2.1", "2.3.0"]), help="Else told by the tariff itself.")
@click.option("--json", "as_json", is_flag=True, help="One JSON line a finding, and nothing else.")
def lint_command(tariffs: Sequence[BinaryIO], zones: Sequence[str], ocpi_version: str | None, as_json: bool) -> None:
    """Name what is legal in a tariff but probably wrong, and what to do about it.

    FILE holds a Tariff object, a list of them, or an OCPI answer with them in `data`; a .jsonl file one a line; - is
    standard input. Exits with 1 when there is a finding of severity error, with 3 when a file is not JSON.
    """
    worst: set[str] = set()
    for file in tariffs:
        for name, source in _objects(file):
            found = _findings(source, zones, ocpi_version)
            worst.update(finding.severity for finding in found)
            if as_json:
                _print_json(file.name, name, found)
            else:
                _print_text(file.name, name, found)
    sys.exit(1 if "error" in worst else 0)


def _objects(file: BinaryIO) -> Iterator[tuple[str, Any]]:
    """The tariffs of a file, each with a name to show."""
    text = file.read()
    try:
        if file.name.endswith(".jsonl"):
            values = [_decoder().decode(line) for line in text.splitlines() if line.strip()]
        else:
            values = _unwrapped(_decoder().decode(text))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DocumentError(f"{file.name} is not JSON: {error}. Give a file with an OCPI Tariff object.") from None
    for number, value in enumerate(values, start=1):
        yield _name(value, number), value


@lru_cache(maxsize=1)
def _decoder() -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(float_hook=Decimal)


def _unwrapped(value: Any) -> list[Any]:
    if isinstance(value, dict) and "elements" not in value and "data" in value:
        value = value["data"]
    return value if isinstance(value, list) else [value]


def _name(source: Any, number: int) -> str:
    if not isinstance(source, dict):
        return f"#{number}"
    parts = (source.get("country_code"), source.get("party_id"), source.get("id"))
    return "*".join(str(part) for part in parts if part) or f"#{number}"


def _findings(source: Any, zones: Sequence[str], ocpi_version: str | None) -> list[Finding]:
    """What is found; a zone that does not exist is the caller's mistake."""
    now = int(time.time() * 1000)
    given = zones or _zones_of(source.get("country_code") if isinstance(source, dict) else None)
    try:
        found = lint(source, ocpi_version, Stretch(given, now, now + TWO_YEARS_MS))
    except SheetError as error:
        raise click.BadParameter(str(error), param_hint="--zone") from None
    if zones:
        return found
    first = {(finding.code, finding.path): finding for finding in reversed(found)}
    return [
        finding for finding in found if first[finding.code, finding.path] is finding
    ]  # one zone of a country is enough


@lru_cache(maxsize=256)
def _zones_of(country: str | None) -> tuple[str, ...]:
    """The IANA zones of a country; none where the country is not known."""
    table = files("tzdata.zoneinfo").joinpath("zone.tab").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in table.splitlines() if not line.startswith("#"))
    return tuple(row[2] for row in rows if row[0] == country)


def _print_json(file: str, name: str, found: Sequence[Finding]) -> None:
    for finding in found:
        click.echo(json.dumps({"file": file, "tariff": name, **asdict(finding)}, ensure_ascii=False))


def _print_text(file: str, name: str, found: Sequence[Finding]) -> None:
    counts = ", ".join(
        f"{count} {severity}{'s' if count > 1 and severity != 'info' else ''}"
        for severity in COLOURS
        if (count := sum(finding.severity == severity for finding in found))
    )
    click.echo(f"{click.style(name, bold=True)} ({file}): {counts or 'nothing to remark'}")
    for finding in found:
        severity = click.style(f"{finding.severity:7}", fg=COLOURS[finding.severity])
        click.echo(f"  {severity} {finding.code}  {click.style(finding.path, dim=True)}")
        click.echo(f"          {finding.sentence}")
        click.echo(f"          → {finding.advice}")
