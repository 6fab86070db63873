-- name: due
-- The campaigns of all tenants that need the engine now. Returns tenant, id and status only.
SELECT tenant_id, campaign_id, status FROM rollwave_due_campaigns_4();

-- name: lock
-- Lock the campaign's row until the transaction ends. A transaction that has this lock takes executions with SKIP LOCKED
-- and never waits for them, since reports lock executions first and their campaign last.
SELECT FROM ota_campaigns WHERE tenant_id = $1 AND id = $2::bigint FOR NO KEY UPDATE;

-- name: get
-- One campaign with its firmware and its waves, which are numbered from 0 without a gap; under a policy document, also with what its
-- waves are about, the numbers of the segments under quarantine, and the devices in the queue of each wave so far in the segment without
-- labels, which has all devices if the policy mentions no label. heard_slots: the listener slots that are subscribed now, or were within the
-- last $3 seconds and no listener has begun to subscribe since (listeners.heard). Under a policy document, each beat was of a listener
-- that knows documents: one of an earlier version leaves documents_at as it was. If in_own_database is false, the
-- installation belongs to another database, and nothing may be sent. row_version changes whenever the row of the policy's
-- revision is written, and tells rows of different databases apart; NULL: there is no such row.
SELECT c.tenant_id, c.id, c.status, c.rollout_strategy, c.rollout_rate,
       c.abort_threshold::text::float8 AS abort_threshold, c.abort_min_completed,
       c.canary_percent::float8 AS canary_percent, c.max_in_flight, c.progress_timeout, c.answer_timeout, c.device_timeout, c.max_attempts,
       c.retry_on, c.retry_delay, c.retry_delay_max, c.command, c.wave, c.sent, c.succeeded, c.failed, c.pace_used, c.pace_carried, c.pace_claims,
       c.target_group_id, c.targeted_devices, c.targeted_up_to, c.suspended_for, c.suspended_lately,
       EXTRACT(epoch FROM statement_timestamp() - c.active_since)::float8 AS active_for,
       EXTRACT(epoch FROM statement_timestamp() - c.active_at)::float8 AS seen_ago,
       c.status_reason, EXTRACT(epoch FROM statement_timestamp())::float8 AS read_at,
       c.segment_turn, c.placement::text AS placement, c.policy_revision, c.placed_revision, p.ctid::text || ' ' || EXTRACT(epoch FROM p.created_at)::text AS row_version,
       p.progress_timeout AS own_progress_timeout, p.answer_timeout AS own_answer_timeout,
       p.device_timeout AS own_device_timeout, p.max_attempts AS own_max_attempts, p.retry_on AS own_retry_on,
       c.stopped_by, EXTRACT(epoch FROM c.deadlines_from - statement_timestamp())::float8 AS deadlines_in,
       (SELECT jsonb_agg(jsonb_build_array(b.kind, b.name, EXTRACT(epoch FROM b.starts_at), EXTRACT(epoch FROM b.ends_at),
                                           b.created_by, b.reason) ORDER BY b.kind DESC, b.starts_at, b.name)
        FROM rollwave_brakes b
        WHERE b.tenant_id = $1 AND (b.ends_at IS NULL OR b.ends_at > statement_timestamp()))::text AS brakes,
       CASE WHEN c.policy_revision IS NULL THEN
           ARRAY(SELECT w.up_to FROM ota_campaign_waves w
                 WHERE w.tenant_id = $1 AND w.campaign_id = $2 ORDER BY w.number) ELSE '{}' END AS waves,
       CASE WHEN c.policy_revision IS NOT NULL THEN
           (SELECT jsonb_agg(jsonb_build_array(w.number, COALESCE(w.name, w.number::text), w.size, w.matched,
                                               COALESCE(w.state, 'waiting'), EXTRACT(epoch FROM w.since),
                                               EXTRACT(epoch FROM w.soak_from), COALESCE(w.soak_failed, 0), w.promoted_by)
                             ORDER BY w.number)
            FROM ota_campaign_waves w
            WHERE w.tenant_id = $1 AND w.campaign_id = $2)::text END AS document_waves,
       CASE WHEN c.policy_revision IS NOT NULL THEN
           ARRAY(SELECT s.number FROM ota_campaign_segments s
                 WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.quarantined_at IS NOT NULL
                 ORDER BY s.number) ELSE '{}' END AS quarantined,
       CASE WHEN c.policy_revision IS NOT NULL THEN
           (SELECT jsonb_agg(jsonb_build_array(l.wave, l.segment, l.waiting - l.held) ORDER BY l.wave)
            FROM ota_campaign_cells l
            WHERE l.tenant_id = $1 AND l.campaign_id = $2 AND l.wave BETWEEN 0 AND c.wave AND l.waiting > l.held
              AND l.segment = (SELECT s.number FROM ota_campaign_segments s
                               WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.labels = '{}'))::text END AS unsplit,
       ARRAY(SELECT l.slot FROM rollwave_listener_slots l
             WHERE (l.subscribed_at IS NOT NULL OR l.alive_at >= l.coming_at)
               AND l.alive_at BETWEEN statement_timestamp() - make_interval(secs => $3)
                                  AND statement_timestamp() + make_interval(secs => $3)
               AND (c.policy_revision IS NULL OR l.documents_at >= l.alive_at)) AS heard_slots,
       f.file_url, f.version, f.checksum_sha256, f.file_size_bytes::bigint AS file_size_bytes, f.device_type,
       EXTRACT(epoch FROM statement_timestamp() - c.pace_opened_at)::float8 AS pace_age,
       EXTRACT(epoch FROM statement_timestamp() - c.reconciled_at)::float8 AS reconciled_age,
       c.pending + c.downloading + c.installing + c.succeeded + c.failed IS NOT NULL AND c.skipped >= 0 AS counted,
       c.pending + c.downloading + c.installing + c.succeeded + c.failed + c.skipped IS NOT NULL AS counting,
       NOT EXISTS (SELECT FROM rollwave_installation i
                   WHERE i.bound_to IS NOT NULL AND i.bound_to IS DISTINCT FROM rollwave_here()) AS in_own_database
FROM ota_campaigns c
LEFT JOIN firmware_versions f ON f.tenant_id = c.tenant_id AND f.id = c.firmware_version_id
LEFT JOIN ota_campaign_policies p ON p.tenant_id = c.tenant_id AND p.campaign_id = c.id AND p.revision = c.policy_revision
WHERE c.tenant_id = $1 AND c.id = $2;

-- name: move
-- Change the campaign's status. The commit wakes the workers (store/wake_ups.py). If the last look was more than $6 seconds
-- ago, a pause counts as suspended since that look.
-- $7: cut the reason to the width of the column.
-- Not applied: the campaign is no longer in state $3.
WITH moved AS (
    UPDATE ota_campaigns
    SET status = $4::text,
        status_reason = CASE WHEN $7 THEN left($5::text, (
            SELECT CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 2000 END FROM pg_attribute a
            WHERE a.attrelid = 'ota_campaigns'::regclass AND a.attname = 'status_reason')) ELSE $5::text END,
        started_at = CASE WHEN $4::text = 'RUNNING' THEN COALESCE(started_at, statement_timestamp()) ELSE started_at END,
        completed_at = CASE WHEN $4::text IN ('COMPLETED', 'ABORTED') THEN statement_timestamp() ELSE completed_at END,
        active_at = CASE WHEN $4::text = 'PAUSED' AND active_since IS NOT NULL
                              AND active_at >= statement_timestamp() - make_interval(secs => $6)
                         THEN statement_timestamp() ELSE active_at END,
        active_since = CASE WHEN $4::text = 'PAUSED' THEN NULL ELSE active_since END
    WHERE tenant_id = $1 AND id = $2 AND status = $3
    RETURNING id
)
SELECT id, pg_notify('rollwave_due', '') FROM moved;

-- name: wake
-- The commit wakes the workers, which look at every campaign of the tenant.
SELECT pg_notify('rollwave_due', $1::text);

-- name: mark_wound_down
-- The engine need not look at an ended campaign again: all devices of an aborted one are terminal, or a host's SQL ended it.
UPDATE ota_campaigns SET settled_at = statement_timestamp()
WHERE tenant_id = $1 AND id = $2 AND status NOT IN ('CREATED', 'RUNNING', 'PAUSED') AND settled_at IS NULL
RETURNING id;

-- name: suspend
-- Suspend the campaign: nothing may be sent, and its deadlines stand still. If the last look was more than $3 seconds ago,
-- they have stood still since that look. If there was no look yet, they stand still since the pause in its history. The time
-- of devices that a host sent to begins when they are adopted, whatever was before (counters.adopt).
-- Not applied: it is suspended already.
UPDATE ota_campaigns c
SET active_since = NULL,
    active_at = CASE
        WHEN c.active_at IS NULL AND c.pending IS NULL THEN statement_timestamp()
        WHEN c.active_at IS NULL THEN COALESCE(
            (SELECT h.at FROM ota_campaign_history h
             WHERE h.tenant_id = $1 AND h.campaign_id = $2 AND h.event = 'paused' AND h.device_id IS NULL
             ORDER BY h.id DESC LIMIT 1),
            c.started_at, statement_timestamp())
        WHEN c.active_at < statement_timestamp() - make_interval(secs => $3) THEN c.active_at
        ELSE statement_timestamp() END
WHERE c.tenant_id = $1 AND c.id = $2 AND (c.active_since IS NOT NULL OR c.active_at IS NULL);

-- name: activate
-- Commands may be sent again: deadlines continue, but none is judged in the next $3 seconds. For a campaign that was never active,
-- no suspension is added.
UPDATE ota_campaigns
SET deadlines_from = CASE WHEN $3 > 0 THEN statement_timestamp() + make_interval(secs => $3) END,
    suspended_lately = suspended_lately
        + GREATEST(0, EXTRACT(epoch FROM statement_timestamp() - COALESCE(active_at, statement_timestamp()))),
    suspended_for = suspended_for
        + GREATEST(0, EXTRACT(epoch FROM statement_timestamp() - COALESCE(active_at, statement_timestamp()))),
    active_since = statement_timestamp(),
    active_at = statement_timestamp(),
    cancelled_at = CASE WHEN status = 'ABORTED' THEN cancelled_at END,
    settled_at = NULL -- a host's SQL may start it again
WHERE tenant_id = $1 AND id = $2;

-- name: note
-- Record that the campaign is still active. $3: every present deadline was set after the last suspension. Corrects times in
-- the future, which remain after the database's clock was set back.
UPDATE ota_campaigns
SET active_since = LEAST(active_since, statement_timestamp()), active_at = statement_timestamp(),
    suspended_lately = CASE WHEN $3 THEN 0 ELSE suspended_lately END,
    settled_at = NULL
WHERE tenant_id = $1 AND id = $2 AND active_since IS NOT NULL;

-- name: give_time
UPDATE ota_campaigns SET deadlines_from = GREATEST(deadlines_from, statement_timestamp() + make_interval(secs => $3))
WHERE tenant_id = $1 AND id = $2;

-- name: set_reason
-- Another reason for the same status, cut to the width of the column. The campaign is locked.
UPDATE ota_campaigns
SET status_reason = left($3::text, (
    SELECT CASE WHEN a.atttypmod > 4 THEN a.atttypmod - 4 ELSE 2000 END FROM pg_attribute a
    WHERE a.attrelid = 'ota_campaigns'::regclass AND a.attname = 'status_reason'))
WHERE tenant_id = $1 AND id = $2;

-- name: set_stopped_by
-- Record what stops the campaign. Needs the campaign's lock.
UPDATE ota_campaigns SET stopped_by = $3 WHERE tenant_id = $1 AND id = $2;

-- name: insert_waves
INSERT INTO ota_campaign_waves (tenant_id, campaign_id, number, up_to, opened_at)
SELECT $1, $2, w.number, w.up_to, CASE w.number WHEN 0 THEN statement_timestamp() END
FROM unnest($3::int[], $4::int[]) AS w (number, up_to)
ON CONFLICT DO NOTHING;

-- name: pass_gate
WITH passed AS (
    UPDATE ota_campaign_waves SET passed_at = statement_timestamp()
    WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3
)
UPDATE ota_campaign_waves SET opened_at = statement_timestamp()
WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3 + 1;

-- name: open_wave
-- Not applied: another worker has opened it.
UPDATE ota_campaigns SET wave = $3 WHERE tenant_id = $1 AND id = $2 AND wave = $3 - 1 RETURNING id;
