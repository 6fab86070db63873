-- The times for which segments were closed: their devices could not be sent to again, and the clocks of these stood. Every statement needs
-- the campaign's lock. ota_campaign_segments.closed has the last 100 of these times; the last one has no end while it lasts. A device is
-- held while its due_at is its held_due_at: whatever sets another due_at ends the hold.

-- name: note
-- Record that the segments $3 are closed, and the others are open. One that closes is closed since the last look, $4 seconds ago. Times
-- for which the campaign was suspended until now ($5 seconds; 0: it was not) are no times of the segment: they stand for all devices.
UPDATE ota_campaign_segments s
SET closed = CASE WHEN s.number = ANY ($3::int[])
                  THEN COALESCE((SELECT range_agg(each.r)
                                 FROM (SELECT u.r FROM unnest(s.closed - suspended.time) AS u (r) ORDER BY u.r DESC LIMIT 99) AS each), '{}')
                       + tstzmultirange(tstzrange(statement_timestamp() - make_interval(
                           secs => CASE WHEN $5 > 0 OR upper_inf(s.closed) THEN 0 ELSE $4 END), NULL))
                  ELSE (s.closed - suspended.time) * tstzmultirange(tstzrange(NULL, statement_timestamp())) END,
    reopened = s.number <> ALL ($3::int[]) AND (s.reopened OR upper_inf(s.closed))
FROM (SELECT tstzmultirange(tstzrange(statement_timestamp() - make_interval(secs => $5::float8), statement_timestamp())) AS time) AS suspended
WHERE s.tenant_id = $1 AND s.campaign_id = $2
  AND ((s.number = ANY ($3::int[])) <> upper_inf(s.closed) OR s.closed && suspended.time);

-- name: any_was_closed
SELECT EXISTS (SELECT FROM ota_campaign_segments WHERE tenant_id = $1 AND campaign_id = $2 AND closed <> '{}');

-- name: reopened
SELECT number FROM ota_campaign_segments WHERE tenant_id = $1 AND campaign_id = $2 AND reopened ORDER BY number;

-- name: hold
-- Hold up to $6 devices that are due and whose segment ($3) is closed: it opens in so many seconds ($4; NULL: unknown). They are
-- due again then, or at the latest after $7 ($8) seconds, by the same rule as retry.hold (a test compares the two). A device that works
-- on its command has the progress timeout ($5 seconds) after that. The time for which its segment has been closed counts as suspended.
WITH closed AS (
    SELECT segment, opens_in IS NOT NULL AND opens_in <= $7 AS opens_soon, LEAST(COALESCE(opens_in, $8), $7) AS wait
    FROM unnest($3::int[], $4::float8[]) AS c (segment, opens_in)
), due AS (
    SELECT ctid AS place, campaign_id, device_id, segment, GREATEST(stood_until, started_at) AS stood_from, started_at,
           status <> 'PENDING' AND attempt = sent_attempt AND failed_attempt < attempt AS works
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND due_at <= statement_timestamp()
      AND (completed_at IS NULL OR status = 'PENDING')
      AND segment = ANY ($3::int[])
    ORDER BY due_at NULLS FIRST
    LIMIT $6
    FOR UPDATE SKIP LOCKED
), standing AS MATERIALIZED (
    SELECT due.*, CASE WHEN started_at IS NULL THEN 0 ELSE COALESCE((
               SELECT sum(EXTRACT(epoch FROM upper(u.r) - lower(u.r)))
               FROM unnest(s.closed * tstzmultirange(tstzrange(LEAST(stood_from, statement_timestamp()), statement_timestamp())))
                   AS u (r)), 0) END::float8 AS stood
    FROM due
    CROSS JOIN LATERAL (SELECT closed FROM ota_campaign_segments
                        WHERE tenant_id = $1 AND campaign_id = $2 AND number = due.segment LIMIT 1) AS s
), held AS (
    UPDATE ota_device_status d
    SET due_at = held_until.time, held_due_at = held_until.time,
        suspended_before = d.suspended_before - standing.stood, stood_until = statement_timestamp()
    FROM standing, closed, LATERAL (
        SELECT statement_timestamp() + make_interval(secs => closed.wait + CASE
            WHEN closed.opens_soon AND standing.works THEN $5::float8 ELSE 0 END) AS time
    ) AS held_until
    WHERE d.tenant_id = $1 AND d.ctid = standing.place
      AND d.campaign_id = standing.campaign_id AND d.device_id = standing.device_id AND closed.segment = d.segment
    RETURNING d.device_id
)
SELECT count(*)::int FROM held;

-- name: give_time
-- Up to $6 devices that are due now or soon (the statement that judges them is a later one), and whose segment was closed meanwhile, have
-- the progress timeout ($3 seconds) from its opening on. The time for which it was closed counts as suspended, so that their device
-- timeout ($4 seconds, including all suspensions of the campaign) is not over before either. A deadline is the answer timeout ($5)
-- from the command, or the progress timeout from a report. One that the device timeout had cut short begins anew.
WITH due AS (
    SELECT d.ctid AS place, d.campaign_id, d.device_id, GREATEST(d.stood_until, d.started_at) AS stood_from, d.started_at, s.closed,
           d.status <> 'PENDING' AND d.attempt = d.sent_attempt AND d.failed_attempt < d.attempt AS works,
           d.started_at + make_interval(secs => $4 - d.suspended_before) AS last_moment,
           CASE WHEN d.heard_attempt = d.attempt THEN $3::float8 ELSE $5::float8 END AS deadline
    FROM ota_device_status d
    CROSS JOIN LATERAL (
        SELECT closed FROM ota_campaign_segments
        WHERE tenant_id = $1 AND campaign_id = $2 AND number = d.segment AND closed <> '{}' AND NOT upper_inf(closed)
        LIMIT 1
    ) AS s
    WHERE d.tenant_id = $1 AND d.campaign_id = $2
      AND (d.status IN ('DOWNLOADING', 'INSTALLING') OR (d.status = 'PENDING' AND d.attempt > 0))
      AND d.due_at <= statement_timestamp() + interval '10 seconds'
      AND (d.completed_at IS NULL OR d.status = 'PENDING')
      AND GREATEST(d.stood_until, d.started_at) < upper(s.closed) AND d.started_at IS NOT NULL
    ORDER BY d.due_at NULLS FIRST
    LIMIT $6
    FOR UPDATE OF d SKIP LOCKED
), standing AS MATERIALIZED (
    SELECT *, CASE WHEN started_at IS NULL THEN 0 ELSE COALESCE((
               SELECT sum(EXTRACT(epoch FROM upper(u.r) - lower(u.r)))
               FROM unnest(s.closed * tstzmultirange(tstzrange(LEAST(stood_from, statement_timestamp()), statement_timestamp())))
                   AS u (r)), 0) END::float8 AS stood, upper(closed) + make_interval(secs => $3) AS until FROM due AS s
), given AS (
    UPDATE ota_device_status d
    SET due_at = CASE WHEN NOT x.works THEN d.due_at
                      WHEN x.stood > 0 AND d.due_at >= x.last_moment - interval '1 second'
                      THEN GREATEST(d.due_at, LEAST(statement_timestamp() + make_interval(secs => $3),
                                                    x.last_moment + make_interval(secs => x.stood)), x.until)
                      WHEN d.due_at < upper(x.closed) + make_interval(secs => x.deadline) THEN GREATEST(d.due_at, x.until)
                      ELSE d.due_at END,
        suspended_before = d.suspended_before - x.stood - GREATEST(0, EXTRACT(
            epoch FROM x.until - x.last_moment - make_interval(secs => x.stood)))::float8,
        stood_until = statement_timestamp()
    FROM standing x
    WHERE d.tenant_id = $1 AND d.ctid = x.place AND d.campaign_id = x.campaign_id AND d.device_id = x.device_id
    RETURNING d.device_id
)
SELECT count(*)::int FROM given;

-- name: make_due
-- Up to $5 devices that were held while their segment ($3) was closed, and that are due later than its opening asks for: those that
-- wait for another attempt are due now, those that work on their command have the progress timeout ($4 seconds) from now on.
WITH held AS (
    SELECT d.ctid AS place, d.campaign_id, d.device_id,
           statement_timestamp() + make_interval(secs => CASE
               WHEN d.status <> 'PENDING' AND d.attempt = d.sent_attempt AND d.failed_attempt < d.attempt
               THEN $4::float8 ELSE 0 END) AS due_at
    FROM ota_device_status d
    WHERE d.tenant_id = $1 AND d.campaign_id = $2
      AND (d.status IN ('DOWNLOADING', 'INSTALLING') OR (d.status = 'PENDING' AND d.attempt > 0))
      AND d.due_at > statement_timestamp() AND (d.completed_at IS NULL OR d.status = 'PENDING')
      AND d.due_at = d.held_due_at AND d.segment = ANY ($3::int[])
      AND d.due_at > statement_timestamp() + make_interval(secs => CASE
               WHEN d.status <> 'PENDING' AND d.attempt = d.sent_attempt AND d.failed_attempt < d.attempt
               THEN $4::float8 ELSE 0 END)
    ORDER BY d.due_at
    LIMIT $5
    FOR UPDATE OF d SKIP LOCKED
), due AS (
    UPDATE ota_device_status d SET due_at = held.due_at
    FROM held
    WHERE d.tenant_id = $1 AND d.ctid = held.place AND d.campaign_id = held.campaign_id AND d.device_id = held.device_id
    RETURNING d.device_id
)
SELECT count(*)::int FROM due;

-- name: all_due
-- The devices that were held in the segments $3 are due now.
UPDATE ota_campaign_segments SET reopened = false
WHERE tenant_id = $1 AND campaign_id = $2 AND number = ANY ($3::int[]) AND reopened;
