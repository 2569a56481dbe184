"""`wattrate explain SESSION`: a bill that a customer can follow, down to the meter readings."""

import json

import click

from pipeline.clickhouse import Store
from pipeline.read.explanation import explained, text
from pipeline.settings import Settings


@click.command()
@click.argument("session")
@click.option("--readings", "with_readings", is_flag=True, help="Show every period with the meter readings behind it.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(settings: Settings, session: str, with_readings: bool, as_json: bool) -> None:
    """Say why SESSION costs what it costs.

    SESSION is a session id (charge point*transaction), a transaction id, a CDR id, or a session key of 16 hexadecimal
    digits. Shown are each charging period in local time with its quantity, price and the tariff element that gave it,
    what steps, minimum, maximum and rounding added, taxes, and energy that is held back with the reason. A session
    that is still open is shown with its cost so far.
    """
    with Store(settings) as store:
        told = explained(store, session, with_readings)
    print(json.dumps(told, indent=2) if as_json else text(told), end="\n" if as_json else "")
