-- Campaigns under a policy document, their waves and segments.

-- A campaign without a revision follows the flat columns of its row.
ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS policy_revision integer,          -- the document in force; NULL: the flat columns
    ADD COLUMN IF NOT EXISTS placed_revision integer,          -- the one by which its devices are placed; NULL: by none
    ADD COLUMN IF NOT EXISTS placement jsonb,                  -- how far its devices are placed by the document; NULL: all are
    ADD COLUMN IF NOT EXISTS segment_turn integer NOT NULL DEFAULT 0,         -- the last segment that a claim took from
    ADD COLUMN IF NOT EXISTS pace_carried double precision NOT NULL DEFAULT 0, -- devices that the pace allowed before and nobody took
    ADD COLUMN IF NOT EXISTS pace_claims double precision[]; -- claims of the last tick: epoch seconds, devices, and so on; NULL: none

-- Where a device stands in its campaign's queue. Flat columns: segment 0 and position 0, so that the lowest id goes first.
-- With a document, segments begin at 1, and position is (number of the wave + 1) * 2^44 + the place by the policy's order;
-- segment 0 then means: not placed yet.
ALTER TABLE ota_device_status
    ADD COLUMN IF NOT EXISTS segment integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS position bigint NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS dispatch_number integer,  -- of the first command among the campaign's, from 1; NULL: flat, or not sent to
    ADD COLUMN IF NOT EXISTS error_code text,          -- of the last failed attempt, as the device reported it
    ADD COLUMN IF NOT EXISTS stood_until timestamptz,  -- what its segment was closed up to then is in suspended_before; NULL: nothing
    ADD COLUMN IF NOT EXISTS held_due_at timestamptz;  -- the due_at with which a closed segment holds it; another due_at: it is not held

DROP INDEX IF EXISTS ota_device_status_waiting;
CREATE INDEX ota_device_status_waiting
    ON ota_device_status (tenant_id, campaign_id, segment, position, id)
    WHERE status = 'PENDING' AND attempt = 0;

-- Every document that a campaign has followed. A row never changes, except that the engine writes what follows reason.
CREATE TABLE ota_campaign_policies (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    revision integer NOT NULL CHECK (revision >= 1),
    document jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    created_by text,
    reason text,
    progress_timeout double precision, -- seconds, as the document has them; NULL: the process's setting
    answer_timeout double precision,
    device_timeout double precision,
    max_attempts integer,
    retry_on text[],
    PRIMARY KEY (tenant_id, campaign_id, revision)
);

-- Policies that a tenant has stored under a name.
CREATE TABLE rollwave_policies (
    tenant_id text NOT NULL,
    name text NOT NULL,
    document jsonb NOT NULL,
    changed_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    changed_by text,
    PRIMARY KEY (tenant_id, name)
);

-- Devices with the same values of the labels that windows and guardrails mention. One without labels is the whole campaign.
CREATE TABLE ota_campaign_segments (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    number integer NOT NULL CHECK (number >= 1),
    labels jsonb NOT NULL,           -- key to value; null: the devices do not have the label
    time_zone text,                  -- theirs, if a window asks for it
    quarantined_at timestamptz,
    quarantined_because text,
    closed tstzmultirange NOT NULL DEFAULT '{}', -- when its devices could not be sent to again; without an end while that lasts
    reopened boolean NOT NULL DEFAULT false,     -- it is open again, and devices that it held are to be made due
    PRIMARY KEY (tenant_id, campaign_id, number),
    UNIQUE (tenant_id, campaign_id, labels)
);

-- Every claim, and every look whether commands may still be sent, asks for those under quarantine.
CREATE INDEX ota_campaign_segments_quarantined ON ota_campaign_segments (tenant_id, campaign_id, number)
    WHERE quarantined_at IS NOT NULL;

-- How many devices of each wave and segment are in which state. Changes with their rows, under the campaign's lock.
CREATE TABLE ota_campaign_cells (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    wave integer NOT NULL,
    segment integer NOT NULL,
    waiting integer NOT NULL DEFAULT 0,    -- never sent to
    in_flight integer NOT NULL DEFAULT 0,  -- claimed and not terminal
    succeeded integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    skipped integer NOT NULL DEFAULT 0,    -- after they were placed
    PRIMARY KEY (tenant_id, campaign_id, wave, segment)
) WITH (fillfactor = 50);

-- The order of the values of the label that orders a queue, while devices are placed.
CREATE TABLE ota_campaign_ranks (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    value text NOT NULL,
    rank bigint NOT NULL,
    PRIMARY KEY (tenant_id, campaign_id, value)
);

-- What a wave of a document is about. Waves of flat columns have up_to instead.
ALTER TABLE ota_campaign_waves
    ADD COLUMN name text,
    ADD COLUMN size integer,                     -- devices placed in it; NULL: not placed yet
    ADD COLUMN matched integer,                  -- devices that its selector fits; NULL: it has none
    ADD COLUMN state text,                       -- waiting, open, soaking, awaiting_approval, passed, failed
    ADD COLUMN since timestamptz,                -- of that state
    ADD COLUMN soak_from timestamptz,            -- when the soak began; NULL: its conditions do not hold
    ADD COLUMN soak_failed integer,              -- counted failures of the devices sent so far when it began
    ADD COLUMN promoted_at timestamptz,          -- a person opened its gate
    ADD COLUMN promoted_by text;

DO $$
DECLARE
    of_table text;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['ota_campaign_policies', 'rollwave_policies', 'ota_campaign_segments', 'ota_campaign_cells',
                                   'ota_campaign_ranks'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
        -- They go with their campaign or tenant by a foreign key, or where a host made the table by the triggers below.
        IF of_table LIKE 'ota\_campaign\_%'
           AND NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'ota_campaigns') THEN
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (tenant_id, campaign_id) REFERENCES ota_campaigns (tenant_id, id)
                            ON DELETE CASCADE', of_table);
        END IF;
        IF of_table LIKE 'rollwave\_%'
           AND NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'tenants') THEN
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE', of_table);
        END IF;
    END LOOP;
END $$;

-- Workers of an older version do not know documents: to them such a campaign is not due.
DO $$
BEGIN
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO rollwave_due', current_schema());
END $$;
GRANT SELECT (policy_revision) ON ota_campaigns TO rollwave_due;
SET LOCAL ROLE rollwave_due;
CREATE OR REPLACE FUNCTION rollwave_due_campaigns_3()
RETURNS TABLE (tenant_id text, campaign_id bigint, status text)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT c.tenant_id::text, c.id::bigint, c.status::text
    FROM ota_campaigns c
    WHERE c.policy_revision IS NULL
      AND (c.status IN ('RUNNING', 'PAUSED') OR (c.status = 'ABORTED' AND c.settled_at IS NULL)
           OR (c.status = 'CREATED' AND c.targeted_devices IS NOT NULL)
           OR (c.status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND c.settled_at IS NULL
               AND (c.pending > 0 OR c.downloading > 0 OR c.installing > 0)))
    ORDER BY c.tenant_id, c.id;
END;
CREATE FUNCTION rollwave_due_campaigns_4()
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
REVOKE ALL ON FUNCTION rollwave_due_campaigns_4() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollwave_due_campaigns_4() TO pulse_app;
RESET ROLE;
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM rollwave_due', current_schema());
END $$;

-- A listener writes this time with each beat of its slot, alive_at. One of an older version does not: it would judge reports by the
-- flat columns, so while a slot has such a listener, nothing is sent for documents.
ALTER TABLE rollwave_listener_slots ADD COLUMN documents_at timestamptz;

-- The functions of the triggers as in 0015 and 0019, but they find our tables by name and columns: a later migration that adds
-- one need not replace them.
DO $do$
BEGIN
    EXECUTE format($create$
CREATE OR REPLACE FUNCTION %1$I.rollwave_forget_campaign() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    named text := COALESCE(current_setting('app.tenant_id', true), '');
    gone text;
    campaign bigint;
    ours text[] := ARRAY(
        SELECT c.relname::text
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'campaign_id' AND NOT a.attisdropped
        WHERE c.relnamespace = %1$L::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND (c.relname LIKE 'ota\_campaign\_%%' OR c.relname IN ('ota_device_status', 'rollwave_idempotency'))
          AND c.relname NOT IN (SELECT table_name FROM %1$I.rollwave_adopted_tables)
        ORDER BY c.relname);
    of_table text;
BEGIN
    IF COALESCE(pg_partition_root(TG_RELID), TG_RELID) <> '%1$I.ota_campaigns'::regclass THEN
        RAISE EXCEPTION 'this trigger is for %%, not for %%', 'ota_campaigns', TG_RELID::regclass;
    END IF;
    IF TG_OP = 'TRUNCATE' THEN
        EXECUTE (SELECT 'TRUNCATE ' || string_agg(format('%%I.%%I', %1$L, name), ', ') FROM unnest(ours) AS name);
        RETURN NULL;
    END IF;
    gone := OLD.tenant_id;
    campaign := OLD.id;
    PERFORM set_config('app.tenant_id', gone, true);
    FOREACH of_table IN ARRAY ours LOOP
        EXECUTE format('DELETE FROM %%I.%%I WHERE tenant_id = $1 AND campaign_id = $2', %1$L, of_table) USING gone, campaign;
    END LOOP;
    PERFORM set_config('app.tenant_id', named, true);
    RETURN NULL;
END $$;

CREATE OR REPLACE FUNCTION %1$I.rollwave_forget_tenant() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET row_security = on AS $$
DECLARE
    named text := COALESCE(current_setting('app.tenant_id', true), '');
    gone text;
    -- Tables of the engine alone first; then, in this order, those that refer to each other: campaigns refer to firmware.
    ours text[] := ARRAY(
        SELECT c.relname::text
        FROM pg_class c
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'tenant_id' AND NOT a.attisdropped
        LEFT JOIN unnest(ARRAY['ota_device_status', 'ota_campaigns', 'firmware_versions', 'device_group_members',
                               'device_groups', 'devices', 'rollwave_group_imports']) WITH ORDINALITY AS o (name, place)
            ON o.name = c.relname
        WHERE c.relnamespace = %1$L::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
          AND (o.name IS NOT NULL OR c.relname LIKE 'ota\_campaign\_%%' OR c.relname LIKE 'rollwave\_%%'
               OR c.relname = 'ota_quarantine')
          AND c.relname NOT IN (SELECT table_name FROM %1$I.rollwave_adopted_tables)
        ORDER BY COALESCE(o.place, 0), c.relname);
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
    $create$, current_schema());
END $do$;

-- As in 0015, but reports of campaigns under a document are answered as if there were no such execution: a transaction of their
-- tenant's own applies them.
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
        JOIN ota_campaigns c ON c.tenant_id = r.tenant AND c.id = r.campaign AND c.policy_revision IS NULL
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
