-- As before (0007), but a threshold in a host's column of type real or numeric is the number that was written: 0.7, which
-- as a real is 0.699999988, and would abort a campaign of which 7 in 10 devices failed.
CREATE OR REPLACE FUNCTION rollwave_count(
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
        RETURNING c.tenant_id, c.id, c.status, c.succeeded, c.failed, c.sent, c.abort_threshold::text,
                  c.abort_min_completed
        INTO tenant, id, status, succeeded, failed, sent, abort_threshold, abort_min_completed;
        IF FOUND THEN
            RETURN NEXT;
        END IF;
    END LOOP;
    PERFORM set_config('app.tenant_id', '', true);
END $$;
