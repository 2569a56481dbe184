"""`wattrate watch`: ticks, cross-connector rules, alert delivery, health and metrics. One a deployment is enough."""

from pathlib import Path

import click

from pipeline.settings import Settings


@click.command()
@click.option("--rules", type=click.Path(path_type=Path), help="Thresholds, mutes, delivery (TOML; docs/watch.md).")
@click.option("--ticks/--no-ticks", default=True, help="Write the time into the log. No while a replay writes its own.")
@click.option("--port", type=click.IntRange(0, 65535), help="Port of the page instead of the setting watch_port.")
@click.pass_obj
def command(settings: Settings, rules: Path | None, ticks: bool, port: int | None) -> None:
    """Run the watch until SIGTERM: writes ticks, runs the rules across connectors, delivers alerts.

    Its page (WATTRATE_WATCH_HOST and _PORT, loopback by default) has /healthz and /metrics. It keeps nothing of its
    own: killed at any moment it takes up from the store and the log.
    """
    from dataclasses import replace

    from pipeline.watch.app import run  # Faust takes a second to import
    from pipeline.watch.rules import load_rules

    chosen = settings if port is None else replace(settings, watch_port=port)
    run(chosen, load_rules(rules), ticks=ticks)
