-- Each statement allows only one plan, so that outdated statistics cannot change it (ADR 13):
-- Statements that take the head of a queue (claim, skip_unsent ...) order by the queue's index, lock rows with SKIP LOCKED and
-- update them by position (ctid). If another transaction moves a row in between, it is not found and stays unchanged.
-- Statements that wait for rows (mark_sent, apply_reports ...) lock them by key through LATERAL, and update them with device_id
-- and campaign_id in arrays: with "campaign_id = $2", PostgreSQL 15 reads the whole campaign if it expects at most one row. A
-- join could read the whole campaign for each row.

-- name: claim
-- Claim up to $3 devices for a lease of $5 seconds.
-- First, devices that are due again: with the same attempt if the broker never acknowledged it; with the next attempt if the
-- last one failed and the device timeout has not passed ($8 seconds plus all suspensions: retry.DeviceTime), or if the row was
-- set back to PENDING by hand (its device timeout starts again). A device that had finished (counters.adopt) is not claimed.
-- Then, at most $4 devices that were never sent to: of each wave of $13 and segment of $11 in turn as many as $12 says, in the order
-- of their positions. A device whose id cannot be addressed ($6) becomes SKIPPED.
-- Claimed devices count in the pace's interval, under a document ($14) the first commands only; $9 begins a new interval, $15 seconds
-- after the last one (NULL: $16 seconds ago), with $17 devices carried over. The first claim also stores the command ($10) and sets
-- started_at. $19: only these devices get their first command (NULL: any). $21: the claims of the last tick, to which this one is added
-- (NULL: the pace does not need them). Under a document, number the first commands, and change the cells; devices are sent to again
-- (standing.hold) in segments without quarantine, of the time zones $18 (NULL: every one) and, if $20, of none.
WITH again AS (
    SELECT ctid AS place, campaign_id, device_id, status
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND due_at <= statement_timestamp()
      AND (completed_at IS NULL OR status = 'PENDING')
      AND (attempt > sent_attempt OR status = 'PENDING'
           OR failed_attempt = attempt
              AND COALESCE(started_at + make_interval(secs => $8 - suspended_before) > statement_timestamp(), true))
      AND device_id COLLATE "C" !~ $6 AND length(device_id) <= 128
      AND (NOT $14 OR EXISTS (SELECT FROM (SELECT quarantined_at, time_zone FROM ota_campaign_segments
                                           WHERE tenant_id = $1 AND campaign_id = $2
                                             AND number BETWEEN abs(segment) AND abs(segment)
                                           ORDER BY number LIMIT 1) AS s -- by the primary key (cells.sql)
                              WHERE s.quarantined_at IS NULL
                                AND ($18::text[] IS NULL OR s.time_zone = ANY ($18) OR $20 AND s.time_zone IS NULL)))
    ORDER BY due_at NULLS FIRST
    LIMIT $3
    FOR UPDATE SKIP LOCKED
), set_back AS (
    SELECT ctid AS place, campaign_id, device_id, status
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt > 0 AND due_at IS NULL
      AND device_id COLLATE "C" !~ $6 AND length(device_id) <= 128
      AND (NOT $14 OR EXISTS (SELECT FROM (SELECT quarantined_at, time_zone FROM ota_campaign_segments
                                           WHERE tenant_id = $1 AND campaign_id = $2
                                             AND number BETWEEN abs(segment) AND abs(segment)
                                           ORDER BY number LIMIT 1) AS s -- by the primary key (cells.sql)
                              WHERE s.quarantined_at IS NULL
                                AND ($18::text[] IS NULL OR s.time_zone = ANY ($18) OR $20 AND s.time_zone IS NULL)))
    ORDER BY due_at NULLS FIRST
    LIMIT $3 - (SELECT count(*) FROM again)
    FOR UPDATE SKIP LOCKED
), again_claimed AS (
    UPDATE ota_device_status d
    SET attempt = CASE WHEN d.attempt > d.sent_attempt THEN d.attempt ELSE d.attempt + 1 END,
        status = CASE d.status WHEN 'INSTALLING' THEN 'DOWNLOADING' ELSE d.status END,
        progress_pct = 0,
        cancel_claimed_until = NULL, -- a host's SQL may have started a cancelled campaign again
        cancel_sent_at = NULL,
        error_message = NULL,
        error_code = NULL,
        started_at = CASE WHEN d.status <> 'PENDING' OR d.attempt > d.sent_attempt THEN d.started_at END,
        completed_at = NULL,
        due_at = statement_timestamp() + make_interval(secs => $5)
    FROM (SELECT * FROM again UNION ALL SELECT * FROM set_back) AS locked
    WHERE d.tenant_id = $1 AND d.ctid = locked.place
      AND d.campaign_id = locked.campaign_id AND d.device_id = locked.device_id
    RETURNING d.device_id, d.attempt, locked.status AS was, COALESCE(d.refused_for = 'connection_ended', false) AS suspect, d.segment
), fresh AS MATERIALIZED (
    SELECT e.place, e.campaign_id, e.device_id, e.addressable, open.segment, open.turn
    FROM unnest($11::int[], $12::int[], $13::int[]) WITH ORDINALITY AS open (segment, room, wave, turn)
    CROSS JOIN LATERAL (
        SELECT ctid AS place, campaign_id, device_id,
               device_id COLLATE "C" !~ $6 AND length(device_id) <= 128 AS addressable
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
          AND segment = open.segment AND position >= (open.wave + 1)::bigint << 44 AND position < (open.wave + 2)::bigint << 44
          AND ($19::text[] IS NULL OR device_id IN (SELECT unnest($19::text[])))
        ORDER BY segment, position, id
        LIMIT open.room
        FOR UPDATE SKIP LOCKED
    ) AS e
    LIMIT LEAST($4, $3 - (SELECT count(*) FROM again) - (SELECT count(*) FROM set_back))
), numbered AS (
    SELECT *, CASE WHEN $14 AND addressable
                   THEN (SELECT sent FROM ota_campaigns WHERE tenant_id = $1 AND id = $2)
                        + count(*) FILTER (WHERE addressable) OVER (ROWS UNBOUNDED PRECEDING) END AS dispatch_number
    FROM fresh
), fresh_claimed AS (
    UPDATE ota_device_status d
    -- A host that set the device back may have left values in the columns after due_at.
    SET attempt = 1, due_at = statement_timestamp() + make_interval(secs => $5),
        progress_pct = 0, error_message = NULL, error_code = NULL, started_at = NULL, completed_at = NULL,
        dispatch_number = locked.dispatch_number
    FROM numbered AS locked
    WHERE d.tenant_id = $1 AND d.ctid = locked.place
      AND d.campaign_id = locked.campaign_id AND d.device_id = locked.device_id
      AND locked.addressable
    RETURNING d.device_id, d.attempt, d.segment, d.position, d.dispatch_number, d.budget_values
), skipped AS (
    UPDATE ota_device_status d
    SET status = 'SKIPPED', error_message = ota_fitting($7), completed_at = statement_timestamp()
    FROM fresh AS locked
    WHERE d.tenant_id = $1 AND d.ctid = locked.place
      AND d.campaign_id = locked.campaign_id AND d.device_id = locked.device_id
      AND NOT locked.addressable
    RETURNING d.device_id, d.attempt, d.segment, d.position
), counted AS (
    UPDATE ota_campaigns c
    SET pending = c.pending - moved.skipped, skipped = c.skipped + moved.skipped,
        downloading = c.downloading + moved.rewound, installing = c.installing - moved.rewound,
        sent = c.sent + moved.fresh,
        pace_opened_at = CASE WHEN moved.in_pace > 0 AND $9
                              THEN COALESCE(c.pace_opened_at + make_interval(secs => $15::float8),
                                            statement_timestamp() - make_interval(secs => $16::float8))
                              ELSE c.pace_opened_at END,
        pace_used = CASE WHEN moved.in_pace > 0 AND $9 THEN 0 ELSE c.pace_used END + moved.in_pace,
        pace_carried = CASE WHEN moved.in_pace > 0 AND $9 THEN $17 ELSE c.pace_carried END,
        pace_claims = CASE WHEN moved.in_pace > 0 AND $21::float8[] IS NOT NULL
                           THEN $21::float8[] || ARRAY[EXTRACT(epoch FROM statement_timestamp()), moved.in_pace]::float8[]
                           ELSE c.pace_claims END,
        segment_turn = CASE WHEN $14 THEN COALESCE((SELECT segment FROM fresh ORDER BY turn DESC LIMIT 1), c.segment_turn)
                            ELSE c.segment_turn END,
        command = CASE WHEN moved.any THEN COALESCE(c.command, $10) ELSE c.command END,
        started_at = CASE WHEN moved.any THEN COALESCE(c.started_at, statement_timestamp()) ELSE c.started_at END,
        -- A command is sent, so the campaign is active, even if no look has recorded that yet.
        active_at = CASE WHEN moved.any THEN COALESCE(c.active_at, statement_timestamp()) ELSE c.active_at END
    FROM (SELECT *, again + fresh > 0 AS any, CASE WHEN $14 THEN fresh ELSE again + fresh END AS in_pace
          FROM (SELECT (SELECT count(*) FROM skipped)::int AS skipped,
                       (SELECT count(*) FROM again_claimed WHERE was = 'INSTALLING')::int AS rewound,
                       (SELECT count(*) FROM again_claimed)::int AS again,
                       (SELECT count(*) FROM fresh_claimed)::int AS fresh) AS numbers) AS moved
    WHERE c.tenant_id = $1 AND c.id = $2 AND (moved.any OR moved.skipped > 0)
), cells AS (
    UPDATE ota_campaign_cells l
    SET waiting = l.waiting - moved.sent - moved.skipped, in_flight = l.in_flight + moved.sent,
        skipped = l.skipped + moved.skipped
    FROM (SELECT segment, (position >> 44)::int - 1 AS wave, (sum(sent))::int AS sent, (sum(1 - sent))::int AS skipped
          FROM (SELECT segment, position, 1 AS sent FROM fresh_claimed
                UNION ALL SELECT segment, position, 0 FROM skipped) AS each
          WHERE $14
          GROUP BY 1, 2) AS moved
    CROSS JOIN LATERAL (
        SELECT ctid AS place FROM ota_campaign_cells
        WHERE tenant_id = $1 AND campaign_id = $2 AND wave = moved.wave AND segment = moved.segment
        OFFSET 0 -- otherwise it is a join, which may read all cells for each of these
    ) AS cell
    WHERE l.tenant_id = $1 AND l.ctid = cell.place
)
SELECT device_id, attempt, suspect, segment, NULL::bigint AS position, NULL::int AS dispatch_number,
       NULL::text[] AS budget_values
FROM again_claimed
UNION ALL
SELECT device_id, attempt, false, segment, position, dispatch_number, budget_values FROM fresh_claimed
UNION ALL
SELECT device_id, attempt, false, NULL, NULL, NULL, NULL FROM skipped;

-- name: mark_sent
-- Record that the broker acknowledged these commands. The device has $5 seconds for its first report, and $6 seconds in all,
-- including the $7 seconds for which the campaign was suspended before the claim. Not applied: the device has already reported,
-- the campaign was stopped after the lease had ended, or another worker was first.
WITH sent AS (
    SELECT * FROM unnest($3::text[], $4::int[]) AS s (device_id, attempt)
), locked AS (
    SELECT d.device_id, d.status
    FROM (SELECT * FROM sent ORDER BY device_id COLLATE "C") AS s
    CROSS JOIN LATERAL (
        SELECT device_id, status
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id AND attempt = s.attempt
          AND attempt > sent_attempt AND status IN ('PENDING', 'DOWNLOADING')
        FOR UPDATE
    ) AS d
), marked AS (
    UPDATE ota_device_status
    SET status = 'DOWNLOADING',
        sent_attempt = attempt,
        refusals = 0,
        refused_for = NULL,
        started_at = COALESCE(started_at, statement_timestamp()),
        suspended_before = CASE WHEN started_at IS NULL THEN $7 ELSE suspended_before END,
        due_at = LEAST(statement_timestamp() + make_interval(secs => $5),
                       COALESCE(started_at, statement_timestamp())
                       + make_interval(secs => $6 - CASE WHEN started_at IS NULL THEN $7 ELSE suspended_before END))
    WHERE tenant_id = $1 AND campaign_id = ANY (ARRAY[$2::bigint])
      AND device_id = ANY (ARRAY(SELECT device_id FROM locked))
    RETURNING device_id
)
UPDATE ota_campaigns c
SET pending = c.pending - moved.devices, downloading = c.downloading + moved.devices
FROM (SELECT count(*)::int AS devices FROM locked
      WHERE status = 'PENDING' AND (SELECT count(*) FROM marked) > 0) AS moved
WHERE c.tenant_id = $1 AND c.id = $2 AND moved.devices > 0;

-- name: release
-- Release devices whose command the broker did not accept. They may be claimed again with the same attempt after $5 seconds.
-- If the broker refused the command while it accepts those of others ($6: the reason), the delay doubles each time, up to
-- $7 seconds, so that a refused device does not delay others. Not applied: the lease had ended and another worker has the device.
WITH unsent AS (
    SELECT * FROM unnest($3::text[], $4::int[]) AS s (device_id, attempt)
), locked AS (
    SELECT d.device_id
    FROM (SELECT * FROM unsent ORDER BY device_id COLLATE "C") AS s
    CROSS JOIN LATERAL (
        SELECT device_id
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND device_id = s.device_id AND attempt = s.attempt
          AND attempt > sent_attempt AND status IN ('PENDING', 'DOWNLOADING')
        FOR UPDATE
    ) AS d
)
UPDATE ota_device_status
SET refusals = CASE WHEN $6::text IS NULL THEN refusals ELSE LEAST(refusals + 1, 16) END,
    refused_for = COALESCE($6, refused_for),
    due_at = statement_timestamp()
             + make_interval(secs => CASE WHEN $6 IS NULL THEN $5 ELSE LEAST($7, $5 * 2 ^ refusals) END)
WHERE tenant_id = $1 AND campaign_id = ANY (ARRAY[$2::bigint])
  AND device_id = ANY (ARRAY(SELECT device_id FROM locked));

-- name: apply_reports
-- Apply one report per device. Rows are locked in a fixed order. A row moves only forward (ota_status_rank), and only if the
-- device was sent to. A failure that the campaign's policy retries keeps the row in progress: this is decided here, under the
-- row's lock, by the same rule as RetryPolicy.allows_another (a test compares the two).
-- After a device has reported a failure, further reports of that attempt change nothing; nor do reports of a device that had
-- finished (counters.adopt). The device timeout of a device that a host's earlier worker left in progress begins now.
-- Returns one row per report: the execution before it (NULL: no such execution of this tenant), and the effect of the report.
WITH report AS MATERIALIZED (
    SELECT * FROM unnest($2::bigint[], $3::text[], $4::text[], $5::int[], $6::text[], $7::int[], $12::text[])
        WITH ORDINALITY AS r (campaign_id, device_id, status, progress, error, attempt, code, number)
), found AS MATERIALIZED (
    SELECT r.number, r.status AS reported, r.progress, r.error, r.code, r.attempt AS reported_attempt,
           d.campaign_id, d.device_id, d.status AS was, d.attempt, d.heard_attempt, d.started_at, d.suspended_before,
           d.segment, d.position, d.dispatch_number, d.budget_values, d.failed_before,
           -- Left by a host's earlier worker and not adopted yet (counters.adopt).
           d.due_at IS NULL AND d.status IN ('DOWNLOADING', 'INSTALLING') AS left_behind
    FROM (SELECT * FROM report ORDER BY campaign_id, device_id COLLATE "C") AS r
    CROSS JOIN LATERAL (
        SELECT campaign_id, device_id, status, attempt, heard_attempt, started_at, suspended_before, due_at, segment,
               position, dispatch_number, budget_values, failed_before
        FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = r.campaign_id AND device_id = r.device_id
        FOR UPDATE
    ) AS d
), own AS MATERIALIZED (
    -- With a policy document, its revision has these values, and the campaign's own columns mean nothing.
    SELECT c.id, c.status, c.suspended_for, c.active_since, c.active_at,
           CASE WHEN c.policy_revision IS NULL THEN c.progress_timeout ELSE p.progress_timeout END AS progress_timeout,
           CASE WHEN c.policy_revision IS NULL THEN c.device_timeout ELSE p.device_timeout END AS device_timeout,
           CASE WHEN c.policy_revision IS NULL THEN c.max_attempts ELSE p.max_attempts END AS max_attempts,
           CASE WHEN c.policy_revision IS NULL THEN c.retry_on ELSE p.retry_on END AS retry_on
    FROM ota_campaigns c
    LEFT JOIN ota_campaign_policies p ON p.tenant_id = $1 AND p.campaign_id = c.id AND p.revision = c.policy_revision
    WHERE c.tenant_id = $1 AND c.id = ANY (ARRAY(SELECT DISTINCT campaign_id FROM report))
), locked AS MATERIALIZED (
    SELECT d.number, d.reported, d.progress, d.error, d.code, d.reported_attempt, d.campaign_id, d.device_id, d.was,
           d.attempt, d.segment, d.position, d.dispatch_number, d.budget_values, d.failed_before,
           CASE WHEN d.heard_attempt < d.attempt THEN 'rejected' ELSE 'reported' END AS reason,
           make_interval(secs => CASE WHEN c.progress_timeout > 0 AND c.progress_timeout < 1e9
                                      THEN c.progress_timeout ELSE $8 END) AS progress_timeout,
           COALESCE(d.started_at, statement_timestamp())
               + make_interval(secs => CASE WHEN c.device_timeout > 0 AND c.device_timeout < 1e9
                                            THEN c.device_timeout ELSE $9 END
                                       + CASE WHEN d.started_at IS NULL THEN 0
                                              ELSE c.suspended_for - t.suspended_before END) AS last_moment,
           t.suspended_before,
           COALESCE(d.reported = 'FAILED'
               AND CASE WHEN d.heard_attempt < d.attempt THEN 'rejected' ELSE 'reported' END = ANY (c.retry_on)
               AND GREATEST(d.attempt, 1) < COALESCE(c.max_attempts, $10)
               AND c.status IN ('RUNNING', 'PAUSED'), false) AS retried
    FROM found d
    JOIN own c ON c.id = d.campaign_id
    CROSS JOIN LATERAL (
        SELECT CASE WHEN d.left_behind
                    THEN c.suspended_for
                         + CASE WHEN c.active_since IS NULL AND c.active_at IS NOT NULL
                                THEN GREATEST(0, EXTRACT(epoch FROM statement_timestamp() - c.active_at))::float8 ELSE 0 END
                         - CASE WHEN isfinite(d.started_at)
                                THEN EXTRACT(epoch FROM statement_timestamp() - d.started_at)::float8 ELSE 0 END
                    WHEN d.started_at IS NULL THEN c.suspended_for
                    ELSE d.suspended_before END AS suspended_before
    ) AS t
), moved AS (
    UPDATE ota_device_status d
    SET status = CASE WHEN h.retried THEN 'DOWNLOADING' ELSE h.reported END,
        progress_pct = CASE WHEN d.status = h.reported THEN GREATEST(h.progress, d.progress_pct)
                            ELSE COALESCE(h.progress, d.progress_pct) END,
        error_message = CASE WHEN h.reported = 'SUCCESS' THEN NULL ELSE COALESCE(h.error, d.error_message) END,
        -- A device that a host's earlier worker left in progress is in its first attempt.
        attempt = GREATEST(d.attempt, 1),
        sent_attempt = GREATEST(d.attempt, 1),
        heard_attempt = GREATEST(d.attempt, 1),
        failed_attempt = CASE WHEN h.reported = 'FAILED' THEN GREATEST(d.attempt, 1) ELSE 0 END,
        failed_reason = CASE WHEN h.reported = 'FAILED' THEN h.reason END,
        error_code = CASE WHEN h.reported = 'FAILED' THEN h.code END,
        -- The device has the command, whatever the broker answered.
        refusals = 0,
        refused_for = NULL,
        started_at = COALESCE(d.started_at, statement_timestamp()),
        suspended_before = h.suspended_before,
        completed_at = CASE WHEN ota_status_rank(h.reported) = 3 AND NOT h.retried
                            THEN statement_timestamp() END,
        -- The progress timeout times $11, so that not every repeated report has to be written.
        due_at = CASE WHEN ota_status_rank(h.reported) < 3 OR h.retried
                      THEN LEAST(statement_timestamp() + h.progress_timeout * $11, h.last_moment) END
    FROM locked h
    WHERE d.tenant_id = $1 AND d.campaign_id = h.campaign_id AND d.device_id = h.device_id
      AND (d.attempt > 0 OR d.status <> 'PENDING')
      AND (d.completed_at IS NULL OR d.status = 'PENDING')
      AND (h.reported_attempt IS NULL OR h.reported_attempt = d.attempt)
      AND NOT (d.failed_attempt = d.attempt AND COALESCE(d.failed_reason, '') IN ('reported', 'rejected'))
      AND (ota_status_rank(d.status) < ota_status_rank(h.reported)
           OR d.status = h.reported AND ota_status_rank(d.status) < 3
              AND (h.progress > d.progress_pct
                   OR d.failed_attempt = d.attempt
                   OR d.due_at < LEAST(statement_timestamp() + h.progress_timeout, h.last_moment)))
    RETURNING h.number, d.status AS became
)
SELECT h.was, m.became, h.attempt, h.reason,
       m.number IS NOT NULL AND h.retried AS retried, EXTRACT(epoch FROM h.progress_timeout)::float8 AS progress_timeout,
       h.segment, h.position, h.dispatch_number, h.budget_values, h.failed_before
FROM report r
LEFT JOIN locked h USING (number)
LEFT JOIN moved m USING (number)
ORDER BY r.number;

-- name: skip_unsent
-- Skip devices of a stopped campaign that were never sent to, or that were set back by hand (due_at NULL) and not sent to
-- since. A device that a worker is sending to now keeps its lease. The broker may have the command of a device whose lease has
-- ended: if the campaign was cancelled, it is told first (cancels.claim). Returns the number of devices by wave and segment: the
-- cells are changed after this (cells.skip), when the campaign is locked. They do not count devices that wait to be placed anew.
WITH waiting AS (
    SELECT ctid AS place, campaign_id, device_id, true AS never_sent FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0
    ORDER BY segment, position, id LIMIT $3 FOR UPDATE SKIP LOCKED
), lapsed AS (
    SELECT ctid AS place, campaign_id, device_id, false AS never_sent FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt > 0
      AND due_at <= statement_timestamp()
      AND (cancel_sent_at IS NOT NULL OR cancel_claimed_until <= statement_timestamp()
           OR (SELECT cancelled_at IS NULL FROM ota_campaigns WHERE tenant_id = $1 AND id = $2))
    ORDER BY due_at NULLS FIRST LIMIT $3 FOR UPDATE SKIP LOCKED
), set_back AS (
    SELECT ctid AS place, campaign_id, device_id, false AS never_sent FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt > 0 AND due_at IS NULL
    ORDER BY due_at NULLS FIRST LIMIT $3 FOR UPDATE SKIP LOCKED
), skipped AS (
    UPDATE ota_device_status d
    SET status = 'SKIPPED', completed_at = statement_timestamp(), due_at = NULL, error_message = ota_fitting($4)
    FROM (SELECT * FROM waiting UNION ALL SELECT * FROM lapsed UNION ALL SELECT * FROM set_back) AS locked
    WHERE d.tenant_id = $1 AND d.ctid = locked.place
      AND d.campaign_id = locked.campaign_id AND d.device_id = locked.device_id
    RETURNING d.segment, d.position, locked.never_sent,
              (SELECT targeted_devices IS NULL OR NOT COALESCE(placement, '{}') ? 'moves' OR placement ? 'filled'
                      OR d.device_id <= targeted_up_to
               FROM ota_campaigns WHERE tenant_id = $1 AND id = $2) AS is_placed
), counted AS (
    UPDATE ota_campaigns c
    SET pending = c.pending - moved.devices, skipped = c.skipped + moved.devices
    FROM (SELECT count(*)::int AS devices FROM skipped) AS moved
    WHERE c.tenant_id = $1 AND c.id = $2 AND moved.devices > 0
    RETURNING c.id
), no_longer_held AS ( -- the campaign has ended: of all that budgets hold, as many as it skips
    DELETE FROM ota_campaign_budget_held
    WHERE tenant_id = $1 AND campaign_id = $2 AND ctid = ANY (ARRAY(
        SELECT h.ctid FROM counted, ota_campaign_budget_held h
        WHERE h.tenant_id = $1 AND h.campaign_id = $2 LIMIT (SELECT count(*) FROM skipped WHERE segment < 0)))
)
SELECT (position >> 44)::int - 1 AS wave, abs(segment) AS segment, count(*)::int AS devices,
       (count(*) FILTER (WHERE never_sent AND is_placed))::int AS waiting, (count(*) FILTER (WHERE NOT never_sent))::int AS in_flight,
       (count(*) FILTER (WHERE segment < 0 AND is_placed))::int AS held
FROM skipped
GROUP BY 1, 2;

-- name: current
-- The present command of each device: the attempt in progress of its newest running campaign. No row if a worker is sending
-- to the device now, or if its next attempt waits for its delay: then the next claim sends it. Nor while devices are being placed.
SELECT DISTINCT ON (d.device_id) d.device_id, d.attempt, d.campaign_id, d.segment, c.command, c.policy_revision,
       GREATEST(1, EXTRACT(epoch FROM d.due_at - statement_timestamp()))::float8 AS seconds_left
FROM ota_campaigns c
CROSS JOIN unnest($2::text[]) AS asking (device_id)
CROSS JOIN LATERAL (
    SELECT campaign_id, device_id, segment, status, attempt, sent_attempt, failed_attempt, due_at
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = c.id AND device_id = asking.device_id
    OFFSET 0 -- otherwise PostgreSQL may read the whole queue of open devices
) AS d
WHERE c.tenant_id = $1 AND c.status = 'RUNNING' AND c.command IS NOT NULL
  AND c.targeted_devices IS NULL AND c.placed_revision IS NOT DISTINCT FROM c.policy_revision
  AND d.status IN ('DOWNLOADING', 'INSTALLING')
  AND d.attempt = d.sent_attempt AND d.attempt > d.failed_attempt AND d.due_at IS NOT NULL
ORDER BY d.device_id, d.campaign_id DESC;
