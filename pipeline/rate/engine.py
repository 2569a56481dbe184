"""Rating as a pure function of (state, log): a batch of records in, the rows of the batch out.

    read -> rounds -> metered -> settled or held -> rows

No Kafka, no clock, no commit: those are `worker` and `commit`. What needs a session's past asks `History`.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from pipeline.codec.records import Records, SignedBlob
from pipeline.metering import kinds
from pipeline.metering.clocks import set_clocks
from pipeline.metering.columns import ABSENT_I64
from pipeline.metering.output import FACT_DTYPE, ROOM, Rows, cleared, new_output, rows_at
from pipeline.metering.policy import MeteringPolicy
from pipeline.metering.published import NAME, Rules, parse_policy, rules_of
from pipeline.metering.signed import Verifier
from pipeline.metering.state import NONE
from pipeline.rate.apart import Apart
from pipeline.rate.batch import CONTROL, DEAD_LETTERED, Batch, DeadRow, Place, QuarantineRow, Share
from pipeline.rate.collect import Collector
from pipeline.rate.decisions import Decisions
from pipeline.rate.directory import Directory
from pipeline.rate.inputs import Input, Refused, Wake, read
from pipeline.rate.partition import PartitionState
from pipeline.rate.past import History
from pipeline.rate.samples_kernel import Survey, believe_clocks, fill_facts, survey
from pipeline.rate.segment import Samples, Segment, is_only_waiting
from pipeline.rate.sheets import LoadVersion, Sheets
from pipeline.rate.signed_values import Signed, by_session
from rating.policy import DEFAULT as RATING_POLICY
from rating.policy import Policy

_STALE_MS: Final = 90 * 86_400_000  # a clock this far behind its message's arrival is no clock


class Engine:
    """The state of the partitions that a worker owns, and what it does with their log."""

    def __init__(
        self,
        partitions: int,
        history: History,
        load: LoadVersion,
        policy: Policy = RATING_POLICY,
        metering: MeteringPolicy | None = None,
        verifier: Verifier | None = None,
    ) -> None:
        """Know nothing yet; `partitions` is the topic's count."""
        self._verifier = verifier or Verifier()
        self.directory = Directory(partitions)
        self.sheets = Sheets(load, policy)
        self.partitions: dict[int, PartitionState] = {}
        self.history = history
        self.room = new_output(0)  # for sessions that are metered again, one at a time
        self._room = new_output(0)  # for segments, one at a time: new memory is cleared page by page
        self._tokens = np.zeros(0, np.int32)  # the directory's numbers of the tokens of a batch, the last of none
        self._metering = metering or MeteringPolicy()
        self._rules = {0: rules_of(self._metering)}  # by version of the policy

    def own(self, partition: int) -> PartitionState:
        """The memory of a partition; new where it has none."""
        return self.partitions.setdefault(partition, PartitionState(partition))

    def rules(self, partition: int) -> Rules:
        """The metering policy that is active in a partition."""
        version = self.partitions[partition].policy_version
        if version not in self._rules:
            document = self.sheets.data(version).policies.get(NAME)
            self._rules[version] = parse_policy(document.body, self._metering) if document else self._rules[0]
        return self._rules[version]

    def defaults(self, at_ms: int) -> Rows:
        """What reference data says of each connector; those that are new are told which limits hold for them."""
        new = np.concatenate([*self.directory.new, np.zeros(0, np.int64)])
        self.directory.new.clear()
        partitions = self.directory.state.connectors["partition"][new]
        for partition in np.unique(partitions[partitions >= 0]).tolist():
            self._limit(partition, new[partitions == partition])
        return self.sheets.defaults(self.directory, at_ms)

    def limit_all(self, partition: int) -> None:
        """Policy or reference data of a partition changed: which limits hold for its connectors from here on."""
        self._limit(partition, self.directory.members(partition))

    def _limit(self, partition: int, rows: npt.NDArray[np.integer]) -> None:
        limits, version = self.rules(partition).limits, self.partitions[partition].reference_version
        numbers = limits.numbers(self.sheets.data(version).kinds_of(self.directory.names(rows))) if limits.tuned else 0
        self.directory.state.connectors["limits"][rows] = numbers

    def drop(self, partition: int) -> None:
        """Forget a partition: another worker has it."""
        self.directory.forget(partition)
        self.partitions.pop(partition, None)

    def process(self, batches: Mapping[int, Records], refused: Refused = MappingProxyType({})) -> Batch:
        """Rate the records of a batch (partition → records in offset order) and advance the state.

        Records that are `refused` become dead letters.
        """
        found = {partition: records for partition, records in sorted(batches.items()) if len(records.values)}
        given = read(found, refused, self._wake)
        if self._verifier.ahead:
            self._verifier.foresee(given.signed, self._public_keys(given, given.signed))
        batch = Batch()
        for partition, records in found.items():
            offsets = records.offsets
            batch.shares[partition] = Share(partition, int(offsets[0]), int(offsets[-1]), len(offsets))
            self.own(partition)
        self._tokens = np.append(self.directory.tokens.numbers(given.tokens), np.int32(NONE))
        collector = Collector(self, batch, given)
        decisions = Decisions(self, collector)
        for number in range(len(given.breaks) + 1):
            self._round(given, number, batch, collector, decisions)
            for ending in given.breaks[number] if number < len(given.breaks) else ():
                decisions.apply(ending)
        self._finish(given, batch)
        return batch

    def _wake(self, partition: int) -> Wake:
        """From when on a tick has something to do in a partition."""
        state = self.own(partition)
        rules = self.rules(partition)
        return state.wake(rules.metering.hold_limit_ms, rules.longest_timeout_ms)

    def foresee(self, batches: Mapping[int, Records]) -> None:
        """Start to verify signatures of records that will be processed soon, by the keys that are in use now."""
        given = read(dict(sorted(batches.items())), MappingProxyType({}))
        self._verifier.foresee(given.signed, self._public_keys(given, given.signed))

    def _public_keys(self, given: Input, blobs: Sequence[SignedBlob]) -> list[str]:
        """The meters' keys, by the reference data that is in use in their partitions."""
        places = np.array([blob.sample for blob in blobs], np.intp)
        samples = rows_at(given.samples, places)
        columns = (given.partitions[places], samples["charge_point"], samples["connector_id"])
        meters = list(zip(*(column.tolist() for column in columns), strict=True))
        found = {meter: self._public_key(given, *meter) for meter in dict.fromkeys(meters)}
        return [found[meter] for meter in meters]

    def _public_key(self, given: Input, partition: int, charge_point: int, connector_id: int) -> str:
        state = self.partitions.get(partition)
        version = state.reference_version if state else 0
        return self.sheets.data(version).public_key(given.charge_points[charge_point], connector_id)

    def _verify(self, given: Input, number: int) -> None:
        """Judge the signatures of a round, by the meters' keys in the reference data that is in use there."""
        blobs = [blob for blob in given.signed if given.rounds[blob.sample] == number]
        if not blobs:
            return
        verified = self._verifier.verify(blobs, self._public_keys(given, blobs))
        where = np.array([blob.sample for blob in blobs])
        given.samples["signed"][where] = verified.states
        told = verified.register_mwh != ABSENT_I64
        given.samples["register_mwh"][where[told]] = verified.register_mwh[told]

    def _round(self, given: Input, number: int, batch: Batch, collector: Collector, decisions: Decisions) -> None:
        """Meter the samples of one round, then what the pass deferred, in log order."""
        chosen = np.flatnonzero(given.rounds == number) if given.breaks else np.arange(len(given.samples))
        if not len(chosen):
            return
        self._verify(given, number)
        versions = {partition: self.partitions[partition].policy_version for partition in batch.shares}
        for version in sorted(set(versions.values())):
            theirs = [partition for partition, in_use in versions.items() if in_use == version]
            mine = chosen if len(theirs) == len(versions) else chosen[np.isin(given.partitions[chosen], theirs)]
            if len(mine):
                self._meter(given, mine, batch, collector, decisions)

    def _meter(
        self, given: Input, chosen: npt.NDArray[np.intp], batch: Batch, collector: Collector, decisions: Decisions
    ) -> None:
        """Meter samples of one policy."""
        rules = self.rules(int(given.partitions[chosen[0]]))
        if rules.clocks:
            chosen = self._set_clocks(given, chosen, rules, batch)
            if not len(chosen):
                return
        samples, found = self._samples(given, chosen)
        segment = self._segment(samples, found, rules)
        deferred = segment.meter()
        batch.metered.append(samples)
        batch.signed += _signed_of(given, chosen, samples)
        collector.collect(segment)
        apart = Apart(self, batch, collector, segment, rules)
        apart.prefetch(deferred)
        while deferred:
            waiting = [one for one in deferred if is_only_waiting(one)]
            for one in deferred:
                if not is_only_waiting(one):
                    apart.take(one)
            collector.collect(segment)
            deferred = segment.resume(waiting, self._detached()) if waiting else []
            collector.collect(segment)
        decisions.pass_time(samples)

    def _set_clocks(
        self, given: Input, chosen: npt.NDArray[np.intp], rules: Rules, batch: Batch
    ) -> npt.NDArray[np.intp]:
        """Correct the clocks that the policy names; what it rejects is set apart with its bytes. Returns the rest."""
        samples = rows_at(given.samples, chosen)
        believe_clocks(samples, _STALE_MS)
        rejected = set_clocks(samples, given.charge_points, rules.clocks)
        given.samples[chosen] = samples
        if not rejected.any():
            return chosen
        apart, _ = self._samples(given, chosen[rejected])
        apart.facts["verdict"] = kinds.SUSPECT
        batch.metered.append(apart)
        for at in range(len(apart.samples)):
            self._set_apart(given, apart, at, batch)
        return chosen[~rejected]

    def _set_apart(self, given: Input, apart: Samples, at: int, batch: Batch) -> None:
        sample, fact = apart.samples[at], apart.facts[at]
        row, partition, offset, line = (
            int(fact["row"]),
            int(fact["partition"]),
            int(sample["offset"]),
            int(sample["line"]),
        )
        base = (line << 32) + batch.next_place("quarantine_rows", partition, offset, line)
        connector_id = int(self.directory.state.connectors["connector_id"][row])
        place = Place(partition, offset, base, row, 0, self.directory.charge_points[row], connector_id)
        reason, raw = kinds.HOLD_REASONS[kinds.HOLD_TIME], given.values[int(apart.records[at])]
        batch.quarantine.append(QuarantineRow(place, "held", reason, 0, int(sample["received_ms"]), raw=raw))

    def _samples(self, given: Input, chosen: npt.NDArray[np.intp]) -> tuple[Samples, Survey]:
        whole: Any = slice(None) if len(chosen) == len(given.samples) else chosen  # one round: no copy
        samples, partitions = rows_at(given.samples, whole), given.partitions[whole]
        found = survey(samples, self._tokens, _STALE_MS)
        rows = self.directory.rows(given.charge_points, found.keys, partitions[found.firsts])
        in_use = np.zeros((2, int(partitions.max()) + 1), np.int64)  # slot and version of reference data, by partition
        for partition in np.flatnonzero(np.bincount(partitions)).tolist():
            version = self.partitions[partition].reference_version
            in_use[:, partition] = self.sheets.slot(version), version
        facts, versions = np.empty(len(samples), FACT_DTYPE), np.empty(len(samples), np.int64)
        fill_facts(facts, versions, partitions, found.numbers, np.append(rows, np.int32(NONE)), in_use)
        return Samples(samples, facts, given.transaction_ids[whole], versions, given.records[whole]), found

    def _segment(self, samples: Samples, found: Survey, rules: Rules) -> Segment:
        self.sheets.cover(found.first_ms, found.last_ms + 1)
        defaults = self.defaults(found.last_ms)
        self._choose_sheets(samples, found.starts)
        if len(samples.samples) + ROOM > len(self._room.sessions):
            self._room = new_output(len(samples.samples))
        room = cleared(self._room)
        return Segment(samples, self.sheets.book, self.directory, rules.limits.rows, defaults, self._detached(), room)

    def _detached(self) -> npt.NDArray[np.uint64]:
        """The keys of sessions that the pass must leave alone, sorted."""
        detached = [state.detached() for state in self.partitions.values() if state.apart]
        return np.sort(np.concatenate(detached)) if detached else np.zeros(0, np.uint64)

    def _choose_sheets(self, samples: Samples, starts: npt.NDArray[np.int64]) -> None:
        """Starts whose token has a tariff of its own, or whose connector's tariff depends on the instant."""
        columns = (samples.facts["row"], samples.versions, samples.samples["token"], samples.samples["time_ms"])
        for at, row, version, token, time_ms in zip(
            starts, *(column[starts].tolist() for column in columns), strict=True
        ):
            uid = self.directory.token_text(token)
            if not ((uid and self.sheets.own_tariff(version, uid)) or self.sheets.depends_on_time(row)):
                continue
            found = self.sheets.resolve(self.directory, version, row, uid, time_ms)
            samples.facts["sheet"][at] = self.sheets.sheet_of(found)

    def _finish(self, given: Input, batch: Batch) -> None:
        """Every record its outcome; each partition's log time and reference version."""
        batch.count_outcomes(given.of_partition)
        for dead in given.dead:
            partition = int(given.of_partition[dead.index])
            batch.shares[partition].outcomes[DEAD_LETTERED] += 1
            batch.dead.append(
                DeadRow(
                    partition, int(given.offsets[dead.index]), int(given.times_ms[dead.index]), dead.reason,
                    dead.detail, given.keys[dead.index] or b"", given.values[dead.index],
                )
            )  # fmt: skip
        for partition in given.of_partition[given.controls].tolist():
            batch.shares[partition].outcomes[CONTROL] += 1
        for partition, share in batch.shares.items():
            state = self.partitions[partition]
            share.log_time_ms, share.reference_version = state.log_time_ms, state.reference_version
            state.keep_signed(by_session(one for one in batch.signed if one.partition == partition))


def _signed_of(given: Input, chosen: npt.NDArray[np.intp], samples: Samples) -> list[Signed]:
    """The blobs of the chosen samples; `samples` are those, in their order."""
    if not given.signed:
        return []
    places = np.searchsorted(chosen, [blob.sample for blob in given.signed])
    return [
        Signed(samples, at, blob)
        for blob, at in zip(given.signed, places.tolist(), strict=True)
        if at < len(chosen) and chosen[at] == blob.sample
    ]
