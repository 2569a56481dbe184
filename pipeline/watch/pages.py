"""What the health and metrics page says: JSON for probes, text for Prometheus, HTML for people. Renders only."""

import time
from html import escape
from typing import Any

import msgspec

from pipeline.watch.sinks import instant, summary
from pipeline.watch.watch import Watch

_SHOWN = 100
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1d2733}"
    "table{border-collapse:collapse;width:100%}"
    "td,th{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #dde3ea}"
    ".critical{color:#b3261e;font-weight:600}.warning{color:#8a5a00}.bad{color:#b3261e}"
)


def health(watch: Watch, restarts: int) -> dict[str, Any]:
    """`ok` is False while something can't work; the process lives on and waits."""
    trouble = watch.trouble()
    return {
        "ok": watch.recovered and not trouble,
        "recovered": watch.recovered,
        "trouble": trouble,
        "lag": {feed.topic: feed.lag for feed in watch.feeds},
        "open_alerts": len(watch.book.open),
        "ticks": watch.ticker.ticks,
        "restarts": restarts,
        "uptime_s": round(time.time() - watch.started_s, 1),
    }


def metrics(watch: Watch, restarts: int) -> str:
    """Prometheus text exposition format 0.0.4."""
    lines: list[str] = []
    _family(lines, "wattrate_watch_up", "gauge", "1 when nothing is in trouble.", [({}, int(not watch.trouble()))])
    _family(lines, "wattrate_watch_ticks_total", "counter", "Ticks written into the log.", [({}, watch.ticker.ticks)])
    _family(lines, "wattrate_watch_restarts_total", "counter", "Parts restarted by the watchdog.", [({}, restarts)])
    feeds = [({"topic": feed.topic}, feed) for feed in watch.feeds]
    _family(lines, "wattrate_watch_records_total", "counter", "Records read.", [(n, f.records) for n, f in feeds])
    _family(lines, "wattrate_watch_lag_records", "gauge", "Records not yet read.", [(n, f.lag) for n, f in feeds])
    by_kind: dict[tuple[str, str], int] = {}
    for one in watch.book.open.values():
        key = (one.first.kind, one.first.severity)
        by_kind[key] = by_kind.get(key, 0) + 1
    rows = [({"kind": kind, "severity": severity}, n) for (kind, severity), n in sorted(by_kind.items())]
    _family(lines, "wattrate_watch_open_alerts", "gauge", "Alerts that are not resolved.", rows)
    verdicts = [({"verdict": name}, n) for name, n in sorted(watch.book.counts.items())]
    _family(lines, "wattrate_watch_alert_steps_total", "counter", "Alert steps by what was done.", verdicts)
    sent = [({"sink": c.sink.name, "what": name}, n) for c in watch.couriers for name, n in sorted(c.counts.items())]
    _family(lines, "wattrate_watch_deliveries_total", "counter", "Deliveries by sink and outcome.", sent)
    queued = [({"sink": c.sink.name}, len(c)) for c in watch.couriers]
    _family(lines, "wattrate_watch_queue", "gauge", "Alert steps that wait for a sink.", queued)
    return "\n".join(lines) + "\n"


def _family(lines: list[str], name: str, kind: str, text: str, rows: list[tuple[dict[str, str], int]]) -> None:
    lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
    for labels, value in rows:
        inner = ",".join(f'{key}="{_label(text)}"' for key, text in labels.items())
        lines.append(f"{name}{{{inner}}} {value}" if inner else f"{name} {value}")


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def open_alerts(watch: Watch) -> list[dict[str, Any]]:
    """Every open alert as JSON, newest first."""
    return [
        {
            **msgspec.to_builtins(one.first),
            "location_id": one.location,
            "time": instant(one.first.time_ms),
            "last_ms": one.last_ms,
            "steps": one.steps,
            "acknowledged": one.acknowledged,
            "muted": one.muted,
        }
        for one in sorted(watch.book.open.values(), key=lambda one: -one.last_ms)
    ]


def mutes(watch: Watch) -> list[dict[str, Any]]:
    """Every mute as JSON: those of the rules file, then those of the log."""
    told = ((mute, where) for where, all_ in (("rules", watch.rules.mutes), ("log", watch.book.mutes)) for mute in all_)
    return [
        {
            "location": mute.location,
            "from": instant(mute.from_ms),
            "until": instant(mute.until_ms),
            "kinds": list(mute.kinds),
            "said_in": where,
        }
        for mute, where in told
    ]


def page(watch: Watch, restarts: int) -> str:
    """The newest open alerts and the state of the parts."""
    state = health(watch, restarts)
    open_alerts = sorted(watch.book.open.values(), key=lambda one: -one.last_ms)
    rows = "".join(
        f"<tr><td class={one.first.severity}>{one.first.severity}<td>{escape(summary(one.first))}"
        f"<td>{escape(one.location)}<td>{instant(one.first.time_ms)}"
        f"<td>{'acknowledged' if one.acknowledged else 'muted' if one.muted else 'open'}"
        f"<td><code>{escape(one.first.alert_id)}</code>"
        for one in open_alerts[:_SHOWN]
    )
    trouble = "".join(f"<p class=bad>{escape(line)}</p>" for line in state["trouble"])
    lag = ", ".join(f"{escape(topic)} {n}" for topic, n in state["lag"].items())
    more = f"<p>{len(open_alerts) - _SHOWN} older ones are not shown.</p>" if len(open_alerts) > _SHOWN else ""
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><meta http-equiv=refresh content=5>"
        f"<title>wattrate watch</title><style>{_STYLE}</style><h1>wattrate watch</h1>"
        f"<p>{'All is well.' if state['ok'] else 'Something waits.'} Up {state['uptime_s']} s, "
        f"{state['ticks']} ticks written, lag: {lag}. <a href=/healthz>healthz</a> <a href=/metrics>metrics</a></p>"
        f"{trouble}<h2>{len(open_alerts)} open alerts</h2>"
        f"<table><thead><tr><th>severity<th>what<th>location<th>since<th>state<th>id</thead>{rows}</table>{more}</html>"
    )
