"""Publishing reference data: read JSON documents, check them all, make them one version, tell every partition.

1. read and check every document; one bad document and nothing is published
2. take the next version; of two publishers at once the loser takes a later one
3. insert the documents that changed, read them back
4. produce them to the compacted topics
5. broadcast {"control":"reference","version":V}: from that record on each partition rates with version V; and the
   same as "policy" where a policy was among the documents
"""

import hashlib
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec
import pyarrow as pa

from pipeline.clickhouse import Store
from pipeline.codec.control import Policy, encode_control
from pipeline.errors import DocumentError, IntegrityError
from pipeline.kafka import Sender
from pipeline.metering.published import NAME as METERING
from pipeline.metering.published import parse_policy
from pipeline.ocpi import Location, Token
from pipeline.reference import KINDS, LOCATION, POLICY, TARIFF, TOKEN, latest_version
from pipeline.topics import LOCATIONS, READINGS, TARIFFS, TOKENS
from rating.errors import SheetError, TariffError
from rating.localtime import zone_named
from rating.tariff import parse_tariff

_TOPICS: Final = {TARIFF: TARIFFS, LOCATION: LOCATIONS, TOKEN: TOKENS}
_PROBLEMS_SHOWN: Final = 20
_VERSION_TRIES: Final = 20


class Document(NamedTuple):
    """A checked document: its kind, its key "CC*PARTY*ID", its JSON without white space, the tariff ids it names."""

    kind: str
    id: str
    body: bytes
    names: frozenset[str] = frozenset()


class Published(NamedTuple):
    """What `publish` did: documents by kind that changed, how many were as before, and what looks wrong."""

    version: int
    changed: dict[str, int]
    unchanged: int
    warnings: list[str]


def read_documents(paths: Iterable[Path]) -> list[Document]:
    """Read files and folders (*.json, in order of their names): one object, a list, or an OCPI response with `data`.

    Raises DocumentError that lists every problem with file and JSON path.
    """
    documents: dict[tuple[str, str], Document] = {}
    problems: list[str] = []
    for path in (file for given in paths for file in _files(given)):
        for where, raw in _objects(path, problems):
            try:
                found = _checked(raw)
            except (TariffError, SheetError, msgspec.ValidationError, ValueError) as error:
                problems.append(f"{path}: {_at(where, str(error))}")
                continue
            if (found.kind, found.id) in documents and documents[found.kind, found.id].body != found.body:
                problems.append(f"{path}: {where}: {found.kind} {found.id} is given twice, and differs")
            documents[found.kind, found.id] = found
    if problems:
        more = f"\n… and {len(problems) - _PROBLEMS_SHOWN} more" if len(problems) > _PROBLEMS_SHOWN else ""
        raise DocumentError("nothing was published:\n" + "\n".join(problems[:_PROBLEMS_SHOWN]) + more)
    return list(documents.values())


def publish(store: Store, sender: Sender, documents: Sequence[Document]) -> Published:
    """Make a version of what changed and put it into the log. With nothing changed the last version is told again.

    Raises StoreError, BrokerError; called again after either it completes what is missing.
    """
    changed = _changed(store, documents)
    version = _take_version(store) if changed else latest_version(store)
    if changed:
        _insert(store, version, changed)
    for document in documents:
        if document.kind in _TOPICS:
            sender.send(_TOPICS[document.kind], document.body, document.id.encode())
    sender.flush()
    if version:
        announce(sender, version)
        if any(document.kind == POLICY for document in documents):
            sender.broadcast(READINGS, encode_control(Policy(version)))
    counts = dict(Counter(document.kind for document in changed))
    return Published(version, counts, len(documents) - len(changed), _warnings(store, documents))


def announce(sender: Sender, version: int) -> None:
    """Tell every partition that a version of the reference data holds from here on."""
    sender.broadcast(READINGS, b'{"control":"reference","version":%d}' % version)


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        found = sorted(path.rglob("*.json"))
        if not found:
            raise DocumentError(f"{path}: no *.json in this folder")
        return found
    return [path]


def _objects(path: Path, problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """JSON path and bytes of each object in a file."""
    try:
        raw = path.read_bytes()
        if raw.lstrip()[:1] == b"[":
            yield from (
                (f"$[{i}]", bytes(part)) for i, part in enumerate(msgspec.json.decode(raw, type=list[msgspec.Raw]))
            )
            return
        fields = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        if "data" in fields and "id" not in fields and "uid" not in fields:
            parts = msgspec.json.decode(fields["data"], type=list[msgspec.Raw])
            yield from ((f"$.data[{i}]", bytes(part)) for i, part in enumerate(parts))
            return
        yield "$", raw
    except OSError as error:
        problems.append(f"{path}: can't be read: {error.strerror}")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        problems.append(f"{path}: not JSON: {error}")


class _Probe(msgspec.Struct):
    """The fields that tell what a document is."""

    elements: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    evses: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    time_zone: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    uid: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    policy: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


_PROBE: Final = msgspec.json.Decoder(_Probe)
_LOCATION: Final = msgspec.json.Decoder(Location)
_TOKEN: Final = msgspec.json.Decoder(Token)
_NO_NAMES: Final[frozenset[str]] = frozenset()


def _checked(raw: bytes) -> Document:
    probe = _PROBE.decode(raw)
    body = msgspec.json.format(raw, indent=-1)
    if probe.elements is not msgspec.UNSET:
        tariff = parse_tariff(msgspec.json.decode(raw))
        return Document(TARIFF, f"{tariff.country_code}*{tariff.party_id}*{tariff.id}", body)
    if probe.evses is not msgspec.UNSET or probe.time_zone is not msgspec.UNSET:
        return _location(_LOCATION.decode(raw), body)
    if probe.uid is not msgspec.UNSET:
        token = _TOKEN.decode(raw)
        names = frozenset((token.tariff_id,)) if token.tariff_id else _NO_NAMES
        return Document(TOKEN, f"{token.country_code}*{token.party_id}*{token.uid}", body, names)
    if probe.policy is not msgspec.UNSET:
        parse_policy(raw)
        return Document(POLICY, METERING, body)
    found = ", ".join(sorted(msgspec.json.decode(raw, type=dict[str, msgspec.Raw])))
    raise ValueError(
        f"$: expected a Tariff (elements), Location (evses), Token (uid) or policy (policy), found {found}"
    )


def _location(location: Location, body: bytes) -> Document:
    zone_named(location.time_zone)
    seen: set[tuple[str, int | str]] = set()
    for i, evse in enumerate(location.evses):
        place = (evse.charge_point, evse.evse_id if evse.evse_id is not None else evse.uid)
        if place in seen:
            raise ValueError(f"$.evses[{i}]: charge point {place[0]} has evse_id {place[1]} twice")
        seen.add(place)
    names = frozenset(name for evse in location.evses for connector in evse.connectors for name in connector.tariff_ids)
    return Document(LOCATION, f"{location.country_code}*{location.party_id}*{location.id}", body, names)


def _at(where: str, problem: str) -> str:
    """Put the place of an object in its list before the JSON path of the problem inside it."""
    if " - at `$" in problem:
        text, _, path = problem.rpartition(" - at `$")
        return f"{where}{path.rstrip('`')}: {text}"
    return where + problem[1:] if problem.startswith("$") else f"{where}: {problem}"


def _changed(store: Store, documents: Sequence[Document]) -> list[Document]:
    kinds = sorted({document.kind for document in documents})
    found = store.arrow(
        "SELECT kind, id, hex(argMax(SHA256(body), version)) AS hash FROM reference_rows "
        "WHERE kind IN {kinds:Array(String)} GROUP BY kind, id HAVING argMax(deleted, version) = 0",
        {"kinds": kinds},
    )
    columns = (found.column(i).to_pylist() for i in range(3))
    known = {(kind, key): digest for kind, key, digest in zip(*columns, strict=True)}
    return [d for d in documents if known.get((d.kind, d.id)) != hashlib.sha256(d.body).hexdigest().upper()]


def _take_version(store: Store) -> int:
    """The next version number, ours alone: the lowest publisher's id wins a tie and the others go one up."""
    me = str(uuid.uuid4())
    for _ in range(_VERSION_TRIES):
        version = int(store.scalar("SELECT max(version) FROM reference_rows") or 0) + 1
        _put(store, version, [Document("publication", me, b"")])
        first = store.scalar(
            "SELECT min(id) FROM reference_rows WHERE version = {v:UInt64} AND kind = 'publication'", {"v": version}
        )
        if first == me:
            return version
    raise IntegrityError(f"{store.where}: others publish all the time; try again")


def _insert(store: Store, version: int, documents: Sequence[Document]) -> None:
    _put(store, version, documents)
    stored = store.scalar(
        "SELECT count() FROM reference_rows FINAL WHERE version = {v:UInt64} AND kind != 'publication'", {"v": version}
    )
    if stored != len(documents):
        raise IntegrityError(
            f"{store.where} shows {stored} of {len(documents)} documents of reference version {version}: "
            "nothing was announced; publish again"
        )


def _put(store: Store, version: int, documents: Sequence[Document]) -> None:
    rows = len(documents)
    store.insert(
        "reference_rows",
        pa.table(
            {
                "version": pa.array([version] * rows, pa.uint64()),
                "kind": pa.array([d.kind for d in documents]).dictionary_encode(),
                "id": pa.array([d.id for d in documents]),
                "deleted": pa.array([0] * rows, pa.uint8()),
                "body": pa.array([d.body for d in documents], pa.binary()),
                "published_at": pa.array([int(time.time() * 1000)] * rows, pa.timestamp("ms", "UTC")),
            }
        ),
    )


def _warnings(store: Store, documents: Sequence[Document]) -> list[str]:
    named = sorted({name for document in documents for name in document.names})
    if not named:
        return []
    rows = store.rows(
        "SELECT DISTINCT splitByChar('*', id, 3)[3] AS name FROM reference_rows WHERE kind = 'tariff' "
        "AND name IN {names:Array(String)}",
        {"names": named},
    )
    missing = [name for name in named if name not in {row["name"] for row in rows}]
    return [f"no tariff has the id {name!r} that connectors or tokens name: such usage is held" for name in missing]


__all__ = ["KINDS", "Document", "Published", "announce", "publish", "read_documents"]
