-- A few reports of each of many tenants, taken in by one transaction. Both functions name the tenant (app.tenant_id)
-- before they touch a row of its, run as whoever calls them, and name nobody when they return: every statement sees one
-- tenant's rows, as it would in a transaction of that tenant's own.

-- What executions.apply_reports does with reports that are no failures, one row at a time: hold it, decide, write it.
-- Rows are held in the order of tenant, campaign and device. One row comes back for each report: what the execution was
-- (NULL: no such execution for this tenant), and what it became (NULL: nothing changed).
CREATE FUNCTION rollwave_apply_reports(
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
                                                THEN c.device_timeout ELSE default_in_all END) AS last_moment
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
                completed_at = CASE WHEN r.rank = 3 THEN moment END,
                due_at = CASE WHEN r.rank < 3 THEN LEAST(moment + held.patience * 1.1, held.last_moment) END
            WHERE d.tenant_id = r.tenant AND d.campaign_id = r.campaign AND d.device_id = r.device;
        END IF;
        RETURN NEXT;
    END LOOP;
    PERFORM set_config('app.tenant_id', '', true);
END $$;

-- What campaigns.count does, for many tenants' campaigns, in the order of tenant and id.
CREATE FUNCTION rollwave_count(
    tenants text[], campaigns bigint[], more_pending integer[], more_downloading integer[], more_installing integer[],
    more_succeeded integer[], more_failed integer[], more_skipped integer[]
)
RETURNS TABLE (tenant text, id bigint, status text, succeeded integer, failed integer, sent integer,
               abort_threshold float8, abort_min_completed integer)
LANGUAGE plpgsql AS $$
#variable_conflict use_column
DECLARE
    t record;
    named text := '';
BEGIN
    FOR t IN
        SELECT u.*
        FROM unnest(tenants, campaigns, more_pending, more_downloading, more_installing, more_succeeded, more_failed,
                    more_skipped)
            AS u (tenant, campaign, pending, downloading, installing, succeeded, failed, skipped)
        ORDER BY u.tenant, u.campaign
    LOOP
        IF t.tenant <> named THEN
            PERFORM set_config('app.tenant_id', t.tenant, true);
            named := t.tenant;
        END IF;
        UPDATE ota_campaigns c
        SET succeeded = COALESCE(c.succeeded, 0) + t.succeeded, failed = COALESCE(c.failed, 0) + t.failed,
            pending = c.pending + t.pending, downloading = c.downloading + t.downloading,
            installing = c.installing + t.installing, skipped = c.skipped + t.skipped
        WHERE c.tenant_id = t.tenant AND c.id = t.campaign
        RETURNING c.tenant_id, c.id, c.status, c.succeeded, c.failed, c.sent, c.abort_threshold, c.abort_min_completed
        INTO tenant, id, status, succeeded, failed, sent, abort_threshold, abort_min_completed;
        IF FOUND THEN
            RETURN NEXT;
        END IF;
    END LOOP;
    PERFORM set_config('app.tenant_id', '', true);
END $$;

REVOKE ALL ON FUNCTION
    rollwave_apply_reports(text[], bigint[], text[], text[], integer[], text[], integer[], float8, float8),
    rollwave_count(text[], bigint[], integer[], integer[], integer[], integer[], integer[], integer[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    rollwave_apply_reports(text[], bigint[], text[], text[], integer[], text[], integer[], float8, float8),
    rollwave_count(text[], bigint[], integer[], integer[], integer[], integer[], integer[], integer[]) TO pulse_app;
