-- The second part of 0009. Each table in a transaction of its own: reports lock executions first, and claims the campaign.

ALTER TABLE ota_device_status
    ADD COLUMN IF NOT EXISTS suspended_before double precision NOT NULL DEFAULT 0; -- its campaign's, when it was started

-- As before (0007), but for the time that a device has in all.
CREATE OR REPLACE FUNCTION rollwave_apply_reports(
    tenants text[], campaigns bigint[], devices text[], statuses text[], progresses integer[], errors text[],
    attempts integer[], default_patience float8, default_in_all float8
)
RETURNS TABLE (number integer, was text, became text, attempt integer, patience float8)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    r record;
    held record;
    named text := '';
    moment timestamptz := statement_timestamp();
BEGIN
    FOR r IN
        SELECT u.*, ota_status_rank(u.status) AS rank
        FROM unnest(tenants, campaigns, devices, statuses, progresses, errors, attempts)
            WITH ORDINALITY AS u (tenant, campaign, device, status, progress, error, attempt, number)
        ORDER BY u.tenant, u.campaign, u.device COLLATE "C"
    LOOP
        IF r.tenant <> named THEN
            PERFORM set_config('app.tenant_id', r.tenant, true);
            named := r.tenant;
        END IF;
        SELECT d.status, d.progress_pct, d.error_message, d.attempt, d.failed_attempt, d.failed_reason, d.started_at,
               d.due_at, ota_status_rank(d.status) AS rank,
               make_interval(secs => CASE WHEN c.progress_timeout > 0 AND c.progress_timeout < 1e9
                                          THEN c.progress_timeout ELSE default_patience END) AS patience,
               COALESCE(d.started_at, moment)
                   + make_interval(secs => CASE WHEN c.device_timeout > 0 AND c.device_timeout < 1e9
                                                THEN c.device_timeout ELSE default_in_all END
                                           + CASE WHEN d.started_at IS NULL THEN 0
                                                  ELSE c.suspended_for - d.suspended_before END) AS last_moment,
               CASE WHEN d.started_at IS NULL THEN c.suspended_for ELSE d.suspended_before END AS suspended_before
        INTO held
        FROM ota_device_status d
        JOIN ota_campaigns c ON c.tenant_id = r.tenant AND c.id = r.campaign
        WHERE d.tenant_id = r.tenant AND d.campaign_id = r.campaign AND d.device_id = r.device
        FOR UPDATE OF d;

        number := r.number;
        was := held.status;
        attempt := held.attempt;
        patience := EXTRACT(epoch FROM held.patience);
        became := CASE
            WHEN r.rank > 0 AND r.status <> 'FAILED'
                AND (held.attempt > 0 OR held.status <> 'PENDING')
                AND (r.attempt IS NULL OR r.attempt = held.attempt)
                AND NOT (held.failed_attempt = held.attempt
                         AND COALESCE(held.failed_reason, '') IN ('reported', 'rejected'))
                AND (held.rank < r.rank
                     OR held.status = r.status AND held.rank < 3
                        AND (r.progress > held.progress_pct
                             OR held.failed_attempt = held.attempt
                             OR held.due_at < LEAST(moment + held.patience, held.last_moment)))
            THEN r.status END;
        IF became IS NOT NULL THEN
            UPDATE ota_device_status d
            SET status = became,
                progress_pct = CASE WHEN was = became THEN GREATEST(r.progress, held.progress_pct)
                                    ELSE COALESCE(r.progress, held.progress_pct) END,
                error_message = CASE WHEN became = 'SUCCESS' THEN NULL
                                     ELSE COALESCE(r.error, held.error_message) END,
                attempt = GREATEST(held.attempt, 1),
                sent_attempt = GREATEST(held.attempt, 1),
                heard_attempt = GREATEST(held.attempt, 1),
                failed_attempt = 0,
                failed_reason = NULL,
                started_at = COALESCE(held.started_at, moment),
                suspended_before = held.suspended_before,
                completed_at = CASE WHEN r.rank = 3 THEN moment END,
                due_at = CASE WHEN r.rank < 3 THEN LEAST(moment + held.patience * 1.1, held.last_moment) END
            WHERE d.tenant_id = r.tenant AND d.campaign_id = r.campaign AND d.device_id = r.device;
        END IF;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config('app.tenant_id', '', true);
END $$;
