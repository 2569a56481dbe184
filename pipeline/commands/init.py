"""`wattrate init`: topics on the broker, tables in the store. Run it again after every upgrade."""

import json

import click

from pipeline.clickhouse import Store
from pipeline.kafka import Admin
from pipeline.migrations import migrate
from pipeline.settings import Settings
from pipeline.topics import TOPICS


def prepare(settings: Settings) -> dict[str, list[str]]:
    """Make what is missing; the names made. The store comes first: a disk that is full must show before going live."""
    with Store(settings) as store:
        migrations = migrate(store, settings.clickhouse_cluster)
    topics = Admin(settings).create_topics(TOPICS, settings.partitions)
    return {"migrations": migrations, "topics": topics}


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def command(settings: Settings, as_json: bool) -> None:
    """Make topics and tables; does nothing where they are as they should be."""
    made = prepare(settings)
    if as_json:
        print(json.dumps(made))
        return
    for kind, names in made.items():
        print(f"{kind}: {', '.join(names) if names else 'nothing to do'}")
