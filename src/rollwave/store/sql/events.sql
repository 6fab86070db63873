-- name: append
-- Locks the campaigns' rows before the events get their ids; events.py says why.
WITH locked AS MATERIALIZED (
    SELECT id FROM ota_campaigns
    WHERE tenant_id = $1 AND id = ANY ($2::bigint[])
    ORDER BY id
    FOR NO KEY UPDATE
)
INSERT INTO ota_campaign_history (tenant_id, campaign_id, device_id, event, actor, detail)
SELECT $1::text, e.campaign_id, e.device_id, e.event, e.actor, e.detail
FROM ROWS FROM (unnest($2::bigint[], $3::text[], $4::text[], $5::text[]), jsonb_array_elements($6::text::jsonb))
    WITH ORDINALITY AS e (campaign_id, device_id, event, actor, detail, number)
JOIN locked ON locked.id = e.campaign_id
ORDER BY e.number;

-- name: end_of_page
-- The last event of the page that begins after event $2.
SELECT max(id) FROM (
    SELECT id FROM ota_campaign_history WHERE tenant_id = $1 AND id > $2 ORDER BY id LIMIT $3
) AS page;

-- name: writers
-- Transactions in progress that have written events or are about to. Each holds this lock from before it draws an id until
-- after its rows are visible.
SELECT virtualtransaction
FROM pg_locks
WHERE locktype = 'relation' AND mode = 'RowExclusiveLock' AND granted
  AND relation = 'ota_campaign_history'::regclass
  AND database = (SELECT oid FROM pg_database WHERE datname = current_database());

-- name: page
-- If a host's pool had a codec for jsonb, an earlier version stored the detail as a JSON string that contains the object.
SELECT id, EXTRACT(epoch FROM at)::float8 AS at, campaign_id, device_id, event, actor,
       CASE jsonb_typeof(detail) WHEN 'string' THEN detail #>> '{}' ELSE detail::text END AS detail
FROM ota_campaign_history
WHERE tenant_id = $1 AND id > $2 AND id <= $3
ORDER BY id
LIMIT $4;

-- name: position
SELECT last_event FROM rollwave_event_consumers WHERE tenant_id = $1 AND consumer = $2;

-- name: advance
-- Not applied: the consumer is already further.
INSERT INTO rollwave_event_consumers (tenant_id, consumer, last_event) VALUES ($1, $2, $3)
ON CONFLICT (tenant_id, consumer) DO UPDATE SET last_event = EXCLUDED.last_event, moved_at = statement_timestamp()
WHERE rollwave_event_consumers.last_event < EXCLUDED.last_event;
