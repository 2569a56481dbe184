"""The ground truth of a run: one row a session, what really flowed and what metering should conclude."""

from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.simulate.fault import Draft
from pipeline.simulate.faults import FAULTS, NAMES
from pipeline.simulate.network import SHAPES, Network
from pipeline.simulate.texts import transaction_uuid

_FIELDS: "list[pa.Field[Any]]" = [
    pa.field("session", pa.int64()),
    pa.field("charge_point_id", pa.string()),
    pa.field("connector_id", pa.int32()),
    pa.field("transaction_id", pa.string()),
    pa.field("id_token", pa.string()),
    pa.field("site", pa.int32()),
    pa.field("shape", pa.string()),
    pa.field("start_ms", pa.int64()),
    pa.field("stop_ms", pa.int64()),
    pa.field("true_mwh", pa.int64()),  # delivered to the car
    pa.field("expected_mwh", pa.int64()),  # billed, or billed after a release where the outcome is held
    pa.field("outside_mwh", pa.int64()),  # flowed before this session, outside any
    pa.field("outcome", pa.string()),  # billed | held | billed_or_held
    pa.field("fault", pa.string()),  # "" = none shows in this session
    pa.field("alerts", pa.list_(pa.string())),  # each must fire; "a|b": one of them
]
SCHEMA = pa.schema(_FIELDS)


def truth_of(draft: Draft, network: Network) -> pa.Table:
    """The truth about sessions whose draft is concluded."""
    sessions = draft.sessions
    cp = network.connector_cp[sessions["connector"]]
    names = [NAMES[n] if shown else "" for n, shown in zip(sessions["fault"].tolist(), draft.labelled, strict=True)]
    faults = [FAULTS.get(name) for name in names]
    uuid = (network.cp_shape[cp] == SHAPES.index("ocpp201")).tolist()
    numbers = sessions["number"].tolist()
    ids = [transaction_uuid(n).decode() if text else str(n) for n, text in zip(numbers, uuid, strict=True)]
    columns = [
        sessions["number"].copy(),
        [network.cp_names[at].decode() for at in cp.tolist()],
        network.connector_id[sessions["connector"]],
        ids,
        [f"T{token:08d}" for token in sessions["token"].tolist()],
        network.cp_site[cp],
        np.array(SHAPES, object)[network.cp_shape[cp]],
        sessions["start_ms"].copy(),
        sessions["stop_ms"].copy(),
        sessions["energy_mwh"].copy(),
        draft.expected_mwh,
        draft.outside_mwh,
        [fault.outcome if fault else "billed" for fault in faults],
        names,
        [list(fault.alerts) if fault else [] for fault in faults],
    ]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.Table.from_arrays(arrays, schema=SCHEMA)
