-- What a host began is taken over without harm, and what a host ends or deletes leaves nothing behind.

SET LOCAL lock_timeout = '500ms'; -- sooner than PostgreSQL takes to find that two wait in a ring: then this one gives way

-- Campaigns that a host had aborted before its tables were adopted are its past: their rows stay as they are. Those that
-- the engine has touched since are not. Where the host forces row-level security, it is let be for this statement.
DO $$
DECLARE
    forced boolean;
BEGIN
    IF EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'ota_campaigns') THEN
        forced := (SELECT relforcerowsecurity FROM pg_class WHERE oid = 'ota_campaigns'::regclass);
        IF forced THEN
            ALTER TABLE ota_campaigns NO FORCE ROW LEVEL SECURITY;
        END IF;
        UPDATE ota_campaigns c SET settled_at = now()
        WHERE c.status = 'ABORTED' AND c.settled_at IS NULL
          AND c.command IS NULL AND c.active_at IS NULL AND c.reconciled_at IS NULL AND c.pending IS NULL;
        IF forced THEN
            ALTER TABLE ota_campaigns FORCE ROW LEVEL SECURITY;
        END IF;
    END IF;
END $$;

-- Workers are told of campaigns too that a host's SQL has ended while the engine ran them: their counters are compared with
-- their rows once more. A worker of an older version asks rollwave_due_campaigns_2, and is not.
DROP INDEX ota_campaigns_due;
CREATE INDEX ota_campaigns_due
    ON ota_campaigns (tenant_id, id)
    WHERE status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL)
          OR (status = 'CREATED' AND targeted_devices IS NOT NULL)
          OR (status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND settled_at IS NULL
              AND (pending > 0 OR downloading > 0 OR installing > 0));

ALTER POLICY rollwave_due ON ota_campaigns
    USING (status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL)
           OR (status = 'CREATED' AND targeted_devices IS NOT NULL)
           OR (status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND settled_at IS NULL
               AND (pending > 0 OR downloading > 0 OR installing > 0)));
GRANT SELECT (pending, downloading, installing) ON ota_campaigns TO rollwave_due;

-- Their owner makes the function, with leave to create in the schema for just as long as it takes.
DO $$
BEGIN
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO rollwave_due', current_schema());
END $$;
SET LOCAL ROLE rollwave_due;
CREATE FUNCTION rollwave_due_campaigns_3()
RETURNS TABLE (tenant_id text, campaign_id bigint, status text)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT c.tenant_id::text, c.id::bigint, c.status::text
    FROM ota_campaigns c
    WHERE c.status IN ('RUNNING', 'PAUSED') OR (c.status = 'ABORTED' AND c.settled_at IS NULL)
          OR (c.status = 'CREATED' AND c.targeted_devices IS NOT NULL)
          OR (c.status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND c.settled_at IS NULL
              AND (c.pending > 0 OR c.downloading > 0 OR c.installing > 0))
    ORDER BY c.tenant_id, c.id;
END;
REVOKE ALL ON FUNCTION rollwave_due_campaigns_3() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollwave_due_campaigns_3() TO pulse_app;
RESET ROLE;
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM rollwave_due', current_schema());
END $$;

-- As before (0013), but for a device that a host's earlier worker left in progress: its whole time begins now, and what
-- has completed_at takes no report any more.
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
                                                  ELSE c.suspended_for - t.suspended_before END) AS last_moment,
               t.suspended_before, d.completed_at
        INTO held
        FROM ota_device_status d
        JOIN ota_campaigns c ON c.tenant_id = r.tenant AND c.id = r.campaign
        CROSS JOIN LATERAL (
            SELECT CASE WHEN d.due_at IS NULL AND d.status IN ('DOWNLOADING', 'INSTALLING')
                        THEN c.suspended_for
                             + CASE WHEN c.active_since IS NULL AND c.active_at IS NOT NULL
                                    THEN GREATEST(0, EXTRACT(epoch FROM moment - c.active_at))::float8 ELSE 0 END
                             - CASE WHEN isfinite(d.started_at)
                                    THEN EXTRACT(epoch FROM moment - d.started_at)::float8 ELSE 0 END
                        WHEN d.started_at IS NULL THEN c.suspended_for
                        ELSE d.suspended_before END AS suspended_before
        ) AS t
        WHERE d.tenant_id = r.tenant AND d.campaign_id = r.campaign AND d.device_id = r.device
        FOR UPDATE OF d;

        number := r.number;
        was := held.status;
        attempt := held.attempt;
        patience := EXTRACT(epoch FROM held.patience);
        became := CASE
            WHEN r.rank > 0 AND r.status <> 'FAILED'
                AND (held.attempt > 0 OR held.status <> 'PENDING')
                AND (held.completed_at IS NULL OR held.status = 'PENDING')
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

-- Whoever deletes a tenant or a campaign deletes what is kept of it. Between our own tables, foreign keys do that. A table
-- that has rows keeps what PostgreSQL has not checked anew (NOT VALID): to read it all would hold up who writes.
DO $$
DECLARE
    foreign_key record;
    replaced record;
    has_rows boolean;
BEGIN
    FOR foreign_key IN
        SELECT * FROM (VALUES
            ('devices', 'tenant_id', 'tenants', 'tenant_id'),
            ('device_groups', 'tenant_id', 'tenants', 'tenant_id'),
            ('device_group_members', 'tenant_id, group_id', 'device_groups', 'tenant_id, group_id'),
            ('device_group_members', 'tenant_id, device_id', 'devices', 'tenant_id, device_id'),
            ('firmware_versions', 'tenant_id', 'tenants', 'tenant_id'),
            ('ota_campaigns', 'tenant_id', 'tenants', 'tenant_id'),
            ('ota_device_status', 'tenant_id, campaign_id', 'ota_campaigns', 'tenant_id, id'),
            ('ota_campaign_waves', 'tenant_id, campaign_id', 'ota_campaigns', 'tenant_id, id'),
            ('ota_campaign_history', 'tenant_id, campaign_id', 'ota_campaigns', 'tenant_id, id'),
            ('ota_quarantine', 'tenant_id', 'tenants', 'tenant_id'),
            ('rollwave_api_keys', 'tenant_id', 'tenants', 'tenant_id'),
            ('rollwave_group_imports', 'tenant_id', 'tenants', 'tenant_id')
        ) AS w (of_table, columns, to_table, to_columns)
        -- As in 0003, none leads from a host's table to one of ours or back: a table that is referenced cannot be truncated.
        WHERE NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name IN (w.of_table, w.to_table))
    LOOP
        FOR replaced IN
            SELECT c.conname FROM pg_constraint c
            WHERE c.contype = 'f' AND c.conrelid = foreign_key.of_table::regclass
              AND c.confrelid = foreign_key.to_table::regclass
              AND (SELECT string_agg(a.attname, ', ' ORDER BY k.place)
                   FROM unnest(c.conkey) WITH ORDINALITY AS k (number, place)
                   JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.number) = foreign_key.columns
        LOOP
            EXECUTE format('ALTER TABLE %I DROP CONSTRAINT %I', foreign_key.of_table, replaced.conname);
        END LOOP;
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', foreign_key.of_table) INTO has_rows;
        EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (%s) REFERENCES %I (%s) ON DELETE CASCADE %s',
                       foreign_key.of_table, foreign_key.columns, foreign_key.to_table, foreign_key.to_columns,
                       CASE WHEN has_rows THEN 'NOT VALID' ELSE '' END);
    END LOOP;
END $$;
CREATE INDEX IF NOT EXISTS rollwave_idempotency_campaign ON rollwave_idempotency (tenant_id, campaign_id);

-- Where a host made the table, triggers do it. They work as the owner of our tables, whom row-level security confines to
-- a tenant too, and name again what the session had named. Who deletes needs no right on our tables.
-- Since they work as the owner, they name every table with its schema, and look for functions and operators in pg_catalog
-- alone: what the caller has made in a schema or as a temporary table is not taken for ours. A trigger on any other table
-- is refused.
DO $do$
BEGIN
    EXECUTE format($create$
CREATE OR REPLACE FUNCTION %1$I.rollwave_forget_campaign() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    named text := COALESCE(current_setting('app.tenant_id', true), '');
    gone text;
    campaign bigint;
BEGIN
    IF COALESCE(pg_partition_root(TG_RELID), TG_RELID) <> '%1$I.ota_campaigns'::regclass THEN
        RAISE EXCEPTION 'this trigger is for %%, not for %%', 'ota_campaigns', TG_RELID::regclass;
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE (
            SELECT 'TRUNCATE ' || string_agg(format('%%I.%%I', %1$L, ours), ', ')
            FROM unnest(ARRAY['ota_device_status', 'ota_campaign_waves', 'ota_campaign_history',
                              'rollwave_idempotency']) AS ours
            WHERE ours NOT IN (SELECT table_name FROM %1$I.rollwave_adopted_tables));
        RETURN NULL;
    END IF;
    gone := OLD.tenant_id;
    campaign := OLD.id;
    PERFORM set_config('app.tenant_id', gone, true);
    IF NOT EXISTS (SELECT FROM %1$I.rollwave_adopted_tables WHERE table_name = 'ota_device_status') THEN
        DELETE FROM %1$I.ota_device_status WHERE tenant_id = gone AND campaign_id = campaign;
    END IF;
    DELETE FROM %1$I.ota_campaign_waves WHERE tenant_id = gone AND campaign_id = campaign;
    DELETE FROM %1$I.ota_campaign_history WHERE tenant_id = gone AND campaign_id = campaign;
    DELETE FROM %1$I.rollwave_idempotency WHERE tenant_id = gone AND campaign_id = campaign;
    PERFORM set_config('app.tenant_id', named, true);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION %1$I.rollwave_forget_tenant() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    named text := COALESCE(current_setting('app.tenant_id', true), '');
    gone text;
    -- In this order: campaigns refer to firmware.
    ours text[] := ARRAY(
        SELECT o.name
        FROM unnest(ARRAY['ota_device_status', 'ota_campaign_waves', 'ota_campaign_history', 'rollwave_idempotency',
                          'ota_campaigns', 'firmware_versions', 'device_group_members', 'device_groups', 'devices',
                          'ota_quarantine', 'rollwave_api_keys', 'rollwave_group_import_devices',
                          'rollwave_group_imports']) WITH ORDINALITY AS o (name, place)
        WHERE o.name NOT IN (SELECT table_name FROM %1$I.rollwave_adopted_tables)
        ORDER BY o.place);
    of_table text;
BEGIN
    IF COALESCE(pg_partition_root(TG_RELID), TG_RELID) <> '%1$I.tenants'::regclass THEN
        RAISE EXCEPTION 'this trigger is for %%, not for %%', 'tenants', TG_RELID::regclass;
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(format('%%I.%%I', %1$L, name), ', ') FROM unnest(ours) AS name);
        RETURN NULL;
    END IF;
    gone := OLD.tenant_id;
    PERFORM set_config('app.tenant_id', gone, true);
    -- A host may have a tenant in several rows.
    IF NOT EXISTS (SELECT FROM %1$I.tenants WHERE tenant_id = OLD.tenant_id) THEN
        FOREACH of_table IN ARRAY ours LOOP
            EXECUTE format('DELETE FROM %%I.%%I WHERE tenant_id = $1', %1$L, of_table) USING gone;
        END LOOP;
    END IF;
    PERFORM set_config('app.tenant_id', named, true);
    RETURN NULL;
END $$;

-- The devices of an import go with it by a trigger too: a foreign key, checked for each of a million devices, would take
-- nearly as long as the import.
CREATE OR REPLACE FUNCTION %1$I.rollwave_forget_import() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    named text := COALESCE(current_setting('app.tenant_id', true), '');
BEGIN
    IF TG_RELID <> '%1$I.rollwave_group_imports'::regclass THEN
        RAISE EXCEPTION 'this trigger is for %%, not for %%', 'rollwave_group_imports', TG_RELID::regclass;
    END IF;
    PERFORM set_config('app.tenant_id', OLD.tenant_id, true);
    DELETE FROM %1$I.rollwave_group_import_devices WHERE tenant_id = OLD.tenant_id AND import_id = OLD.id;
    PERFORM set_config('app.tenant_id', named, true);
    RETURN NULL;
END $$;

REVOKE ALL ON FUNCTION %1$I.rollwave_forget_campaign(), %1$I.rollwave_forget_tenant(), %1$I.rollwave_forget_import()
FROM PUBLIC;
    $create$, current_schema());
END $do$;
CREATE OR REPLACE TRIGGER rollwave_forget_import AFTER DELETE ON rollwave_group_imports
    FOR EACH ROW EXECUTE FUNCTION rollwave_forget_import();
DO $$
DECLARE
    forgets record;
BEGIN
    FOR forgets IN
        SELECT w.* FROM (VALUES ('tenants', 'rollwave_forget_tenant'), ('ota_campaigns', 'rollwave_forget_campaign'))
            AS w (of_table, name)
        JOIN rollwave_adopted_tables a ON a.table_name = w.of_table
    LOOP
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER DELETE ON %I FOR EACH ROW EXECUTE FUNCTION %I()',
                       forgets.name, forgets.of_table, forgets.name);
        EXECUTE format('CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %I FOR EACH STATEMENT EXECUTE FUNCTION %I()',
                       forgets.name || 's', forgets.of_table, forgets.name);
    END LOOP;
EXCEPTION WHEN feature_not_supported THEN
    RAISE NOTICE 'what is kept of tenants and campaigns that are deleted stays: %', SQLERRM; -- distributed tables
END $$;

-- What is left of tenants and campaigns that were deleted before. Not where row-level security hides those that are there.
DO $$
DECLARE
    kept record;
BEGIN
    FOR kept IN
        SELECT * FROM (VALUES
            ('ota_campaign_waves', 'ota_campaigns', 'k.tenant_id = t.tenant_id AND k.campaign_id = t.id'),
            ('ota_campaign_history', 'ota_campaigns', 'k.tenant_id = t.tenant_id AND k.campaign_id = t.id'),
            ('rollwave_idempotency', 'ota_campaigns', 'k.tenant_id = t.tenant_id AND k.campaign_id = t.id'),
            ('ota_quarantine', 'tenants', 'k.tenant_id = t.tenant_id'),
            ('rollwave_api_keys', 'tenants', 'k.tenant_id = t.tenant_id'),
            ('rollwave_group_imports', 'tenants', 'k.tenant_id = t.tenant_id'),
            ('rollwave_group_import_devices', 'tenants', 'k.tenant_id = t.tenant_id')
        ) AS w (of_table, to_table, condition)
        WHERE NOT row_security_active(w.to_table)
    LOOP
        EXECUTE format('ALTER TABLE %I NO FORCE ROW LEVEL SECURITY', kept.of_table);
        EXECUTE format('DELETE FROM %I k WHERE NOT EXISTS (SELECT FROM %I t WHERE %s)',
                       kept.of_table, kept.to_table, kept.condition);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', kept.of_table);
    END LOOP;
END $$;
