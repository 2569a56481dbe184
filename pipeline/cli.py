"""The `wattrate` command: finds the sub-command's file, loads settings once, turns errors into one line and a code."""

import importlib
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from pipeline import log
from pipeline.errors import WattrateError
from pipeline.settings import load

# name → one line of help; the code is in pipeline/commands/<name>.py and is imported only when it is used.
COMMANDS = {
    "demo": "See it all work on this machine: meter readings become rated rows, CDRs and alerts.",
    "up": "Start the embedded broker and store, in the foreground or background.",
    "init": "Make topics and tables; safe to run again.",
    "publish": "Publish tariffs, locations and tokens from JSON files.",
    "rate": "Run a rating worker.",
    "watch": "Run ticks, cross-connector rules, alert delivery and the health page.",
    "archive": "Keep the log's records in the store, so that Kafka may forget them.",
    "replay": "Turn a table of real sessions into the OCPP messages behind them.",
    "simulate": "Send the messages of an invented fleet, with faults on request.",
    "price": "Price a session or CDR with a tariff, offline.",
    "tariff": "Check, explain and compare tariffs, offline.",
    "explain": "Say why a session costs what it costs.",
    "quarantine": "List, release or reject usage held back from billing.",
    "deadletters": "List or retry inputs that could not be used.",
    "verify": "Check the control totals of the ledger.",
    "export": "Export CDRs or rated usage since a cursor.",
    "alerts": "List alerts, acknowledge or resolve them.",
    "anomalies": "Try rules and thresholds on past sessions.",
    "doctor": "Say what is wrong with this installation and what to do.",
}


class LazyGroup(click.Group):
    """A group whose commands are imported when they are called, so that `--help` is quick."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The commands whose file exists, in the order of COMMANDS."""
        return [name for name in COMMANDS if find_spec(f"pipeline.commands.{name}")]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import `pipeline.commands.<name>` and take its `command`; None when there is no such command."""
        if cmd_name not in self.list_commands(ctx):
            return None
        command: Any = importlib.import_module(f"pipeline.commands.{cmd_name}").command
        if not isinstance(command, click.Command):
            raise TypeError(f"pipeline.commands.{cmd_name}.command is not a click command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with their line of help, importing none of them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name]) for name in self.list_commands(ctx)] or [("none", "")])


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wattrate", message="wattrate %(version)s")
@click.option("--config", type=click.Path(path_type=Path), help="Settings file (TOML); also WATTRATE_CONFIG.")
@click.option("--debug", is_flag=True, help="Show tracebacks and log everything.")
@click.pass_context
def root(ctx: click.Context, config: Path | None, debug: bool) -> None:
    """Metering and rating for EV charging networks: OCPP readings in, exact OCPI prices out, once and only once.

    Start with `wattrate demo`. Every setting is an environment variable WATTRATE_… or a line in a TOML file:
    see docs/settings.md.
    """
    settings = load(config)
    log.configure("debug" if debug else settings.log_level, settings.log_format)
    ctx.obj = settings


def main(arguments: list[str] | None = None) -> None:
    """Entry point. Exit codes: 0 done, 2 wrong usage, 130 interrupted, others as pipeline.errors tells."""
    args = sys.argv[1:] if arguments is None else arguments
    sys.exit(_run(args))


def _run(args: list[str]) -> int:
    debug = "--debug" in args
    try:
        return int(root.main(args, prog_name="wattrate", standalone_mode=False) or 0)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("interrupted", err=True)
        return 130
    except WattrateError as error:
        if debug:
            raise
        click.echo(f"wattrate: {error.message}", err=True)
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output left: nothing to say to anyone
        return 0


if __name__ == "__main__":
    main()
