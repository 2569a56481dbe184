"""The compiled loops over samples, beside the same in columns of numpy."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.metering import kinds
from pipeline.metering.columns import FLAG_TIME_CORRECTED, FLAG_TIME_UNUSABLE, KIND_START, KIND_TICK, SAMPLE_DTYPE
from pipeline.metering.output import FACT_DTYPE, Rows
from pipeline.rate.batch import DUPLICATE, QUARANTINED, USED, Batch, Share
from pipeline.rate.samples_kernel import believe_clocks, fill_facts, survey
from pipeline.rate.segment import Samples, new_facts

SEEDS = st.integers(0, 2**32 - 1)
STALE_MS = 40
TOKENS = np.array([7, 5, 9, -1], np.int32)


def drawn(rng: np.random.Generator, rows: int) -> Rows:
    """Samples of few connectors, among them ticks; ids as far apart as they may be."""
    samples = np.zeros(rows, SAMPLE_DTYPE)
    samples["kind"] = rng.integers(0, KIND_TICK + 1, rows)
    samples["charge_point"] = np.where(samples["kind"] == KIND_TICK, -1, rng.integers(0, 4, rows))
    samples["connector_id"] = rng.choice([0, 1, 2, 65_535], rows)
    samples["token"] = rng.integers(-1, 3, rows)
    samples["time_ms"], samples["received_ms"] = rng.integers(0, 100, (2, rows))
    samples["flags"] = rng.integers(0, 1 << 16, rows)
    return samples


@settings(deadline=None)
@given(seed=SEEDS, rows=st.integers(1, 60))
def test_samples_are_surveyed_as_in_columns(seed: int, rows: int) -> None:
    """Connectors in order of their first appearance; clocks that are none before instants are looked at."""
    samples = drawn(np.random.default_rng(seed), rows)
    wanted = samples.copy()
    wanted["token"] = TOKENS[wanted["token"]]
    stale = wanted["received_ms"] - wanted["time_ms"] > STALE_MS
    wanted["time_ms"][stale] = wanted["received_ms"][stale]
    wanted["flags"][stale] |= FLAG_TIME_UNUSABLE | FLAG_TIME_CORRECTED
    named = [
        None if one["kind"] == KIND_TICK else int(one["charge_point"]) << 32 | int(one["connector_id"])
        for one in samples
    ]
    keys = list(dict.fromkeys(key for key in named if key is not None))

    found = survey(samples, TOKENS, STALE_MS)

    assert samples.tobytes() == wanted.tobytes()
    assert found.keys.tolist() == keys
    assert found.firsts.tolist() == [named.index(key) for key in keys]
    assert found.numbers.tolist() == [-1 if key is None else keys.index(key) for key in named]
    assert found.starts.tolist() == np.flatnonzero(samples["kind"] == KIND_START).tolist()
    assert found.first_ms == wanted["time_ms"].min()
    assert found.last_ms == max(wanted["time_ms"].max(), wanted["received_ms"].max())


@settings(deadline=None)
@given(seed=SEEDS, rows=st.integers(0, 40))
def test_clocks_are_believed_as_in_the_survey(seed: int, rows: int) -> None:
    samples = drawn(np.random.default_rng(seed), rows)
    tokens = samples["token"].copy()
    surveyed = samples.copy()
    if rows:
        survey(surveyed, TOKENS, STALE_MS)
    surveyed["token"] = tokens

    for _ in range(2):
        believe_clocks(samples, STALE_MS)

        assert samples.tobytes() == surveyed.tobytes()


@settings(deadline=None)
@given(seed=SEEDS, rows=st.integers(0, 40))
def test_facts_are_filled_as_in_columns(seed: int, rows: int) -> None:
    rng = np.random.default_rng(seed)
    partitions, numbers = rng.integers(0, 3, rows).astype(np.int32), rng.integers(-1, 4, rows).astype(np.int32)
    of_number, in_use = np.array([8, 3, 5, 1, -1], np.int32), rng.integers(0, 100, (2, 3))
    wanted = new_facts(rows)
    wanted["partition"], wanted["row"], wanted["slot"] = partitions, of_number[numbers], in_use[0, partitions]
    facts, versions = np.frombuffer(rng.bytes(rows * FACT_DTYPE.itemsize), FACT_DTYPE).copy(), np.empty(rows, np.int64)

    fill_facts(facts, versions, partitions, numbers, of_number, in_use)

    assert facts.tolist() == wanted.tolist()
    assert versions.tolist() == in_use[1, partitions].tolist()


@settings(deadline=None)
@given(seed=SEEDS, rows=st.integers(0, 40))
def test_a_record_ends_as_its_worst_sample_does(seed: int, rows: int) -> None:
    """Also where its samples were metered apart from each other; a sample that stands for no record counts for none."""
    rng = np.random.default_rng(seed)
    of_partition = np.array([0, 0, 0, 1, 1, 1], np.int32)
    batch = Batch()
    batch.shares = {partition: Share(partition, 0, 2, 3) for partition in (0, 1)}
    worst: dict[int, int] = {}
    for _ in range(2):
        facts, records = np.zeros(rows, FACT_DTYPE), rng.integers(-1, 6, rows)
        facts["verdict"] = rng.integers(0, len(kinds.VERDICTS), rows)
        facts["disposition"] = rng.integers(0, len(kinds.DISPOSITIONS), rows)
        none = np.zeros(rows, SAMPLE_DTYPE)
        batch.metered.append(Samples(none, facts, np.zeros(rows, "S36"), np.zeros(rows, np.int64), records))
        for fact, record in zip(facts, records.tolist(), strict=True):
            held = fact["disposition"] == kinds.HELD or fact["verdict"] in (kinds.REGRESSED, kinds.SUSPECT)
            outcome = QUARANTINED if held else DUPLICATE if fact["verdict"] == kinds.DUPLICATE else USED
            worst[record] = max(worst.get(record, USED), outcome)

    batch.count_outcomes(of_partition)

    for partition, share in batch.shares.items():
        mine = np.flatnonzero(of_partition == partition).tolist()
        assert share.outcomes == Counter(worst[record] for record in mine if record in worst)
