-- Budgets of a policy document (ADR 41). Every statement needs the campaign's lock, except compare. Executions are never waited for
-- here: a stop locks executions first and the campaign last. Values are looked up one by one (OFFSET 0), and rows are updated by
-- their place, as in executions.sql: otherwise PostgreSQL may read all values, or the whole queue, for each device.

-- name: candidates
-- The devices at the head of the queue, not locked: of each segment of $3 and wave of $5 in turn as many as $4 says, at most $6,
-- without those of $7. Ids that match $8 cannot be addressed. With each: its budgets, their values, and the devices in flight.
SELECT e.device_id, e.wave, e.segment, e.place::text AS place, e.addressable, b.budgets, b.values, b.in_flight
FROM (
    SELECT open.wave, e.*
    FROM unnest($3::int[], $4::int[], $5::int[]) AS open (segment, room, wave)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, device_id, segment, budget_values,
               device_id COLLATE "C" !~ $8 AND length(device_id) <= 128 AS addressable
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
          AND segment = open.segment AND position >= (open.wave + 1)::bigint << 44 AND position < (open.wave + 2)::bigint << 44
          AND device_id NOT IN (SELECT unnest($7::text[]))
        ORDER BY segment, position, id
        LIMIT open.room
    ) AS e
    LIMIT $6
) AS e
CROSS JOIN LATERAL (
    SELECT COALESCE(array_agg(i.budget::int ORDER BY i.budget), '{}') AS budgets,
           COALESCE(array_agg(i.value ORDER BY i.budget), '{}') AS values,
           COALESCE(array_agg(COALESCE(v.in_flight, 0) ORDER BY i.budget), '{}') AS in_flight
    FROM unnest(e.budget_values) WITH ORDINALITY AS i (value, budget)
    LEFT JOIN LATERAL (
        SELECT in_flight FROM ota_campaign_budget_values
        WHERE tenant_id = $1 AND campaign_id = $2 AND budget = i.budget AND value = i.value
        LIMIT 1 -- a plan of the time when the table was empty would read all values for each device
    ) AS v ON true
    WHERE i.value IS NOT NULL
) AS b;

-- name: hold
-- Hold the devices ($6) at these places ($3) for values ($5) of budgets ($4): they leave the queue. Not applied: another
-- transaction has locked or changed the row; then the next claim looks at it again. Returns their number.
WITH blocked AS (
    SELECT $2::bigint AS campaign_id, *
    FROM unnest($3::text[]::tid[], $4::int[], $5::text[], $6::text[]) AS b (place, budget, value, device_id)
), locked AS MATERIALIZED (
    SELECT b.*
    FROM blocked b
    CROSS JOIN LATERAL (
        SELECT FROM ota_device_status
        WHERE ctid = b.place AND tenant_id = $1 AND campaign_id = b.campaign_id AND device_id = b.device_id
          AND status || '' = 'PENDING' AND attempt + 0 = 0 -- written so that the index of the queue is not used
        FOR UPDATE SKIP LOCKED
    ) AS d
), leaving AS (
    UPDATE ota_device_status d SET segment = -d.segment
    FROM locked b
    WHERE d.tenant_id = $1 AND d.ctid = b.place AND d.campaign_id = b.campaign_id AND d.device_id = b.device_id
    RETURNING b.budget, b.value, -d.segment AS segment, d.position, d.device_id
), held AS (
    INSERT INTO ota_campaign_budget_held (tenant_id, campaign_id, budget, value, segment, position, device_id)
    SELECT $1, $2, budget, value, segment, position, device_id FROM leaving
    ON CONFLICT DO NOTHING -- a host has set the device back that was held before
), of_values AS (
    INSERT INTO ota_campaign_budget_values AS v (tenant_id, campaign_id, budget, value, held_segments)
    SELECT $1, $2, budget, value, array_agg(DISTINCT segment) FROM leaving GROUP BY budget, value
    ON CONFLICT (tenant_id, campaign_id, budget, value) DO UPDATE
    SET held_segments = ARRAY(SELECT DISTINCT unnest(v.held_segments || EXCLUDED.held_segments) ORDER BY 1)
    WHERE NOT v.held_segments @> EXCLUDED.held_segments
), cells AS (
    UPDATE ota_campaign_cells l SET held = l.held + moved.devices
    FROM (SELECT segment, (position >> 44)::int - 1 AS wave, count(*)::int AS devices FROM leaving GROUP BY 1, 2) AS moved
    WHERE l.tenant_id = $1 AND l.campaign_id = $2 AND l.wave = moved.wave AND l.segment = moved.segment
)
SELECT count(*)::int FROM leaving;

-- name: return_to_queue
-- Return the first $6 devices that values ($4) of budgets ($3) hold to the queue: of the segment $5, or (NULL) so many of each
-- segment. A device that another transaction has locked stays, and is owed: the next claim returns one (take_owed). One that a
-- host has changed is no longer held, and is owed too, so that the one behind it returns. Returns the number of devices.
WITH wanted AS (
    SELECT $2::bigint AS campaign_id, w.budget, w.value, s.segment, w.devices, v.place AS of_value
    FROM unnest($3::int[], $4::text[], $5::int[], $6::int[]) AS w (budget, value, segment, devices)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, held_segments FROM ota_campaign_budget_values
        WHERE tenant_id = $1 AND campaign_id = $2 AND budget = w.budget AND value = w.value
        OFFSET 0
    ) AS v
    CROSS JOIN LATERAL unnest(v.held_segments) AS s (segment)
    WHERE w.segment IS NULL OR w.segment = s.segment
), next AS MATERIALIZED (
    SELECT w.*, h.place AS held_place, h.device_id, d.place, COALESCE(d.waits, false) AS waits,
           h.place IS NOT NULL AND d.place IS NULL AND EXISTS (SELECT FROM ota_device_status
                                       WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = h.device_id) AS locked
    FROM wanted w
    LEFT JOIN LATERAL (
        SELECT ctid AS place, device_id FROM ota_campaign_budget_held
        WHERE tenant_id = $1 AND campaign_id = $2 AND budget = w.budget AND value = w.value AND segment = w.segment
        ORDER BY budget, value, segment, position, device_id
        LIMIT w.devices
    ) AS h ON true
    LEFT JOIN LATERAL (
        SELECT ctid AS place, status = 'PENDING' AND attempt = 0 AND segment = -w.segment AS waits
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = h.device_id
        FOR UPDATE SKIP LOCKED
    ) AS d ON true
), returned AS (
    UPDATE ota_device_status d SET segment = n.segment
    FROM next n
    WHERE n.waits AND d.tenant_id = $1 AND d.ctid = n.place AND d.campaign_id = n.campaign_id AND d.device_id = n.device_id
    RETURNING n.segment, d.position
), forgotten AS (
    DELETE FROM ota_campaign_budget_held h
    USING next n
    WHERE NOT n.locked AND h.tenant_id = $1 AND h.ctid = n.held_place AND h.campaign_id = n.campaign_id
      AND h.device_id = n.device_id
), of_values AS (
    UPDATE ota_campaign_budget_values v
    SET owed = v.owed + p.owed, held_segments = ARRAY(SELECT s FROM unnest(v.held_segments) AS s WHERE s <> ALL (p.empty))
    FROM (SELECT campaign_id, of_value, budget, value, sum(owed)::int AS owed,
                 COALESCE(array_agg(segment) FILTER (WHERE empty), '{}') AS empty
          FROM (SELECT campaign_id, of_value, budget, value, segment,
                       count(*) FILTER (WHERE device_id IS NOT NULL AND NOT waits) AS owed,
                       count(device_id) < devices AND NOT bool_or(locked) AS empty
                FROM next
                GROUP BY campaign_id, of_value, budget, value, segment, devices) AS of_segments
          GROUP BY campaign_id, of_value, budget, value) AS p
    WHERE v.tenant_id = $1 AND v.ctid = p.of_value AND v.campaign_id = p.campaign_id AND v.budget = p.budget
      AND v.value = p.value
      AND (p.owed > 0 OR p.empty <> '{}')
), cells AS (
    UPDATE ota_campaign_cells l SET held = l.held - moved.devices
    FROM (SELECT segment, (position >> 44)::int - 1 AS wave, count(*)::int AS devices FROM returned GROUP BY 1, 2) AS moved
    WHERE l.tenant_id = $1 AND l.campaign_id = $2 AND l.wave = moved.wave AND l.segment = moved.segment
)
SELECT count(*)::int FROM returned;

-- name: take_owed
-- The values that owe devices to the queue. They are returned now.
UPDATE ota_campaign_budget_values v SET owed = 0
FROM (SELECT ctid AS place, campaign_id, budget, value, owed FROM ota_campaign_budget_values
      WHERE tenant_id = $1 AND campaign_id = $2 AND owed > 0 LIMIT 1000 FOR UPDATE) AS before
WHERE v.tenant_id = $1 AND v.ctid = before.place AND v.campaign_id = before.campaign_id AND v.budget = before.budget
  AND v.value = before.value
RETURNING v.budget::int AS budget, v.value, before.owed;

-- name: add
-- Another $5 devices are in flight with values ($4) of budgets ($3). The number may be negative: then, other than here, they
-- have ended. Returns the devices in flight, and whether the value holds devices.
INSERT INTO ota_campaign_budget_values AS v (tenant_id, campaign_id, budget, value, in_flight)
SELECT $1, $2, * FROM unnest($3::int[], $4::text[], $5::int[])
ON CONFLICT (tenant_id, campaign_id, budget, value) DO UPDATE SET in_flight = v.in_flight + EXCLUDED.in_flight
RETURNING v.budget::int AS budget, v.value, v.in_flight, v.held_segments <> '{}' AS holds;

-- name: forget_held
-- Devices are about to be placed anew: budgets hold none of them. Forgets at most $3.
DELETE FROM ota_campaign_budget_held
WHERE tenant_id = $1 AND campaign_id = $2 AND ctid = ANY (ARRAY(
    SELECT ctid FROM ota_campaign_budget_held WHERE tenant_id = $1 AND campaign_id = $2 LIMIT $3));

-- name: next_held
-- The next $6 devices that budgets hold, after those of the value $4 of the budget $3 in the segment $5: by value and segment.
SELECT budget::int AS budget, value, segment, count(*)::int AS devices
FROM (SELECT budget, value, segment FROM ota_campaign_budget_held
      WHERE tenant_id = $1 AND campaign_id = $2 AND (budget, value, segment) > ($3::int, $4::text, $5::int)
      ORDER BY tenant_id, campaign_id, budget, value, segment, position, device_id
      LIMIT $6) AS next
GROUP BY 1, 2, 3
ORDER BY 1, 2, 3;

-- name: begin
-- All devices are placed: count those in flight for the budgets of the document.
INSERT INTO ota_campaign_budget_values AS v (tenant_id, campaign_id, budget, value, in_flight)
SELECT $1, $2::bigint, i.budget, i.value, count(*)::int
FROM ota_device_status d
CROSS JOIN LATERAL unnest(d.budget_values) WITH ORDINALITY AS i (value, budget)
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND i.value IS NOT NULL
  AND (d.status IN ('DOWNLOADING', 'INSTALLING') OR (d.status = 'PENDING' AND d.attempt > 0))
GROUP BY i.budget, i.value
ON CONFLICT (tenant_id, campaign_id, budget, value) DO UPDATE SET in_flight = EXCLUDED.in_flight;

-- name: compare
-- What the numbers of devices in flight lack, by the rows in one snapshot. A difference comes from other SQL.
SELECT budget::int AS budget, value, sum(devices)::int AS missed
FROM (SELECT i.budget, i.value COLLATE "C" AS value, count(*) AS devices
      FROM ota_device_status d
      CROSS JOIN LATERAL unnest(d.budget_values) WITH ORDINALITY AS i (value, budget)
      WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND i.value IS NOT NULL
        AND (d.status IN ('DOWNLOADING', 'INSTALLING') OR (d.status = 'PENDING' AND d.attempt > 0))
      GROUP BY 1, 2
      UNION ALL
      SELECT budget, value, -in_flight FROM ota_campaign_budget_values WHERE tenant_id = $1 AND campaign_id = $2) AS both_sides
WHERE EXISTS (SELECT FROM ota_campaign_budget_values WHERE tenant_id = $1 AND campaign_id = $2)
  AND (SELECT targeted_devices IS NULL FROM ota_campaigns WHERE tenant_id = $1 AND id = $2)
GROUP BY budget, value
HAVING sum(devices) <> 0
ORDER BY budget, value;

-- name: return_lost
-- Return devices to the queue that are marked as held, and that no budget holds: other SQL has changed them.
WITH lost AS (
    SELECT ctid AS place, campaign_id, device_id FROM ota_device_status d
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0 AND segment < 0
      AND NOT EXISTS (SELECT FROM unnest(d.budget_values) WITH ORDINALITY AS i (value, budget)
                      JOIN ota_campaign_budget_held h
                        ON h.tenant_id = $1 AND h.campaign_id = $2 AND h.budget = i.budget AND h.value = i.value
                           AND h.segment = -d.segment AND h.position = d.position AND h.device_id = d.device_id)
    FOR UPDATE SKIP LOCKED
), returned AS (
    UPDATE ota_device_status d SET segment = -d.segment
    FROM lost
    WHERE d.tenant_id = $1 AND d.ctid = lost.place AND d.campaign_id = lost.campaign_id AND d.device_id = lost.device_id
    RETURNING d.segment, d.position
)
UPDATE ota_campaign_cells l SET held = l.held - moved.devices
FROM (SELECT segment, (position >> 44)::int - 1 AS wave, count(*)::int AS devices FROM returned GROUP BY 1, 2) AS moved
WHERE l.tenant_id = $1 AND l.campaign_id = $2 AND l.wave = moved.wave AND l.segment = moved.segment;
