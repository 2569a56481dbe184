-- Who takes a partition over asks how far its markers tile. What that costs must not grow with their number, so the
-- projection holds what proves it (pipeline/tiling.py): lengths, and a sum in which the inner seams of a tiling cancel.
-- It lies in the same part as the markers: one that is lost is lost in the sums too. It serves `covered` as spans did.

ALTER TABLE marker_rows ADD PROJECTION IF NOT EXISTS tilings
    (SELECT log_id, partition, claim, min(first_offset), max(last_offset), max(reference_version),
        sum(last_offset + 1 - first_offset), sum(intHash64(last_offset + 1) - intHash64(first_offset))
     GROUP BY log_id, partition, claim);
ALTER TABLE marker_rows MATERIALIZE PROJECTION tilings;
ALTER TABLE marker_rows DROP PROJECTION IF EXISTS spans;

-- How far outputs are out is asked on every take-over and every export.
ALTER TABLE published_rows ADD PROJECTION IF NOT EXISTS reached
    (SELECT log_id, partition, max(last_offset) GROUP BY log_id, partition);
ALTER TABLE published_rows MATERIALIZE PROJECTION reached;
