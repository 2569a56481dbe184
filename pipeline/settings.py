"""All settings: one frozen value, read once from defaults, the run file of `wattrate up`, a TOML file, the environment.

Later wins: default < run file of `wattrate up` (addresses only) < TOML file < environment. A setting `kafka_bootstrap`
is WATTRATE_KAFKA_BOOTSTRAP in the environment and `kafka_bootstrap = …` or `[kafka]` `bootstrap = …` in the file.
Nothing else in wattrate reads the environment. Secrets are masked wherever a Settings is shown.
"""

import json
import os
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_type_hints

from pipeline.errors import SettingsError

PREFIX = "WATTRATE_"
RUN_FILE = "run.json"
MASK = "***"


def _setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
) -> Any:
    meta = {"doc": doc, "low": low, "high": high, "choices": choices, "secret": secret}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=meta)
    return field(default=default, metadata=meta)


@dataclass(frozen=True, repr=False)
class Settings:
    """What a person may choose. Each field's documentation is its metadata; docs/settings.md lists them all."""

    data_dir: Path = _setting(  # noqa: RUF009 (makes a field, not a shared value)
        Path("wattrate-data"),
        "Folder of the embedded store and of the run file of `wattrate up`. Delete it to start anew.",
    )
    cache_dir: Path = _setting(  # noqa: RUF009
        Path("~/.cache/wattrate"), "Folder of what is fetched once: the jars of Apache Kafka for `wattrate up --kafka`."
    )
    log_level: str = _setting("info", "How much is logged.", choices=("debug", "info", "warning", "error"))
    log_format: str = _setting("text", "One line an event as text or as JSON.", choices=("text", "json"))

    kafka_bootstrap: str = _setting("127.0.0.1:9092", "Brokers to ask first, host:port, separated by commas.")
    kafka_security_protocol: str = _setting(
        "PLAINTEXT", "How to talk to the brokers.", choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    )
    kafka_sasl_mechanism: str = _setting(
        "", "SASL mechanism, where the protocol has SASL.", choices=("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
    )
    kafka_sasl_username: str = _setting("", "SASL user.")
    kafka_sasl_password: str = _setting("", "SASL password.", secret=True)
    kafka_ssl_ca_file: str = _setting("", "PEM file of the authorities that sign the brokers' certificates.")
    kafka_ssl_cert_file: str = _setting("", "PEM file of this client's certificate.")
    kafka_ssl_key_file: str = _setting("", "PEM file of this client's key.")
    kafka_ssl_key_password: str = _setting("", "Password of that key.", secret=True)
    kafka_options: dict[str, str] = _setting(  # noqa: RUF009
        {}, "More librdkafka options for every client, as a TOML table, a JSON object, or `name=value,name=value`."
    )
    kafka_timeout_s: float = _setting(
        30.0, "How long an administrative call or a flush may take before it counts as an outage.", low=0.1, high=3600
    )
    topic_prefix: str = _setting("", "Put before every topic name, so that several installations can share a cluster.")
    partitions: int = _setting(
        64,
        "Partitions of meter.readings at `init`; fixed from then on, since state is per partition.",
        low=1,
        high=65535,
    )
    replication: int = _setting(1, "Replicas of each topic at `init`; 3 on a real cluster.", low=1, high=15)
    group_id: str = _setting("wattrate-rate", "Consumer group of the rating workers.")
    group_instance_id: str = _setting(
        "", "Static member name of this worker; a restart within the session time-out moves nothing."
    )
    session_timeout_s: float = _setting(
        6.0, "After this long without a heartbeat a worker's partitions go to others.", low=1, high=1800
    )
    max_poll_interval_s: float = _setting(
        300.0, "A worker that does not poll for this long is dead; inserts must be faster.", low=10, high=86400
    )

    clickhouse_host: str = _setting("127.0.0.1", "Host of ClickHouse's HTTP interface.")
    clickhouse_port: int = _setting(8123, "Port of ClickHouse's HTTP interface; 8443 with TLS.", low=1, high=65535)
    clickhouse_user: str = _setting("default", "User in ClickHouse.")
    clickhouse_password: str = _setting("", "Password in ClickHouse.", secret=True)
    clickhouse_database: str = _setting("default", "Database of the ledger; must exist.")
    clickhouse_secure: bool = _setting(False, "Use TLS.")
    clickhouse_verify: bool = _setting(True, "With TLS: check the server's certificate.")
    clickhouse_ca_file: str = _setting("", "With TLS: PEM file of the authority that signs the server's certificate.")
    clickhouse_cert_file: str = _setting("", "With TLS: PEM file of this client's certificate.")
    clickhouse_key_file: str = _setting("", "With TLS: PEM file of this client's key.")
    clickhouse_cluster: str = _setting(
        "",
        "Name of the cluster; empty is a single server. With a name, `init` makes Replicated and Distributed tables.",
    )
    clickhouse_connect_timeout_s: float = _setting(5.0, "How long a connection may take.", low=0.1, high=600)
    clickhouse_timeout_s: float = _setting(
        60.0,
        "How long a query or insert may take; below max_poll_interval_s, so that a slow insert is not a dead worker.",
        low=0.1,
        high=3600,
    )
    clickhouse_settings: dict[str, str] = _setting(  # noqa: RUF009
        {}, "More ClickHouse settings for every query and insert."
    )

    batch_records: int = _setting(
        100_000,
        "Kafka records a batch at most, while the worker is behind; 50,000 at most while it keeps up.",
        low=1,
        high=1_000_000,
    )
    batch_bytes: int = _setting(
        16 << 20,
        "Bytes of records after which a batch takes no more. A worker that is behind does more at once with larger "
        "batches (docs/performance.md), and takes more memory.",
        low=1 << 16,
        high=1 << 30,
    )
    batch_wait_s: float = _setting(
        0.25,
        "How long to wait for a batch to fill: the latency at low rates. What waits by then goes in too.",
        low=0,
        high=60,
    )
    verify_processes: int = _setting(
        1, "Processes that verify signed meter values ahead of a worker; with 0 it does so itself.", low=0, high=64
    )
    snapshot_interval_s: float = _setting(
        30.0,
        "How often a worker stores its state per partition, at least; after many records sooner.",
        low=0,
        high=86400,
    )

    tick_interval_s: float = _setting(
        10.0, "How often `wattrate watch` writes the time into the log.", low=0.05, high=3600
    )
    watch_host: str = _setting("127.0.0.1", "Address of the health and metrics page of `wattrate watch`.")
    watch_port: int = _setting(6066, "Port of that page.", low=1, high=65535)
    watch_token: str = _setting("", "What decisions sent to that page must bear; empty refuses them.", secret=True)
    metrics_host: str = _setting("127.0.0.1", "Address of a worker's metrics page.")
    metrics_port: int = _setting(0, "Port of a worker's metrics page; 0 is none.", low=0, high=65535)
    webhook_url: str = _setting("", "Where alerts are sent; empty is nowhere.")
    webhook_secret: str = _setting("", "Key of the HMAC-SHA256 signature of each webhook.", secret=True)
    alertmanager_url: str = _setting("", "Prometheus Alertmanager to send alerts to; empty is none.")

    broker_binary: str = _setting("", "The embedded broker's program; empty is the one from the `embedded` extra.")
    embedded_broker_port: int = _setting(19092, "First port tried for the embedded broker.", low=1, high=65535)
    embedded_store_port: int = _setting(18123, "First port tried for the embedded store.", low=1, high=65535)
    embedded_partitions: int = _setting(4, "Partitions of meter.readings on the embedded broker.", low=1, high=1024)

    sources: Mapping[str, str] = field(default_factory=dict, compare=False, metadata={"hidden": True})

    def __repr__(self) -> str:
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in self.shown().items())})"

    def shown(self) -> dict[str, Any]:
        """Name → value with secrets masked: the only form that may be printed or logged."""
        return {
            f.name: MASK if f.metadata["secret"] and getattr(self, f.name) else getattr(self, f.name)
            for f in described()
        }

    def topic(self, name: str) -> str:
        """The name of a topic on the brokers: prefix + name."""
        return self.topic_prefix + name


def described() -> tuple[Field[Any], ...]:
    """The fields that are settings, in the order of the documentation."""
    return tuple(f for f in fields(Settings) if not f.metadata.get("hidden"))


def load(config: Path | None = None, environ: Mapping[str, str] | None = None) -> Settings:
    """Read the settings once. `config` (or WATTRATE_CONFIG) names a TOML file; `environ` is the process's by default.

    Raises SettingsError naming the setting, where it came from and what it may be.
    """
    environ = os.environ if environ is None else environ
    named = config or (Path(environ[PREFIX + "CONFIG"]) if environ.get(PREFIX + "CONFIG") else None)
    given: dict[str, tuple[Any, str]] = {}
    given.update(_from_file(named) if named else {})
    given.update(_from_environment(environ))
    for name, raw in _from_run_file(_data_dir(given)).items():
        given.setdefault(name, raw)
    return _build(given)


def _data_dir(given: Mapping[str, tuple[Any, str]]) -> Path:
    raw = given.get("data_dir")
    return Path(str(raw[0])) if raw else Path(str(_default("data_dir")))


def _build(given: Mapping[str, tuple[Any, str]]) -> Settings:
    hints = get_type_hints(Settings)
    by_name = {f.name: f for f in described()}
    values: dict[str, Any] = {}
    for name, (raw, source) in given.items():
        if name not in by_name:
            raise SettingsError(
                f"{source}: there is no setting {name!r}; docs/settings.md lists them all{_nearest(name, by_name)}"
            )
        values[name] = _checked(by_name[name], hints[name], raw, source)
    return Settings(**values, sources={name: source for name, (_, source) in given.items()})


def _nearest(name: str, names: Mapping[str, object]) -> str:
    from difflib import get_close_matches  # only on the way to an error

    close = get_close_matches(name, names, 1)
    return f" (did you mean {close[0]}?)" if close else ""


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: can't read the settings file: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    return {name: (value, str(path)) for name, value in _flat(table)}


def _flat(table: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    tables = {f.name for f in described() if f.default is MISSING}
    for key, value in table.items():
        name = prefix + key
        nested = isinstance(value, dict) and name not in tables
        found.extend(_flat(value, name + "_") if nested else [(name, value)])
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    skip = {PREFIX + "CONFIG", PREFIX + "SHARED"}  # the second is the test suite's own
    return {
        variable.removeprefix(PREFIX).lower(): (value, f"environment variable {variable}")
        for variable, value in environ.items()
        if variable.startswith(PREFIX) and variable not in skip
    }


def _from_run_file(folder: Path) -> dict[str, tuple[Any, str]]:
    """Addresses of a stack that runs in this folder; nothing when it has ended or none was started."""
    path = folder / RUN_FILE
    try:
        run = json.loads(path.read_text("utf-8"))
        alive = Path(f"/proc/{int(run['pid'])}").exists()
        return {name: (value, str(path)) for name, value in run["settings"].items()} if alive else {}
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, OSError) as error:
        raise SettingsError(f"{path}: not a run file of `wattrate up` ({error}); delete it") from error


def _default(name: str) -> Any:
    return next(f.default for f in described() if f.name == name)


def _checked(f: Field[Any], kind: Any, raw: Any, source: str) -> Any:
    shown = MASK if f.metadata["secret"] else repr(raw)
    try:
        value = _typed(kind, raw)
    except (ValueError, TypeError) as error:
        raise SettingsError(f"{source}: {f.name} = {shown} is not {_kind_name(kind)}") from error
    low, high, choices = f.metadata["low"], f.metadata["high"], f.metadata["choices"]
    if choices and value not in choices:
        raise SettingsError(f"{source}: {f.name} = {shown} must be one of {', '.join(c or '(empty)' for c in choices)}")
    if low is not None and not low <= value <= high:
        raise SettingsError(f"{source}: {f.name} = {shown} must lie between {low:g} and {high:g}")
    return value


def _kind_name(kind: Any) -> str:
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
    return names.get(kind, "a table of names and values")


def _typed(kind: type | UnionType, raw: Any) -> Any:
    if kind is bool:
        return _boolean(raw)
    if kind is int or kind is float:
        if isinstance(raw, bool):
            raise TypeError(raw)
        return int(str(raw)) if kind is int else float(raw)
    if kind is Path or kind is str:
        if not isinstance(raw, (str, Path)):
            raise TypeError(raw)
        return Path(raw).expanduser() if kind is Path else str(raw)
    return _table(raw)


def _boolean(raw: Any) -> bool:
    words = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    key = str(raw).lower()
    if key not in words:
        raise ValueError(raw)
    return words[key]


def _table(raw: Any) -> dict[str, str]:
    if isinstance(raw, str):
        text = raw.strip()
        pairs = (
            json.loads(text) if text.startswith("{") else dict(part.split("=", 1) for part in text.split(",") if part)
        )
    else:
        pairs = raw
    if not isinstance(pairs, dict):
        raise TypeError(raw)
    return {str(name).strip(): _scalar(value) for name, value in pairs.items()}


def _scalar(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value).strip()
