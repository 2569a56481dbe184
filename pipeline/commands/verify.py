"""`wattrate verify`: the control totals of the ledger."""

import json
from datetime import UTC, datetime

import click

from pipeline.clickhouse import Store
from pipeline.errors import ChecksFailedError, DocumentError
from pipeline.read.checks import BROKEN, Check
from pipeline.read.verify import report, verify
from pipeline.settings import Settings


@click.command()
@click.option("--since", default="", help="Only what was marked at this log time (RFC 3339) or later.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(settings: Settings, since: str, as_json: bool) -> None:
    """Check the control totals of the ledger. Exit code 1 and the difference when one is broken.

    Checked are the markers (they tile each partition; every record has one outcome), the rows (as many, with the sums,
    as their markers promise), the outputs (nothing published that was not marked), and the sessions (rated energy and
    cost are what the CDRs say; corrections net to the last CDR; the meter's register is accounted for to the mWh).
    Only the store is asked: no broker is needed.
    """
    checks: list[Check] = []
    with Store(settings) as store:
        for one in verify(store, _instant_ms(since) if since else None):
            checks.append(one)
            if not as_json:
                _print(one)
    if as_json:
        print(json.dumps(report(checks), indent=2))
    broken = [one.name for one in checks if one.state == BROKEN]
    if broken:
        raise ChecksFailedError(f"broken control totals: {', '.join(broken)}")


def _print(one: Check) -> None:
    text = one.text if one.state != BROKEN else f"{one.wrong} of {one.compared} differ"
    print(f"{one.state:<8} {one.name:<22} {text}")
    for place in one.places:
        print(f"{'':<8} {'':<22} " + ", ".join(f"{name} {value}" for name, value in place.items()))


def _instant_ms(text: str) -> int:
    try:
        instant = datetime.fromisoformat(text)
    except ValueError as error:
        raise DocumentError(f"--since {text!r} is no instant: write it as 2024-06-03T10:00:00Z") from error
    return round(instant.replace(tzinfo=instant.tzinfo or UTC).timestamp() * 1000)
