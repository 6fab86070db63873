-- name: campaign
-- One campaign with its firmware, waves and breakdown, in one snapshot, so that the counters agree with the breakdown.
SELECT c.id, c.tenant_id, c.name, c.firmware_version_id, c.target_group_id, c.rollout_strategy, c.rollout_rate,
       c.abort_threshold::text::float8 AS abort_threshold, c.abort_min_completed,
       c.canary_percent::float8 AS canary_percent, c.max_in_flight, c.progress_timeout,
       c.answer_timeout, c.device_timeout, c.max_attempts, c.retry_on, c.retry_delay, c.retry_delay_max,
       c.status, c.status_reason, c.total_devices, c.targeted_devices, c.sent, c.succeeded, c.failed, c.wave,
       EXTRACT(epoch FROM c.started_at)::float8 AS started_at, EXTRACT(epoch FROM c.completed_at)::float8 AS completed_at,
       EXTRACT(epoch FROM c.cancelled_at)::float8 AS cancelled_at,
       EXTRACT(epoch FROM c.created_at)::float8 AS created_at, c.created_by, c.policy_revision,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = c.created_by) AS created_by_name,
       f.version AS firmware_version, f.file_url AS firmware_url, f.checksum_sha256 AS firmware_checksum,
       f.device_type AS firmware_device_type,
       -- Otherwise its rows are counted: the campaign is not counted yet, or it has ended, so its counters are no longer compared
       -- with the rows. With more than ten thousand rows this takes too long, and is done only if the counters must be wrong.
       CASE WHEN c.pending + c.downloading + c.installing + c.succeeded + c.failed IS NOT NULL AND c.skipped >= 0
                 AND (c.status IN ('CREATED', 'RUNNING', 'PAUSED')
                      OR c.pending + c.downloading + c.installing = 0
                         AND c.succeeded + c.failed + c.skipped > 10000)
            THEN jsonb_build_object('PENDING', c.pending, 'DOWNLOADING', c.downloading, 'INSTALLING', c.installing,
                                    'SUCCESS', c.succeeded, 'FAILED', c.failed, 'SKIPPED', c.skipped)
            ELSE (SELECT jsonb_object_agg(tally.status, tally.devices)
                  FROM (SELECT d.status, count(*) AS devices
                        FROM ota_device_status d
                        WHERE d.tenant_id = $1 AND d.campaign_id = $2::bigint
                        GROUP BY d.status) AS tally) END::text AS status_breakdown,
       (SELECT jsonb_agg(jsonb_build_object('number', w.number, 'up_to', w.up_to, 'name', w.name, 'size', w.size,
                                            'sent', l.sent, 'succeeded', l.succeeded, 'failed', l.failed, 'state', w.state,
                                            'since', CASE WHEN isfinite(w.since) THEN w.since END,
                                            'opened_at', CASE WHEN isfinite(w.opened_at) THEN w.opened_at END,
                                            'passed_at', CASE WHEN isfinite(w.passed_at) THEN w.passed_at END)
                         ORDER BY w.number)::text
        FROM ota_campaign_waves w
        LEFT JOIN LATERAL (
            SELECT COALESCE(sum(in_flight + succeeded + failed), 0)::int AS sent, COALESCE(sum(succeeded), 0)::int AS succeeded,
                   COALESCE(sum(failed), 0)::int AS failed
            FROM ota_campaign_cells WHERE tenant_id = $1 AND campaign_id = $2::bigint AND wave = w.number) AS l ON w.name IS NOT NULL
        WHERE w.tenant_id = $1 AND w.campaign_id = $2::bigint) AS waves,
       -- The brakes in force. One that the policy ignores does not stop the campaign.
       (SELECT jsonb_agg(jsonb_build_object('kind', b.kind, 'name', b.name, 'since', b.starts_at, 'until', b.ends_at,
                                            'by', b.created_by, 'reason', b.reason) ORDER BY b.kind DESC, b.starts_at, b.name)::text
        FROM rollwave_brakes b
        WHERE b.tenant_id = $1 AND c.status IN ('CREATED', 'RUNNING', 'PAUSED')
          AND b.starts_at <= statement_timestamp() AND (b.ends_at IS NULL OR b.ends_at > statement_timestamp())
          AND (b.kind = 'halt'
               OR NOT EXISTS (SELECT FROM ota_campaign_policies p
                              WHERE p.tenant_id = $1 AND p.campaign_id = c.id AND p.revision = c.policy_revision
                                AND p.document #>> '{schedule,ignore_freezes}' = 'true'))) AS stopped_by
FROM ota_campaigns c
LEFT JOIN firmware_versions f ON f.tenant_id = c.tenant_id AND f.id = c.firmware_version_id
WHERE c.tenant_id = $1 AND c.id = $2::bigint;

-- name: campaigns
-- Newest first. ended_by: who wrote the last event that ended the campaign; NULL: it has not ended, or other SQL has ended it.
SELECT c.id, c.tenant_id, c.name, c.firmware_version_id, c.target_group_id, c.rollout_strategy, c.rollout_rate,
       c.abort_threshold::text::float8 AS abort_threshold, c.abort_min_completed,
       c.canary_percent::float8 AS canary_percent, c.max_in_flight, c.progress_timeout,
       c.answer_timeout, c.device_timeout, c.max_attempts, c.retry_on, c.retry_delay, c.retry_delay_max,
       c.status, c.status_reason, c.total_devices, c.targeted_devices, c.sent, c.succeeded, c.failed, c.wave,
       EXTRACT(epoch FROM c.started_at)::float8 AS started_at, EXTRACT(epoch FROM c.completed_at)::float8 AS completed_at,
       EXTRACT(epoch FROM c.cancelled_at)::float8 AS cancelled_at,
       EXTRACT(epoch FROM c.created_at)::float8 AS created_at, c.created_by, c.policy_revision,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = c.created_by) AS created_by_name,
       e.ended_by, (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = e.ended_by) AS ended_by_name,
       f.version AS firmware_version, f.file_url AS firmware_url, f.checksum_sha256 AS firmware_checksum,
       f.device_type AS firmware_device_type
FROM ota_campaigns c
LEFT JOIN firmware_versions f ON f.tenant_id = c.tenant_id AND f.id = c.firmware_version_id
LEFT JOIN LATERAL (
    -- No LIMIT: with one, PostgreSQL may read the tenant's whole history backwards.
    SELECT (array_agg(h.actor ORDER BY h.id DESC))[1] AS ended_by
    FROM ota_campaign_history h
    WHERE h.tenant_id = $1 AND h.campaign_id = c.id AND h.device_id IS NULL AND h.event IN ('aborted', 'completed')
      AND c.status IN ('ABORTED', 'COMPLETED')) AS e ON true
WHERE c.tenant_id = $1 AND ($2::text IS NULL OR c.status = $2) AND ($3::bigint IS NULL OR c.id < $3)
ORDER BY c.id DESC
LIMIT $4;

-- name: count_campaigns
SELECT count(*) FROM ota_campaigns WHERE tenant_id = $1 AND ($2::text IS NULL OR status = $2);

-- name: campaign_exists
SELECT EXISTS (SELECT FROM ota_campaigns WHERE tenant_id = $1 AND id = $2::bigint);

-- name: devices
-- Ordered by device id, along the primary key.
SELECT device_id, status, progress_pct, error_message, error_code, attempt, EXTRACT(epoch FROM due_at)::float8 AS due_at,
       EXTRACT(epoch FROM started_at)::float8 AS started_at, EXTRACT(epoch FROM completed_at)::float8 AS completed_at,
       EXTRACT(epoch FROM created_at)::float8 AS created_at
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2::bigint
  AND ($3::text IS NULL OR status = $3) AND ($4::text IS NULL OR device_id > $4)
ORDER BY device_id
LIMIT $5;

-- name: devices_looked_for
-- Devices in a state that has its own partial index. The condition repeats the index's, so that a generic plan can use it.
SELECT device_id, status, progress_pct, error_message, error_code, attempt, EXTRACT(epoch FROM due_at)::float8 AS due_at,
       EXTRACT(epoch FROM started_at)::float8 AS started_at, EXTRACT(epoch FROM completed_at)::float8 AS completed_at,
       EXTRACT(epoch FROM created_at)::float8 AS created_at
FROM ota_device_status
WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status IN ('FAILED', 'SKIPPED', 'INSTALLING')
  AND status = $3 AND ($4::text IS NULL OR device_id > $4)
ORDER BY device_id
LIMIT $5;

-- name: devices_unfinished
-- For a campaign with few unfinished devices: reads all of them along the indexes of the two queues, then filters.
WITH unfinished AS MATERIALIZED (
    (SELECT device_id, status, progress_pct, error_message, error_code, attempt, due_at, started_at, completed_at, created_at
     FROM ota_device_status
     WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status = 'PENDING' AND attempt = 0
     ORDER BY segment, position, id)
    UNION ALL
    (SELECT device_id, status, progress_pct, error_message, error_code, attempt, due_at, started_at, completed_at, created_at
     FROM ota_device_status
     WHERE tenant_id = $1 AND campaign_id = $2::bigint
       AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
     ORDER BY due_at NULLS FIRST)
)
SELECT device_id, status, progress_pct, error_message, error_code, attempt, EXTRACT(epoch FROM due_at)::float8 AS due_at,
       EXTRACT(epoch FROM started_at)::float8 AS started_at, EXTRACT(epoch FROM completed_at)::float8 AS completed_at,
       EXTRACT(epoch FROM created_at)::float8 AS created_at
FROM unfinished
WHERE status = $3 AND ($4::text IS NULL OR device_id > $4)
ORDER BY device_id
LIMIT $5;

-- name: events
-- The events after a given one, oldest first. If a host's pool had a codec for jsonb, an earlier version stored the detail as
-- a JSON string that contains the object.
SELECT id, EXTRACT(epoch FROM at)::float8 AS at, event, actor, device_id,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = actor) AS actor_name,
       CASE jsonb_typeof(detail) WHEN 'string' THEN detail #>> '{}' ELSE detail::text END AS detail
FROM ota_campaign_history
WHERE tenant_id = $1 AND campaign_id = $2::bigint AND id > $3
ORDER BY id
LIMIT $4;

-- name: latest_events
-- The last $3 events of a campaign, newest first. The detail is read as in events. A range of one campaign and its order leave PostgreSQL
-- only the primary key: otherwise it may read the events of all campaigns of the tenant backwards, once a second.
SELECT id, EXTRACT(epoch FROM at)::float8 AS at, event, actor, device_id,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = actor) AS actor_name,
       CASE jsonb_typeof(detail) WHEN 'string' THEN detail #>> '{}' ELSE detail::text END AS detail
FROM ota_campaign_history
WHERE tenant_id = $1 AND campaign_id BETWEEN $2::bigint AND $2::bigint
ORDER BY campaign_id DESC, id DESC
LIMIT $3;

-- name: brief
-- What the answer to an action says, from the campaign's own row and its waves: counters, which may be NULL.
SELECT c.name, c.status, c.cancelled_at IS NOT NULL AS cancelled, f.version AS firmware_version,
       c.pending AS "PENDING", c.downloading AS "DOWNLOADING", c.installing AS "INSTALLING",
       c.succeeded AS "SUCCESS", c.failed AS "FAILED", c.skipped AS "SKIPPED",
       ARRAY(SELECT w.name FROM ota_campaign_waves w
             WHERE w.tenant_id = $1 AND w.campaign_id = $2::bigint ORDER BY w.number) AS waves
FROM ota_campaigns c
LEFT JOIN firmware_versions f ON f.tenant_id = c.tenant_id AND f.id = c.firmware_version_id
WHERE c.tenant_id = $1 AND c.id = $2::bigint;

-- name: claimed_and_pending
-- Devices that were claimed and are not terminal, grouped by the facts that gates use; only the $3 that are due first.
-- again: a claim takes these devices before those never sent to ("claim" in executions.sql). goes: with the first $6 tokens.
-- first_turn: the number of such a device in their order, from 1.
-- $4: the pattern of ids that cannot be addressed. $5: the device timeout in seconds, including all suspensions of the campaign.
-- again_in: the segment of PENDING devices that are due again (NULL: of others); placed: it exists.
WITH counted AS (
    SELECT pending, unacknowledged, refused_for, addressable, held, again, again_in, again AND turn <= $6 AS goes,
           count(*)::int AS devices, min(turn)::int AS first_turn,
           min(due_in) AS due_in, (array_agg(attempt ORDER BY due_in))[1] AS attempt -- of the device that is due first
    FROM (
        SELECT *, CASE WHEN again AND pending THEN segment END AS again_in,
               CASE WHEN again THEN row_number() OVER (PARTITION BY again ORDER BY due_in, place) END AS turn
        FROM (
            SELECT status = 'PENDING' AS pending, attempt, attempt > sent_attempt AS unacknowledged, refused_for, addressable,
                   due_in > 0 AS held, due_in, place, segment,
                   addressable AND CASE WHEN status = 'PENDING' THEN COALESCE(due_in <= 0, true)
                                        ELSE due_in <= 0 AND completed_at IS NULL
                                             AND (attempt > sent_attempt OR failed_attempt = attempt AND in_time) END AS again
            FROM (
                SELECT status, attempt, sent_attempt, failed_attempt, refused_for, completed_at, ctid AS place,
                       abs(segment) AS segment, EXTRACT(epoch FROM due_at - statement_timestamp())::float8 AS due_in,
                       COALESCE(started_at + make_interval(secs => $5 - suspended_before) > statement_timestamp(), true) AS in_time,
                       device_id COLLATE "C" !~ $4 AND length(device_id) <= 128 AS addressable
                FROM ota_device_status
                WHERE tenant_id = $1 AND campaign_id = $2::bigint
                  AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
                ORDER BY due_at NULLS FIRST
                LIMIT $3) AS open
        ) AS judged
    ) AS placed
    GROUP BY pending, unacknowledged, refused_for, addressable, held, again, again_in, goes
)
SELECT c.*, s.number IS NOT NULL AS placed, s.time_zone, s.quarantined_at IS NOT NULL AS quarantined
FROM counted c
LEFT JOIN LATERAL (
    SELECT number, time_zone, quarantined_at FROM ota_campaign_segments
    WHERE tenant_id = $1 AND campaign_id = $2::bigint AND number BETWEEN c.again_in AND c.again_in
    ORDER BY number LIMIT 1 -- by the primary key (cells.sql)
) AS s ON true;

-- name: device
-- One device of a campaign, with the facts that a claim uses ("claim" in executions.sql), and the number of devices that a
-- claim takes before it, but at most $6. $4: the pattern of ids that cannot be addressed. $5: the device timeout in seconds,
-- including all suspensions of the campaign.
SELECT d.device_id, d.status, d.attempt, d.sent_attempt, d.failed_attempt, d.refused_for, d.error_message,
       EXTRACT(epoch FROM d.due_at - statement_timestamp())::float8 AS due_in,
       d.device_id COLLATE "C" !~ $4 AND length(d.device_id) <= 128 AS addressable,
       (EXTRACT(epoch FROM statement_timestamp())::float8 - EXTRACT(epoch FROM d.started_at)::float8) AS started_ago,
       d.suspended_before,
       d.completed_at IS NOT NULL AND d.status IN ('DOWNLOADING', 'INSTALLING') AS finished,
       (SELECT count(*)::int FROM (
            SELECT FROM ota_device_status
            WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status = 'PENDING' AND attempt = 0
              AND segment = d.segment AND (segment, position, id) < (d.segment, d.position, d.id)
              AND d.status = 'PENDING' AND d.attempt = 0
            ORDER BY segment, position, id LIMIT $6) AS fresh) AS ahead_fresh,
       d.segment, d.position, s.time_zone, s.quarantined_at IS NOT NULL AS quarantined, b.budgets, b.values, b.in_flight,
       (SELECT count(*)::int FROM (
            SELECT FROM ota_device_status o
            WHERE tenant_id = $1 AND campaign_id = $2::bigint
              AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
              AND due_at <= LEAST(statement_timestamp(), CASE WHEN d.attempt > 0 THEN d.due_at END)
              AND (completed_at IS NULL OR status = 'PENDING')
              AND (attempt > sent_attempt OR status = 'PENDING'
                   OR failed_attempt = attempt
                      AND COALESCE(started_at + make_interval(secs => $5 - suspended_before) > statement_timestamp(), true))
              AND device_id COLLATE "C" !~ $4 AND length(device_id) <= 128
              AND (d.status = 'PENDING' AND d.attempt = 0
                   OR (o.due_at, o.ctid) < (COALESCE(d.due_at, 'infinity'), d.ctid))
            ORDER BY due_at NULLS FIRST LIMIT $6) AS due)
       + (SELECT count(*)::int FROM (
            SELECT FROM ota_device_status o
            WHERE tenant_id = $1 AND campaign_id = $2::bigint AND status = 'PENDING' AND attempt > 0 AND due_at IS NULL
              AND device_id COLLATE "C" !~ $4 AND length(device_id) <= 128
              AND (d.status = 'PENDING' AND d.attempt = 0 OR d.due_at IS NULL AND o.ctid < d.ctid)
            ORDER BY due_at NULLS FIRST LIMIT $6) AS set_back) AS ahead_again
FROM ota_device_status d
LEFT JOIN ota_campaign_segments s ON s.tenant_id = $1 AND s.campaign_id = $2::bigint AND s.number = abs(d.segment)
CROSS JOIN LATERAL (
    SELECT COALESCE(array_agg(i.budget::int ORDER BY i.budget), '{}') AS budgets,
           COALESCE(array_agg(i.value ORDER BY i.budget), '{}') AS values,
           COALESCE(array_agg(COALESCE(v.in_flight, 0) ORDER BY i.budget), '{}') AS in_flight
    FROM unnest(d.budget_values) WITH ORDINALITY AS i (value, budget)
    LEFT JOIN LATERAL (
        SELECT in_flight FROM ota_campaign_budget_values
        WHERE tenant_id = $1 AND campaign_id = $2::bigint AND budget = i.budget AND value = i.value
        OFFSET 0
    ) AS v ON true
    WHERE i.value IS NOT NULL
) AS b
WHERE d.tenant_id = $1 AND d.campaign_id = $2::bigint AND d.device_id = $3;

-- name: events_of_device
-- The events of one device among the last $4 events of its campaign, oldest first.
SELECT id, EXTRACT(epoch FROM at)::float8 AS at, event, actor, device_id,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = actor) AS actor_name,
       CASE jsonb_typeof(detail) WHEN 'string' THEN detail #>> '{}' ELSE detail::text END AS detail
FROM (SELECT * FROM ota_campaign_history
      WHERE tenant_id = $1 AND campaign_id = $2::bigint
      ORDER BY id DESC LIMIT $4) AS latest
WHERE device_id = $3
ORDER BY id;
