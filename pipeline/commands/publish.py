"""`wattrate publish PATH…`: tariffs, locations, tokens and policies become a version of the reference data."""

import json
from pathlib import Path

import click

from pipeline.clickhouse import Store
from pipeline.kafka import Sender
from pipeline.publication import publish, read_documents
from pipeline.settings import Settings

_MANY = {"policy": "policies"}


@click.command()
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--check", is_flag=True, help="Only check the documents; needs no broker and no store.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(settings: Settings, paths: tuple[Path, ...], check: bool, as_json: bool) -> None:
    """Publish OCPI Tariffs, Locations and Tokens, and metering policies, from JSON files or folders.

    All documents are checked first; one that is wrong and nothing is published. Publishing the same documents again
    changes nothing. Prices hold for sessions that start after the new version reaches the log.
    """
    documents = read_documents(paths)
    if check:
        print(
            json.dumps({"checked": len(documents)}) if as_json else f"{len(documents)} documents are as they should be"
        )
        return
    with Store(settings) as store, Sender(settings) as sender:
        done = publish(store, sender, documents)
    if as_json:
        print(json.dumps(done._asdict()))
        return
    counts = (
        ", ".join(f"{count} {_MANY.get(kind, kind + 's')}" for kind, count in sorted(done.changed.items()))
        or "nothing new"
    )
    print(f"reference version {done.version}: {counts}; {done.unchanged} as before")
    for warning in done.warnings:
        click.echo(f"warning: {warning}", err=True)
