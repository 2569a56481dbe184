"""Tariffs as they were ever published: what a rated row names, whatever holds today."""

from functools import lru_cache

import msgspec

from pipeline.clickhouse import Store
from pipeline.errors import StoreRefusedError
from rating.errors import TariffError
from rating.tariff import Tariff, parse_tariff


def tariff_of_history(store: Store, key: str) -> Tariff | None:
    """The tariff "CC*PARTY*ID@version" whenever it was published; None when it never was."""
    try:
        return _of_history(store, key)
    except LookupError:
        return None


@lru_cache(maxsize=4096)
def _of_history(store: Store, key: str) -> Tariff:
    """A published version never changes, so it is asked for once. Raises LookupError, which is not kept: see above."""
    name, _, version = key.rpartition("@")
    body = store.scalar(
        "SELECT body FROM reference_rows "
        "WHERE kind = 'tariff' AND id = {id:String} AND version = {version:UInt64} LIMIT 1",
        {"id": name, "version": int(version)},
    )
    if body is None:
        raise LookupError(key)
    try:
        return parse_tariff(msgspec.json.decode(body))
    except TariffError as error:
        raise StoreRefusedError(f"{store.where}: stored tariff {key} can't be read: {error}") from error
