-- Cells are changed under their campaign's lock, so the position of a row (ctid) that a statement finds stays the same until it updates
-- the row.
-- A segment is looked up by "number BETWEEN x AND x ORDER BY number LIMIT 1": with "number = x", PostgreSQL may read all segments of the
-- campaign by another index, if it has no statistics of them.

-- name: end
-- Move devices of waves ($3) and segments ($4) of campaigns ($2) from in flight to succeeded ($5) and failed ($6). Not applied: the
-- edit of the policy has removed the cell since, and the next comparison counts the device.
UPDATE ota_campaign_cells l
SET in_flight = l.in_flight - moved.succeeded - moved.failed,
    succeeded = l.succeeded + moved.succeeded, failed = l.failed + moved.failed
FROM unnest($2::bigint[], $3::int[], $4::int[], $5::int[], $6::int[])
    AS moved (campaign_id, wave, segment, succeeded, failed)
CROSS JOIN LATERAL (
    SELECT ctid AS place FROM ota_campaign_cells
    WHERE tenant_id = $1 AND campaign_id = moved.campaign_id AND wave = moved.wave AND segment = moved.segment
    OFFSET 0 -- otherwise it is a join, which may read all cells for each of these
) AS cell
WHERE l.tenant_id = $1 AND l.ctid = cell.place;

-- name: skip
-- Devices of waves ($3) and segments ($4) are skipped: so many ($5). Of these, so many were counted as waiting for their first command
-- ($6) and as in flight ($7), and budgets had held so many ($8). Not applied: as above.
UPDATE ota_campaign_cells l
SET waiting = l.waiting - moved.waiting, held = l.held - moved.held,
    in_flight = l.in_flight - moved.in_flight, skipped = l.skipped + moved.devices
FROM unnest($3::int[], $4::int[], $5::int[], $6::int[], $7::int[], $8::int[])
     AS moved (wave, segment, devices, waiting, in_flight, held)
CROSS JOIN LATERAL (
    SELECT ctid AS place FROM ota_campaign_cells
    WHERE tenant_id = $1 AND campaign_id = $2 AND wave = moved.wave AND segment = moved.segment
    OFFSET 0
) AS cell
WHERE l.tenant_id = $1 AND l.ctid = cell.place;

-- name: queue
-- Devices by wave; and (wave NULL) those that wait for their first command by the quarantine of their segments, in waves up to $3
-- and after it, with the first and the last segment that has any in the queue now. quarantined: of a wave's devices that are not
-- terminal. One pass over the cells: the quarantined segments are a
-- hashed set, since a claim's settings allow no hash join, and a look at each segment would cost more than the claim.
SELECT l.wave, NULL::text AS time_zone, l.quarantined AS is_quarantined,
       sum(l.waiting)::int AS waiting, sum(l.in_flight)::int AS in_flight, sum(l.succeeded)::int AS succeeded,
       sum(l.failed)::int AS failed, sum(l.skipped)::int AS skipped,
       COALESCE(sum(l.waiting + l.in_flight) FILTER (WHERE l.quarantined), 0)::int AS quarantined,
       COALESCE(sum(l.waiting) FILTER (WHERE l.wave <= $3), 0)::int AS waiting_now,
       COALESCE(sum(l.waiting) FILTER (WHERE l.wave > $3), 0)::int AS waiting_later,
       COALESCE(sum(l.held) FILTER (WHERE l.wave <= $3), 0)::int AS held_now,
       min(l.segment) FILTER (WHERE l.wave <= $3 AND l.waiting > l.held) AS first_open,
       max(l.segment) FILTER (WHERE l.wave <= $3 AND l.waiting > l.held) AS last_open
FROM (SELECT *, segment IN (SELECT number FROM ota_campaign_segments
                            WHERE tenant_id = $1 AND campaign_id = $2 AND quarantined_at IS NOT NULL) AS quarantined
      FROM ota_campaign_cells
      WHERE tenant_id = $1 AND campaign_id = $2) AS l
GROUP BY GROUPING SETS ((l.wave), (l.quarantined))
ORDER BY 1, 3;

-- name: queue_by_zone
-- The same, with the waiting devices also by the time zone of their segments.
SELECT l.wave, s.time_zone, s.quarantined_at IS NOT NULL AS is_quarantined,
       sum(l.waiting)::int AS waiting, sum(l.in_flight)::int AS in_flight, sum(l.succeeded)::int AS succeeded,
       sum(l.failed)::int AS failed, sum(l.skipped)::int AS skipped,
       COALESCE(sum(l.waiting + l.in_flight) FILTER (WHERE s.quarantined_at IS NOT NULL), 0)::int AS quarantined,
       COALESCE(sum(l.waiting) FILTER (WHERE l.wave <= $3), 0)::int AS waiting_now,
       COALESCE(sum(l.waiting) FILTER (WHERE l.wave > $3), 0)::int AS waiting_later,
       COALESCE(sum(l.held) FILTER (WHERE l.wave <= $3), 0)::int AS held_now,
       min(l.segment) FILTER (WHERE l.wave <= $3 AND l.waiting > l.held) AS first_open,
       max(l.segment) FILTER (WHERE l.wave <= $3 AND l.waiting > l.held) AS last_open
FROM ota_campaign_cells l
CROSS JOIN LATERAL (
    SELECT time_zone, quarantined_at FROM ota_campaign_segments
    WHERE tenant_id = $1 AND campaign_id = $2 AND number BETWEEN l.segment AND l.segment
    ORDER BY number LIMIT 1
) AS s
WHERE l.tenant_id = $1 AND l.campaign_id = $2
GROUP BY GROUPING SETS ((l.wave), (s.time_zone, s.quarantined_at IS NOT NULL))
ORDER BY 1, 2 NULLS FIRST, 3;

-- name: next_rooms
-- Cells of waves up to $3 with devices in the queue (budgets hold none of them), as many as $7 devices need: the lowest wave first, so
-- that what it left over goes before the next one; of each wave the segments after $4, then from the first. Of the time zones $5
-- (NULL: every one) and, if $6, of none. At most $7 cells are read: each has a device.
SELECT wave, segment, waiting
FROM (SELECT wave, segment, waiting, sum(waiting) OVER (ORDER BY wave, segment <= $4, segment) - waiting AS before
      FROM (SELECT of.wave, l.segment, l.waiting
            FROM generate_series(0, $3) AS of (wave)
            CROSS JOIN LATERAL (
                (SELECT l.segment, l.waiting - l.held AS waiting
                 FROM ota_campaign_cells l
                 WHERE l.tenant_id = $1 AND l.campaign_id = $2 AND l.wave = of.wave AND l.segment > $4 AND l.waiting > l.held
                   AND EXISTS (SELECT FROM (SELECT quarantined_at, time_zone FROM ota_campaign_segments
                                            WHERE tenant_id = $1 AND campaign_id = $2 AND number BETWEEN l.segment AND l.segment
                                            ORDER BY number LIMIT 1) AS s
                               WHERE s.quarantined_at IS NULL
                                 AND ($5::text[] IS NULL OR s.time_zone = ANY ($5) OR $6 AND s.time_zone IS NULL))
                 ORDER BY l.segment LIMIT $7)
                UNION ALL
                (SELECT l.segment, l.waiting - l.held
                 FROM ota_campaign_cells l
                 WHERE l.tenant_id = $1 AND l.campaign_id = $2 AND l.wave = of.wave AND l.segment <= $4 AND l.waiting > l.held
                   AND EXISTS (SELECT FROM (SELECT quarantined_at, time_zone FROM ota_campaign_segments
                                            WHERE tenant_id = $1 AND campaign_id = $2 AND number BETWEEN l.segment AND l.segment
                                            ORDER BY number LIMIT 1) AS s
                               WHERE s.quarantined_at IS NULL
                                 AND ($5::text[] IS NULL OR s.time_zone = ANY ($5) OR $6 AND s.time_zone IS NULL))
                 ORDER BY l.segment LIMIT $7)
                LIMIT $7
            ) AS l
            LIMIT $7) AS open) AS in_turn
WHERE before < $7
ORDER BY wave, segment <= $4, segment;

-- name: counts
-- Devices by wave; those of quarantined segments that are not terminal apart.
SELECT l.wave,
       sum(l.waiting)::int AS waiting, sum(l.in_flight)::int AS in_flight, sum(l.succeeded)::int AS succeeded,
       sum(l.failed)::int AS failed, sum(l.skipped)::int AS skipped,
       COALESCE(sum(l.waiting + l.in_flight) FILTER (WHERE s.quarantined_at IS NOT NULL), 0)::int AS quarantined
FROM ota_campaign_cells l
CROSS JOIN LATERAL (
    SELECT time_zone, quarantined_at FROM ota_campaign_segments
    WHERE tenant_id = $1 AND campaign_id = $2 AND number BETWEEN l.segment AND l.segment
    ORDER BY number LIMIT 1
) AS s
WHERE l.tenant_id = $1 AND l.campaign_id = $2
GROUP BY l.wave
ORDER BY l.wave;

-- name: segments
-- All segments, also those of which the cells say that no device is in flight: other SQL may have changed a device.
SELECT number, time_zone, quarantined_at IS NOT NULL AS quarantined
FROM ota_campaign_segments
WHERE tenant_id = $1 AND campaign_id = $2
ORDER BY number;
