-- The braces stand for parts that depend on the policy document (store/placing_statements.py):
--   {source}: the devices to place.
--   {labels}: the labels of all devices of the tenant; {labels_of_batch}: those of a batch. {host_labels}: reads them from a host's
--   view, once; {checked}: a device that the view has twice, and the time zones that it has.
--   {key}: the place of a device in the queue of its wave and segment.
--   {fits}: whether a device fits any wave; {counts}: how many devices each wave's selector fits; {sums}: the sums of these.
--   {segment}: the labels that make its segment; {time_zone}: its zone, if that makes one too.
--   {budget_values}: the values of the budgets' labels; {held_for}: the budget that holds the device until its turn comes.
--   {wave}: the first wave that it fits; {rest}: the last wave, if the device fits it; {last_wave}: the last wave.
-- Selectors have parameters after the listed ones.

-- name: members
SELECT device_id, row_number() OVER (ORDER BY device_id) AS ordinal, false AS sent, false AS done
FROM device_group_members WHERE tenant_id = $1 AND group_id = $3

-- name: unsent
SELECT device_id, id AS ordinal, false AS sent, false AS done
FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0 AND $3::text IS NULL

-- name: sent_and_unsent
SELECT device_id, id AS ordinal, status <> 'PENDING' OR attempt > 0 AS sent, status = 'SUCCESS' AS done
FROM ota_device_status WHERE tenant_id = $1 AND campaign_id = $2 AND status <> 'SKIPPED' AND $3::text IS NULL

-- name: targets
SELECT t.device_id, {key} AS key, t.sent, t.done, l.device_type, l.version, l.version_key, l.time_zone, l.last_seen, l.labels
FROM ({source}) AS t
LEFT JOIN {labels} AS l ON l.device_id = t.device_id
WHERE (l.device_type <> $4) IS NOT TRUE AND $2::bigint IS NOT NULL

-- name: survey
-- The devices to place that fit a wave, and how many devices the selector of each wave fits, with those that were sent to. segments:
-- the number that these devices make, without those that have succeeded and keep theirs.
SELECT COALESCE(sum(devices), 0)::int AS targets, count(*) FILTER (WHERE placed > 0)::int AS segments, ARRAY[{sums}]::int[] AS matched
FROM (SELECT {segment} AS labels, count(*) FILTER (WHERE NOT sent) AS devices, count(*) FILTER (WHERE NOT done) AS placed, {counts}
      FROM ({targets}) AS l
      WHERE sent OR {fits}
      GROUP BY 1) AS of_segment;

-- name: check
-- What a host's view has of the devices to place: one that it has twice, and the time zones.
WITH found AS MATERIALIZED (
    SELECT l.device_id, l.time_zone
    FROM ({source}) AS t
    JOIN {labels} AS l ON l.device_id = t.device_id
    WHERE $2::bigint IS NOT NULL AND $4::text IS NOT DISTINCT FROM $4::text
)
SELECT (SELECT device_id FROM found GROUP BY device_id HAVING count(*) > 1 LIMIT 1) AS twice,
       ARRAY(SELECT DISTINCT time_zone FROM found WHERE time_zone IS NOT NULL) AS zones;

-- name: number
-- The number of devices to place, of any type.
SELECT count(*)::int FROM ({source}) AS t WHERE $2::bigint IS NOT NULL AND $4::text IS NOT DISTINCT FROM $4::text;

-- name: matches
-- How many devices the selector of each wave fits, by themselves: the least that the selectors take.
SELECT {counts}
FROM ({source}) AS t
LEFT JOIN {labels} AS l ON l.device_id = t.device_id
WHERE (l.device_type <> $4) IS NOT TRUE AND $2::bigint IS NOT NULL;

-- name: bound
-- The key of the $5th device that fits. No row: there are fewer.
SELECT key FROM ({targets}) AS l WHERE {eligible} ORDER BY key, device_id OFFSET $5 - 1 LIMIT 1;

-- name: bounds
-- The keys of the devices with these numbers ($5) in the order of the queue.
SELECT number, key
FROM (SELECT key, row_number() OVER (ORDER BY key, device_id) AS number FROM ({targets}) AS l) AS numbered
WHERE number = ANY ($5::bigint[])
ORDER BY number;

-- name: count_waves
-- The number of devices of each wave. $5: the key of the last device of each.
SELECT wave, count(*)::int AS devices
FROM (SELECT {wave} AS wave FROM ({targets}) AS l WHERE {fits}) AS placed
WHERE wave IS NOT NULL
GROUP BY wave;

-- name: insert
-- Insert an execution for each of the next $6 members of the group $3, after the device $5 (empty: from the first), and place it.
-- $7: members before. $8: the key of the last device of each wave, $9: the size of each wave (NULL: all that match). A device of
-- another type than the firmware's ($4), or that fits no wave, is SKIPPED.
WITH batch AS (
    SELECT device_id, $7::bigint + row_number() OVER (ORDER BY device_id) AS ordinal, false AS sent
    FROM (SELECT device_id
          FROM device_group_members
          WHERE tenant_id = $1 AND group_id = $3 AND device_id >= $5 AND (device_id > $5 OR $5 = '')
          ORDER BY device_id
          LIMIT $6) AS next
), {placed}, targeted AS (
    INSERT INTO ota_device_status
        (tenant_id, campaign_id, device_id, status, error_message, completed_at, segment, position, budget_values)
    SELECT $1, $2, p.device_id,
           CASE WHEN p.wave IS NULL THEN 'SKIPPED' ELSE 'PENDING' END,
           CASE WHEN p.mismatch THEN ota_fitting('device type ' || p.device_type || ' does not match the firmware''s, ' || $4::text)
                WHEN p.wave IS NULL THEN ota_fitting('the device fits no wave of the policy') END,
           CASE WHEN p.wave IS NULL THEN statement_timestamp() END,
           CASE WHEN p.wave IS NULL THEN 0 WHEN p.held_for IS NULL THEN n.number ELSE -n.number END,
           CASE WHEN p.wave IS NULL THEN 0 ELSE ((p.wave + 1)::bigint << 44) + p.key END,
           CASE WHEN p.wave IS NOT NULL THEN p.budget_values END
    FROM placed p
    LEFT JOIN numbered n ON n.labels = p.segment
    ORDER BY n.number, p.wave, p.key, p.device_id -- a claim then finds the devices of a batch side by side
    ON CONFLICT DO NOTHING
    RETURNING status, attempt, segment, position, device_id, budget_values
), {cells}
SELECT (SELECT count(*) FROM batch)::int AS devices,
       (SELECT max(device_id) FROM batch) AS up_to,
       (count(*) FILTER (WHERE status = 'PENDING'))::int AS pending,
       (count(*) FILTER (WHERE status = 'SKIPPED'))::int AS skipped,
       (SELECT count(*) FROM numbered)::int AS segments,
       ARRAY(SELECT number FROM new_segments) AS new_segments, NULL::text AS from_quarantine, {checked}
FROM targeted;

-- name: move
-- Place those of the next $6 devices of the campaign, after the device $5, that were never sent to, and those in flight that have no
-- place yet. The other parameters are as in insert; $3 and $7 are not used. Not applied: a host's SQL has changed the row since, or
-- a report has locked it (place_inserted then places the device).
WITH scanned AS (
    SELECT ctid AS place, device_id, id, status, attempt, segment
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND device_id > $5 AND $3::text IS NULL AND $7::bigint IS NOT NULL
    ORDER BY device_id
    LIMIT $6
), in_flight AS MATERIALIZED (
    SELECT d.*
    FROM (SELECT device_id FROM scanned
          WHERE segment = 0 AND (status IN ('DOWNLOADING', 'INSTALLING') OR status = 'PENDING' AND attempt > 0)) AS s
    CROSS JOIN LATERAL (
        SELECT ctid AS place, device_id, id
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id AND segment = 0
          AND (status IN ('DOWNLOADING', 'INSTALLING') OR status = 'PENDING' AND attempt > 0)
        FOR UPDATE SKIP LOCKED
    ) AS d
), batch AS (
    SELECT place, device_id, id AS ordinal, abs(segment) AS was, false AS sent FROM scanned WHERE status = 'PENDING' AND attempt = 0
    UNION ALL
    SELECT place, device_id, id, 0, true FROM in_flight
), {placed}, {places}, {cells}
SELECT (SELECT count(*) FROM scanned)::int AS devices,
       (SELECT max(device_id) FROM scanned) AS up_to,
       (count(*) FILTER (WHERE status = 'PENDING'))::int AS pending,
       (count(*) FILTER (WHERE status = 'SKIPPED'))::int AS skipped,
       (SELECT count(*) FROM numbered)::int AS segments,
       ARRAY(SELECT number FROM new_segments) AS new_segments, {from_quarantine}, {checked}
FROM targeted;

-- name: place_inserted
-- Place up to $6 devices that have had no place since all were placed. The other parameters are as in insert; $3, $5 and $7
-- are not used. Not applied: another transaction has locked the row, or has changed it since.
WITH batch AS (
    {unplaced}
), {placed}, {places}, {cells}, in_budgets AS (
    INSERT INTO ota_campaign_budget_values AS v (tenant_id, campaign_id, budget, value, in_flight)
    SELECT $1, $2, i.budget, i.value, count(*)::int
    FROM targeted t
    CROSS JOIN LATERAL unnest(t.budget_values) WITH ORDINALITY AS i (value, budget)
    WHERE i.value IS NOT NULL AND (t.status IN ('DOWNLOADING', 'INSTALLING') OR t.status = 'PENDING' AND t.attempt > 0)
    GROUP BY i.budget, i.value
    ON CONFLICT (tenant_id, campaign_id, budget, value) DO UPDATE SET in_flight = v.in_flight + EXCLUDED.in_flight
)
SELECT (SELECT count(*) FROM batch)::int AS devices,
       (SELECT max(device_id) FROM batch) AS up_to,
       (count(*) FILTER (WHERE status = 'PENDING'))::int AS pending,
       (count(*) FILTER (WHERE status = 'SKIPPED'))::int AS skipped,
       (SELECT count(*) FROM numbered)::int AS segments,
       ARRAY(SELECT number FROM new_segments) AS new_segments, NULL::text AS from_quarantine, {checked}
FROM targeted;

-- name: unplaced_waiting
-- Devices that other SQL has inserted, and that wait for their first command.
SELECT ctid AS place, device_id, id AS ordinal, 0 AS was, false AS sent
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0 AND segment = 0
      AND $3::text IS NULL AND $5::text IS NOT NULL AND $7::bigint IS NOT NULL
    ORDER BY segment, position, id
    LIMIT $6
    FOR UPDATE SKIP LOCKED

-- name: unplaced_in_flight
-- Devices in flight that a host has sent to, or that failed without a place and are retried. Reads all that are in flight.
SELECT ctid AS place, device_id, id AS ordinal, 0 AS was, true AS sent
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND segment = 0
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND $3::text IS NULL AND $5::text IS NOT NULL AND $7::bigint IS NOT NULL
    ORDER BY due_at NULLS FIRST
    LIMIT $6
    FOR UPDATE SKIP LOCKED

-- name: lock_sent
-- Lock those of the campaign's next $4 devices after $3 that are in flight or failed, in the order in which reports lock them.
WITH scanned AS (
    SELECT device_id, status, attempt
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND device_id > $3
    ORDER BY device_id
    LIMIT $4
), locked AS MATERIALIZED (
    SELECT d.device_id
    FROM (SELECT device_id FROM scanned
          WHERE status IN ('DOWNLOADING', 'INSTALLING', 'FAILED') OR status = 'PENDING' AND attempt > 0
          ORDER BY device_id COLLATE "C") AS s
    CROSS JOIN LATERAL (
        SELECT device_id FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id
        FOR UPDATE
    ) AS d
)
SELECT (SELECT count(*) FROM scanned)::int AS devices, (SELECT max(device_id) FROM scanned) AS up_to,
       ARRAY(SELECT device_id::text FROM locked) AS locked;

-- name: move_sent
-- Give those of the devices $3 that are in flight or failed the segments of their labels and the values of the budgets' labels: an
-- edit may have changed these, and the devices may be sent to again. They keep their waves. Their rows and the campaign are locked.
WITH batch AS MATERIALIZED (
    SELECT d.*
    FROM unnest($3::text[]) AS s (device_id)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, device_id, segment AS was, started_at, GREATEST(stood_until, started_at) AS stood_from
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id
          AND (status IN ('DOWNLOADING', 'INSTALLING', 'FAILED') OR status = 'PENDING' AND attempt > 0)
    ) AS d
), {host_labels}known AS MATERIALIZED (
    SELECT l.device_id, l.place, l.was, {segment} AS labels, {time_zone} AS time_zone, {budget_values} AS budget_values
    FROM (SELECT b.device_id, b.place, b.was, l.device_type, l.version, l.version_key, l.time_zone, l.last_seen, l.labels
          FROM batch AS b
          LEFT JOIN {labels_of_batch} AS l ON l.device_id = b.device_id) AS l
), stood AS MATERIALIZED (
    -- The clock of a device stood while its former segment was closed (standing.sql). One that this held is due now.
    SELECT b.device_id, CASE WHEN started_at IS NULL THEN 0 ELSE COALESCE((
               SELECT sum(EXTRACT(epoch FROM upper(u.r) - lower(u.r)))
               FROM unnest(s.closed * tstzmultirange(tstzrange(LEAST(stood_from, statement_timestamp()), statement_timestamp())))
                   AS u (r)), 0) END::float8 AS seconds
    FROM batch b
    CROSS JOIN LATERAL (
        SELECT closed FROM ota_campaign_segments
        WHERE tenant_id = $1 AND campaign_id = $2 AND number = b.was AND closed <> '{}' LIMIT 1
    ) AS s
), wanted AS (
    SELECT DISTINCT labels, time_zone FROM known WHERE was > 0 -- the others have no place yet (move)
), {segments}, moved AS (
    UPDATE ota_device_status d
    SET segment = CASE WHEN k.was > 0 THEN n.number ELSE d.segment END, budget_values = k.budget_values,
        suspended_before = d.suspended_before - CASE WHEN n.number <> k.was THEN COALESCE(stood.seconds, 0) ELSE 0 END,
        stood_until = CASE WHEN n.number <> k.was THEN statement_timestamp() ELSE d.stood_until END,
        due_at = CASE WHEN n.number <> k.was AND d.due_at = d.held_due_at AND d.due_at > statement_timestamp()
                           AND (d.status = 'PENDING' OR d.attempt > d.sent_attempt OR d.failed_attempt = d.attempt)
                      THEN statement_timestamp() ELSE d.due_at END
    FROM known k
    LEFT JOIN numbered n ON n.labels = k.labels
    LEFT JOIN stood ON stood.device_id = k.device_id
    WHERE d.tenant_id = $1 AND d.ctid = k.place AND d.campaign_id = $2 AND d.device_id = k.device_id
    RETURNING d.status = 'FAILED' AS failed, d.segment, d.position, k.was
), targeted AS (
    SELECT * FROM moved WHERE segment <> was
), in_cells AS (
    INSERT INTO ota_campaign_cells AS l (tenant_id, campaign_id, wave, segment, in_flight, failed)
    SELECT $1, $2, (position >> 44)::int - 1, segment, sum(CASE WHEN failed THEN 0 ELSE devices END)::int,
           sum(CASE WHEN failed THEN devices ELSE 0 END)::int
    FROM (SELECT position, segment, failed, 1 AS devices FROM targeted
          UNION ALL
          SELECT position, was, failed, -1 FROM targeted) AS both_sides
    GROUP BY 3, 4
    ON CONFLICT (tenant_id, campaign_id, wave, segment)
    DO UPDATE SET in_flight = l.in_flight + EXCLUDED.in_flight, failed = l.failed + EXCLUDED.failed
)
SELECT (SELECT count(*) FROM numbered)::int AS segments, ARRAY(SELECT number FROM new_segments) AS new_segments, {from_quarantine},
       {checked};

-- name: host_labels
host_labels AS MATERIALIZED (
    SELECT * FROM rollwave_host_labels_of($1::text, (SELECT array_agg(device_id) FROM batch)::text[])
)

-- name: checked
(SELECT device_id FROM host_labels GROUP BY device_id HAVING count(*) > 1 LIMIT 1) AS twice,
       ARRAY(SELECT DISTINCT time_zone FROM host_labels WHERE time_zone IS NOT NULL) AS zones

-- name: from_quarantine
-- The segments under quarantine that devices have left, and those that they have entered.
(SELECT jsonb_agg(DISTINCT jsonb_build_array(t.was, abs(t.segment)))
 FROM targeted t
 JOIN ota_campaign_segments s ON s.tenant_id = $1 AND s.campaign_id = $2 AND s.number = t.was AND s.quarantined_at IS NOT NULL
 WHERE t.segment <> 0 AND abs(t.segment) <> t.was)::text AS from_quarantine

-- name: placed
-- The devices of a batch with their waves and segments. A wave takes no more devices than its size, whatever its bound. A device in
-- flight that fits no wave is in the last one: it is not skipped, and no budget holds it.
known AS MATERIALIZED (
    SELECT l.device_id, l.sent, l.key, l.device_type, COALESCE(l.device_type <> $4, false) AS mismatch,
           {segment} AS segment, {time_zone} AS time_zone, {wave} AS wave, {rest} AS rest, {budget_values} AS budget_values
    FROM (SELECT t.device_id, t.sent, {key} AS key, l.device_type, l.version, l.version_key, l.time_zone, l.last_seen, l.labels
          FROM batch AS t
          LEFT JOIN {labels_of_batch} AS l ON l.device_id = t.device_id) AS l
), taken AS (
    SELECT wave, sum(waiting + in_flight + succeeded + failed + skipped) AS devices
    FROM ota_campaign_cells WHERE tenant_id = $1 AND campaign_id = $2
    GROUP BY wave
), placed AS MATERIALIZED (
    SELECT k.device_id, k.key, k.device_type, k.mismatch, k.segment, k.time_zone, k.budget_values,
           COALESCE(CASE WHEN k.mismatch THEN NULL
                         WHEN row_number() OVER (PARTITION BY k.mismatch, k.wave ORDER BY k.key, k.device_id)
                              > ($9::int[])[k.wave + 1] - COALESCE(t.devices, 0) THEN k.rest
                         ELSE k.wave END,
                    CASE WHEN k.sent THEN {last_wave} END) AS wave,
           CASE WHEN NOT k.sent THEN {held_for} END AS held_for
    FROM known k
    LEFT JOIN taken t ON t.wave = k.wave
), wanted AS (
    SELECT DISTINCT segment AS labels, time_zone FROM placed WHERE wave IS NOT NULL
), {segments}

-- name: segments
-- The numbers of segments by their labels, with those that are made for the labels wanted.
new_segments AS (
    INSERT INTO ota_campaign_segments (tenant_id, campaign_id, number, labels, time_zone)
    SELECT $1, $2,
           (SELECT COALESCE(max(number), 0) FROM ota_campaign_segments WHERE tenant_id = $1 AND campaign_id = $2)
           + row_number() OVER (ORDER BY labels), labels, time_zone
    FROM wanted
    WHERE NOT EXISTS (SELECT FROM ota_campaign_segments s
                      WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.labels = wanted.labels)
    RETURNING number, labels
), zoned AS (
    -- An edit may have made zones of labels that were only labels before, or the reverse.
    UPDATE ota_campaign_segments s SET time_zone = wanted.time_zone
    FROM wanted
    WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.labels = wanted.labels
      AND s.time_zone IS DISTINCT FROM wanted.time_zone
), numbered AS MATERIALIZED (
    SELECT number, labels FROM new_segments
    UNION ALL
    SELECT number, labels FROM ota_campaign_segments WHERE tenant_id = $1 AND campaign_id = $2
)

-- name: places
targeted AS (
    UPDATE ota_device_status d
    SET status = CASE WHEN p.wave IS NULL THEN 'SKIPPED' ELSE d.status END,
        error_message = CASE WHEN p.wave IS NULL THEN ota_fitting('the device fits no wave of the policy') ELSE d.error_message END,
        completed_at = CASE WHEN p.wave IS NULL THEN statement_timestamp() ELSE d.completed_at END,
        segment = CASE WHEN p.wave IS NULL THEN 0 WHEN p.held_for IS NULL THEN n.number ELSE -n.number END,
        position = CASE WHEN p.wave IS NULL THEN 0 ELSE ((p.wave + 1)::bigint << 44) + p.key END,
        budget_values = p.budget_values,
        stood_until = CASE WHEN b.sent THEN statement_timestamp() ELSE d.stood_until END -- as in move_sent
    FROM batch b
    JOIN placed p ON p.device_id = b.device_id
    LEFT JOIN numbered n ON n.labels = p.segment
    WHERE d.tenant_id = $1 AND d.ctid = b.place AND d.campaign_id = $2 AND d.device_id = p.device_id
      AND (b.sent OR d.status = 'PENDING' AND d.attempt = 0)
    RETURNING d.status, d.attempt, d.segment, d.position, d.device_id, d.budget_values, b.was
)

-- name: cells
in_cells AS (
    INSERT INTO ota_campaign_cells AS l (tenant_id, campaign_id, wave, segment, waiting, held, in_flight)
    SELECT $1, $2, (position >> 44)::int - 1, abs(segment), (count(*) FILTER (WHERE status = 'PENDING' AND attempt = 0))::int,
           (count(*) FILTER (WHERE segment < 0))::int, (count(*) FILTER (WHERE status <> 'PENDING' OR attempt > 0))::int
    FROM targeted WHERE status <> 'SKIPPED'
    GROUP BY 3, 4
    ON CONFLICT (tenant_id, campaign_id, wave, segment)
    DO UPDATE SET waiting = l.waiting + EXCLUDED.waiting, held = l.held + EXCLUDED.held, in_flight = l.in_flight + EXCLUDED.in_flight
), held AS ( -- the first devices of each value return to the queue when all are placed (budgets.next_held)
    SELECT held_for AS budget, budget_values[held_for] AS value, -segment AS segment, position, device_id
    FROM (SELECT *, {held_for} AS held_for FROM targeted WHERE segment < 0) AS t
), in_held AS (
    INSERT INTO ota_campaign_budget_held (tenant_id, campaign_id, budget, value, segment, position, device_id)
    SELECT $1, $2, * FROM held
    ON CONFLICT DO NOTHING -- a host's SQL has inserted the execution anew
), of_values AS (
    INSERT INTO ota_campaign_budget_values AS v (tenant_id, campaign_id, budget, value, held_segments)
    SELECT $1, $2, budget, value, array_agg(DISTINCT segment) FROM held GROUP BY budget, value
    ON CONFLICT (tenant_id, campaign_id, budget, value) DO UPDATE
    SET held_segments = ARRAY(SELECT DISTINCT unnest(v.held_segments || EXCLUDED.held_segments) ORDER BY 1)
    WHERE NOT v.held_segments @> EXCLUDED.held_segments
)

-- name: rank
-- Number the values of a label in their order, for the order of a queue.
INSERT INTO ota_campaign_ranks (tenant_id, campaign_id, value, rank)
SELECT $1, $2, value, row_number() OVER (ORDER BY {order_of_value})
FROM (SELECT DISTINCT ON (value) l.*
      FROM (SELECT {value} AS value, l.* FROM ({source}) AS t JOIN {labels} AS l ON l.device_id = t.device_id) AS l
      WHERE value IS NOT NULL
      ORDER BY value) AS l
ON CONFLICT DO NOTHING;

-- name: rank_of
LEAST(COALESCE((SELECT r.rank FROM ota_campaign_ranks r
                WHERE r.tenant_id = $1 AND r.campaign_id = $2 AND r.value = {value}), {last_rank}), {last_rank})

-- name: forget_ranks
DELETE FROM ota_campaign_ranks WHERE tenant_id = $1 AND campaign_id = $2;
