"""A batch of Kafka records to sample columns: the codec's front door."""

from pipeline.codec.arrow import read_arrow
from pipeline.codec.assemble import Builder, merged
from pipeline.codec.records import ARROW_CONTENT_TYPE, DeadLetter, Decoded, Records, UndecodableError
from pipeline.codec.twin import read_record


def decode(records: Records) -> Decoded:
    """Samples in record order, then line order, and a dead letter for each record that can't be used.

    Stateless and a pure function of the records; no input bytes raise.
    """
    if records.content_types is None or not any(records.content_types):
        return decode_json(records, range(len(records.values)))
    arrow = [index for index, kind in enumerate(records.content_types) if kind == ARROW_CONTENT_TYPE]
    if not arrow:
        return decode_json(records, range(len(records.values)))
    chosen = frozenset(arrow)
    json = [index for index in range(len(records.values)) if index not in chosen]
    return merged([read_arrow(records, arrow), decode_json(records, json)])


def decode_json(records: Records, indices: range | list[int]) -> Decoded:
    """The JSON records among `records`, one by one through msgspec."""
    builder = Builder()
    for index in indices:
        record_ms = None if records.times_ms is None else int(records.times_ms[index])
        try:
            arrived = read_record(records.values[index], records.keys[index], record_ms)
        except UndecodableError as problem:
            builder.dead.append(DeadLetter(index, problem.reason, problem.detail))
        else:
            builder.add(index, int(records.offsets[index]), arrived)
    return builder.finish()
