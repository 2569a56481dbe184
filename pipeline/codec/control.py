"""Control records: what else may change a row is in the log too (time, reference versions, decisions, policies)."""

from typing import Annotated, Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from pipeline.codec.records import DeadLetter, Records, UndecodableError, taken

PREFIX = b'{"control":'

_Instant = Annotated[int, msgspec.Meta(ge=0, lt=2**53)]
_Version = Annotated[int, msgspec.Meta(ge=0, lt=2**62)]
_Text = Annotated[str, msgspec.Meta(max_length=4096)]


class _Control(msgspec.Struct, frozen=True, tag_field="control"):
    """Common to all: the tag is the first key, by which a control record is recognised."""


class Tick(_Control, frozen=True, tag="tick"):
    """The log's time is at least this; time-outs, silence and hold limits fire on it."""

    time_ms: _Instant


class Reference(_Control, frozen=True, tag="reference"):
    """From here on this version of tariffs, locations, tokens and keys is active."""

    version: _Version


class Policy(_Control, frozen=True, tag="policy"):
    """From here on this version of the rating and metering policy is active."""

    version: _Version


class Decision(_Control, frozen=True, tag="decision"):
    """What a person decided about held usage, a dead letter or an alert."""

    action: Literal["release", "reject", "acknowledge", "resolve", "retry"]
    target: _Text
    actor: _Text
    note: _Text
    time_ms: _Instant


class Mute(_Control, frozen=True, tag="mute"):
    """Maintenance: alerts of a location (empty: of all) that fall into [from_ms, until_ms) are kept but not sent."""

    location: _Text
    from_ms: _Instant
    until_ms: _Instant
    kinds: tuple[_Text, ...]  # empty: all
    actor: _Text
    note: _Text
    time_ms: _Instant


Control = Tick | Reference | Policy | Decision | Mute


class ControlAt(msgspec.Struct, frozen=True):
    """A control record: its index in the Records it was split from, its offset, what it says."""

    index: int
    offset: int
    control: Control


class Split(NamedTuple):
    """Records without their controls. `positions[i]` is the index that data record i had before the split."""

    data: Records
    positions: npt.NDArray[np.int64]
    controls: list[ControlAt]
    dead: list[DeadLetter]


_decoder: msgspec.json.Decoder[Control] = msgspec.json.Decoder(Control)
_encoder = msgspec.json.Encoder()


def parse_control(value: bytes) -> Control:
    """The control in a record's value; raises UndecodableError (bad_control) with what is wrong."""
    try:
        return _decoder.decode(value)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise UndecodableError("bad_control", f"not a control record that this version knows: {error}") from error


def encode_control(control: Control) -> bytes:
    """The record's value, beginning with PREFIX."""
    return _encoder.encode(control)


def split_controls(records: Records) -> Split:
    """Takes out the records with a null key and a value that begins with PREFIX; malformed ones are dead letters."""
    if None not in records.keys:
        return Split(records, np.arange(len(records.values)), [], [])
    found = [
        index for index, key in enumerate(records.keys) if key is None and records.values[index].startswith(PREFIX)
    ]
    if not found:
        return Split(records, np.arange(len(records.values)), [], [])
    controls: list[ControlAt] = []
    dead: list[DeadLetter] = []
    for index in found:
        try:
            controls.append(ControlAt(index, int(records.offsets[index]), parse_control(records.values[index])))
        except UndecodableError as problem:
            dead.append(DeadLetter(index, problem.reason, problem.detail))
    is_data = np.ones(len(records.values), np.bool_)
    is_data[found] = False
    return Split(taken(records, is_data), np.flatnonzero(is_data), controls, dead)
