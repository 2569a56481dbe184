"""`wattrate price`: the offline door to the rating engine. One JSON line in, one JSON line out.

Reads cases of the conformance schema, or OCPI CDRs and Sessions with their tariff. Prices nothing itself: `rating`.
"""

import json
import sys
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, BinaryIO

import click
import msgspec

from rating.cases import price_case
from rating.invoice import check_invoice, is_invoice


@click.command(name="price")
@click.argument("file", type=click.File("rb"), metavar="CASES.jsonl")
@click.option("--timezone", help="Zone of CDRs that do not name one, such as Europe/Amsterdam.")
@click.option("--only-different", is_flag=True, help="Print only CDRs whose totals differ, and errors.")
@click.option("--check", is_flag=True, help="Exit with 1 when a line could not be priced or a total differs.")
def command(file: BinaryIO, timezone: str | None, only_different: bool, check: bool) -> None:
    """Price each line of CASES.jsonl (- is standard input) and print one JSON line for each.

    A line is a case (tariff, session, timezone), a CDR or Session with its tariff inside, or
    {"cdr": ..., "tariff": ..., "timezone": ...}. CDRs and Sessions also tell whether the published totals agree.
    """
    failed = False
    for answer in answers(file, timezone):
        bad = "error" in answer or answer.get("agrees") is False
        failed = failed or bad
        if bad or not only_different:
            click.echo(json.dumps(answer, ensure_ascii=False))
    sys.exit(1 if check and failed else 0)


def answers(lines: Iterable[bytes], timezone: str | None) -> Iterable[dict[str, Any]]:
    """The answer to each line that is not empty, in order."""
    decoder = msgspec.json.Decoder(float_hook=Decimal)
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield _answer(decoder, number, line, timezone)


def _answer(decoder: msgspec.json.Decoder[Any], number: int, line: bytes, timezone: str | None) -> dict[str, Any]:
    try:
        value = decoder.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return {"id": None, "line": number, "error": f"line {number} is not JSON: {error}"}
    if not isinstance(value, dict):
        return {"id": None, "line": number, "error": f"line {number}: expected an object"}
    return check_invoice(value, timezone) if is_invoice(value) else price_case(value)
