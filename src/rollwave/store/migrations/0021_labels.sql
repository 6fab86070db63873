-- Labels of devices: the registry's fields, a host's own view of its devices, and the order of versions.

-- An order for text, as Semantic Versioning has it: the same rule as domain/policy/selector/versions.py, as text that is compared
-- byte by byte. In the release, a word (!) comes before the end (#), and the end before a number (its digits, to 20 places).
CREATE FUNCTION rollwave_version_key(version text) RETURNS text
LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE AS $$
DECLARE
    release text := left(version, 200);
    extra text := '';
    dash integer;
    part text;
    key text := '';
BEGIN
    IF version IS NULL THEN
        RETURN NULL;
    END IF;
    IF release ~ '[^0-9.]' THEN
        release := regexp_replace(release, E'^[vV](?=[0-9])|\\+.*', '', 'g');
        dash := strpos(release, '-');
        IF dash > 0 THEN
            extra := substr(release, dash + 1);
            release := left(release, dash - 1);
        END IF;
        release := regexp_replace(release, E'[.\x01-\x20]+', '.', 'g');
    END IF;
    IF right(release, 1) = '0' THEN
        release := regexp_replace(release, E'(\\.+0+)+$', '');
    END IF;
    IF release ~ '[^0-9.]' THEN
        release := regexp_replace(release, '[^0-9.]+', E'.!\\&.', 'g');
    END IF;
    FOREACH part IN ARRAY string_to_array(release, '.') LOOP
        CONTINUE WHEN part = '';
        key := key || CASE left(part, 1) WHEN '!' THEN part
                                         ELSE lpad(ltrim(part, '0'), GREATEST(20, length(ltrim(part, '0'))), '0') END || E'\x01';
    END LOOP;
    key := key || '#';
    IF extra = '' THEN
        RETURN key || '2';
    END IF;
    extra := btrim(regexp_replace(extra, E'[.\x01-\x20]+', '.', 'g'), '.');
    IF extra = '' THEN
        RETURN key || '2';
    END IF;
    key := key || '1';
    FOREACH part IN ARRAY string_to_array(extra, '.') LOOP
        key := key || CASE WHEN part ~ '^[0-9]+$'
                           THEN E'\x02' || lpad(ltrim(part, '0'), GREATEST(20, length(ltrim(part, '0'))), '0')
                           ELSE part END || E'\x01';
    END LOOP;
    RETURN key;
END $$;

-- Fields of the registry that a host's table devices does not have, and what devices report about themselves.
CREATE TABLE rollwave_device_fields (
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    time_zone text,         -- an IANA name
    version text,           -- the last one given or reported, or updated to with success in a campaign that is stored here
    version_key text COLLATE "C",  -- rollwave_version_key(version); not generated, which would double the time of a report
    version_at timestamptz, -- when it was given or reported, or its device succeeded with it
    last_seen timestamptz,  -- of a report; the executions of campaigns that are not stored here may have a later one
    PRIMARY KEY (tenant_id, device_id)
) WITH (fillfactor = 80);
ALTER TABLE rollwave_device_fields ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'tenants') THEN
        ALTER TABLE rollwave_device_fields ADD FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE;
    END IF;
END $$;

-- What devices reported is stored here when their campaign has ended, not with each report. Until then it is read from executions.
ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS unstored_after text; -- of devices after this one it is not stored yet; NULL: of every device it is

-- Workers are also told of ended campaigns of which something is left to store.
DROP INDEX IF EXISTS ota_campaigns_due;
CREATE INDEX ota_campaigns_due
    ON ota_campaigns (tenant_id, id)
    WHERE status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL)
          OR (status = 'CREATED' AND targeted_devices IS NOT NULL)
          OR (status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND settled_at IS NULL
              AND (pending > 0 OR downloading > 0 OR installing > 0))
          OR (status NOT IN ('CREATED', 'RUNNING', 'PAUSED') AND unstored_after IS NOT NULL);
CREATE INDEX IF NOT EXISTS ota_campaigns_unstored ON ota_campaigns (tenant_id) WHERE unstored_after IS NOT NULL;

ALTER POLICY rollwave_due ON ota_campaigns
    USING (status IN ('RUNNING', 'PAUSED') OR (status = 'ABORTED' AND settled_at IS NULL)
           OR (status = 'CREATED' AND targeted_devices IS NOT NULL)
           OR (status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND settled_at IS NULL
               AND (pending > 0 OR downloading > 0 OR installing > 0))
           OR (status NOT IN ('CREATED', 'RUNNING', 'PAUSED') AND unstored_after IS NOT NULL));
GRANT SELECT (unstored_after) ON ota_campaigns TO rollwave_due;
DO $$
BEGIN
    EXECUTE format('GRANT CREATE ON SCHEMA %I TO rollwave_due', current_schema());
END $$;
SET LOCAL ROLE rollwave_due;
CREATE OR REPLACE FUNCTION rollwave_due_campaigns_4()
RETURNS TABLE (tenant_id text, campaign_id bigint, status text)
LANGUAGE sql STABLE SECURITY DEFINER
BEGIN ATOMIC
    SELECT c.tenant_id::text, c.id::bigint, c.status::text
    FROM ota_campaigns c
    WHERE c.status IN ('RUNNING', 'PAUSED') OR (c.status = 'ABORTED' AND c.settled_at IS NULL)
          OR (c.status = 'CREATED' AND c.targeted_devices IS NOT NULL)
          OR (c.status NOT IN ('CREATED', 'RUNNING', 'PAUSED', 'ABORTED') AND c.settled_at IS NULL
              AND (c.pending > 0 OR c.downloading > 0 OR c.installing > 0))
          OR (c.status NOT IN ('CREATED', 'RUNNING', 'PAUSED') AND c.unstored_after IS NOT NULL)
    ORDER BY c.tenant_id, c.id;
END;
RESET ROLE;
DO $$
BEGIN
    EXECUTE format('REVOKE CREATE ON SCHEMA %I FROM rollwave_due', current_schema());
END $$;

-- As in 0017, but a campaign in which a device ends has something to store.
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
            installing = c.installing + t.installing, skipped = c.skipped + t.skipped,
            unstored_after = CASE WHEN t.succeeded > 0 OR t.failed > 0 THEN '' ELSE c.unstored_after END
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

-- The functions below are read as part of the statement that calls them, so a condition on a device uses the keys' indexes.
-- They name the columns of a host's tables in text: the host may change the types of its columns.

-- Microseconds since 1970, which are compared and sorted with whole numbers. A host's clock may be ahead.
CREATE FUNCTION rollwave_microseconds(moment timestamptz) RETURNS bigint
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT (date_part('epoch', CASE WHEN moment > statement_timestamp() THEN statement_timestamp()
                                    WHEN isfinite(moment) THEN moment END) * 1e6)::bigint
$$;

-- When a device was heard at the latest, as its execution says; NULL: never. One that fell silent was heard after started_at; how long
-- after is not known.
CREATE FUNCTION rollwave_heard_at(
    status text, failed_reason text, heard_attempt integer, started_at timestamptz, completed_at timestamptz
)
RETURNS timestamptz
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN status = 'SUCCESS' OR status = 'FAILED' AND failed_reason IN ('reported', 'rejected') THEN completed_at
                WHEN heard_attempt > 0 THEN started_at END
$$;

-- The campaigns of a tenant of which something is left to store, which are few, with the versions of their firmware.
CREATE FUNCTION rollwave_unstored(tenant text)
RETURNS TABLE (ids bigint[], versions text[], version_keys text[])
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT array_agg(c.id::bigint ORDER BY c.id), array_agg(NULLIF(w.version::text, '') ORDER BY c.id),
           array_agg(rollwave_version_key(w.version::text) ORDER BY c.id)
    FROM ota_campaigns c
    LEFT JOIN firmware_versions w ON w.tenant_id = tenant AND w.id = c.firmware_version_id
    WHERE c.tenant_id = tenant AND c.unstored_after IS NOT NULL
$$;

-- What is left to store of a device, which is looked up by its key in each of these campaigns: the last success, as its time in
-- microseconds and the place of the campaign in rollwave_unstored, and when it was heard.
CREATE FUNCTION rollwave_heard(tenant text, device text)
RETURNS TABLE (success bigint[], heard_at timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT max(s.success), max(s.heard_at)
    FROM unnest((SELECT ids FROM rollwave_unstored(tenant)), (SELECT versions FROM rollwave_unstored(tenant)))
        WITH ORDINALITY AS u (id, version, place)
    CROSS JOIN LATERAL (
        SELECT CASE WHEN d.status = 'SUCCESS' AND u.version IS NOT NULL
                    THEN ARRAY[COALESCE(rollwave_microseconds(d.completed_at), 0), u.place] END AS success,
               rollwave_heard_at(d.status, d.failed_reason, d.heard_attempt, d.started_at, d.completed_at) AS heard_at
        FROM ota_device_status d
        WHERE d.tenant_id = tenant AND d.campaign_id = u.id AND d.device_id = device
        OFFSET 0 -- by the whole key, whatever the plan
    ) AS s
$$;

-- The registered devices of a tenant with their fields. A device runs the version that it succeeded with, unless it reported or was
-- given one since.
CREATE FUNCTION rollwave_registered(tenant text)
RETURNS TABLE (device_id text, device_type text, attributes jsonb, created_at timestamptz, time_zone text, version text,
               version_key text, last_seen timestamptz)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT d.device_id::text, d.device_type::text, d.attributes::jsonb, d.created_at::timestamptz, NULLIF(f.time_zone, ''),
           CASE WHEN h.success[1] > COALESCE(rollwave_microseconds(f.version_at), -1)
                THEN (SELECT versions FROM rollwave_unstored(tenant))[h.success[2]] ELSE NULLIF(f.version, '') END,
           CASE WHEN h.success[1] > COALESCE(rollwave_microseconds(f.version_at), -1)
                THEN (SELECT version_keys FROM rollwave_unstored(tenant))[h.success[2]]
                WHEN f.version <> '' THEN COALESCE(f.version_key, rollwave_version_key(f.version)) END,
           GREATEST(f.last_seen, LEAST(h.heard_at, CASE WHEN h.heard_at IS NOT NULL THEN statement_timestamp() END))
    FROM devices d
    LEFT JOIN rollwave_device_fields f ON f.tenant_id = tenant AND f.device_id = d.device_id
    LEFT JOIN LATERAL rollwave_heard(tenant, d.device_id::text) AS h ON true
    WHERE d.tenant_id = tenant
$$;

-- The labels of the registered devices of a tenant. An attribute stands in for an empty time zone or version.
CREATE FUNCTION rollwave_labels(tenant text)
RETURNS TABLE (device_id text, device_type text, version text, version_key text, time_zone text, last_seen timestamptz,
               labels jsonb)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT r.device_id, r.device_type, COALESCE(r.version, a.version), COALESCE(r.version_key, rollwave_version_key(a.version)),
           COALESCE(r.time_zone, a.time_zone), r.last_seen, r.attributes
    FROM rollwave_registered(tenant) AS r
    CROSS JOIN LATERAL (
        SELECT CASE jsonb_typeof(r.attributes -> 'version') WHEN 'string' THEN r.attributes ->> 'version' END AS version,
               CASE jsonb_typeof(r.attributes -> 'time_zone') WHEN 'string' THEN r.attributes ->> 'time_zone' END AS time_zone
    ) AS a
$$;

-- The same for the devices ids, one row each. Of a device that nobody registered, only device_id is not NULL. Each device is
-- looked up by itself: a join planned for few devices, or for many, would read the whole tenant for each batch of a large group.
CREATE FUNCTION rollwave_labels_of(tenant text, ids text[])
RETURNS TABLE (device_id text, device_type text, version text, version_key text, time_zone text, last_seen timestamptz,
               labels jsonb)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT i.id, l.device_type, l.version, l.version_key, l.time_zone, l.last_seen, l.labels
    FROM unnest(ids) AS i (id)
    LEFT JOIN LATERAL (SELECT * FROM rollwave_labels(tenant) AS r WHERE r.device_id = i.id OFFSET 0) AS l ON true
$$;

-- The rows of a host's view rollwave_devices, which may not exist. ids NULL: all devices of the tenant.
CREATE FUNCTION rollwave_host_devices(tenant text, ids text[])
RETURNS TABLE (device_id text, device_type text, version text, time_zone text, last_seen timestamptz, labels jsonb)
LANGUAGE plpgsql STABLE AS $$
BEGIN
    RETURN QUERY EXECUTE
        'SELECT v.device_id::text, v.device_type::text, NULLIF(v.version::text, ''''), NULLIF(v.time_zone::text, ''''),
                v.last_seen::timestamptz, v.labels::jsonb
         FROM rollwave_devices v
         WHERE v.tenant_id = $1' || CASE WHEN ids IS NULL THEN '' ELSE ' AND v.device_id = ANY ($2)' END
    USING tenant, ids;
END $$;

-- As rollwave_labels, of a host's view.
CREATE FUNCTION rollwave_host_labels(tenant text, ids text[])
RETURNS TABLE (device_id text, device_type text, version text, version_key text, time_zone text, last_seen timestamptz,
               labels jsonb)
LANGUAGE sql STABLE AS $$
    SELECT h.device_id, h.device_type, COALESCE(h.version, a.version),
           rollwave_version_key(COALESCE(h.version, a.version)), COALESCE(h.time_zone, a.time_zone), h.last_seen, h.labels
    FROM rollwave_host_devices(tenant, ids) AS h
    CROSS JOIN LATERAL (
        SELECT CASE jsonb_typeof(h.labels -> 'version') WHEN 'string' THEN h.labels ->> 'version' END AS version,
               CASE jsonb_typeof(h.labels -> 'time_zone') WHEN 'string' THEN h.labels ->> 'time_zone' END AS time_zone
    ) AS a
$$;

-- As rollwave_labels_of, of a host's view, which is read once for all of the devices.
CREATE FUNCTION rollwave_host_labels_of(tenant text, ids text[])
RETURNS TABLE (device_id text, device_type text, version text, version_key text, time_zone text, last_seen timestamptz,
               labels jsonb)
LANGUAGE sql STABLE AS $$
    SELECT i.id, l.device_type, l.version, l.version_key, l.time_zone, l.last_seen, l.labels
    FROM unnest(ids) AS i (id)
    LEFT JOIN rollwave_host_labels(tenant, ids) AS l ON l.device_id = i.id
$$;

-- What labels.record does, for devices of many tenants, in the order of tenant and device.
CREATE FUNCTION rollwave_record_devices(tenants text[], ids text[], versions text[], fresh_seconds float8)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    t record;
    named text := '';
BEGIN
    FOR t IN
        SELECT u.*
        FROM unnest(tenants, ids, versions) AS u (tenant, device, version)
        ORDER BY u.tenant, u.device COLLATE "C"
    LOOP
        IF t.tenant <> named THEN
            PERFORM set_config('app.tenant_id', t.tenant, true);
            named := t.tenant;
        END IF;
        -- Not applied: no version is reported, and the stored time is not older than it may be.
        INSERT INTO rollwave_device_fields AS f (tenant_id, device_id, version, version_key, version_at, last_seen)
        VALUES (t.tenant, t.device, t.version, rollwave_version_key(t.version),
                CASE WHEN t.version IS NOT NULL THEN statement_timestamp() END, statement_timestamp())
        ON CONFLICT (tenant_id, device_id) DO UPDATE
        SET version = COALESCE(EXCLUDED.version, f.version), version_at = COALESCE(EXCLUDED.version_at, f.version_at),
            version_key = CASE WHEN EXCLUDED.version IS NULL THEN f.version_key ELSE EXCLUDED.version_key END,
            last_seen = GREATEST(f.last_seen, EXCLUDED.last_seen)
        WHERE EXCLUDED.version IS NOT NULL
           OR (f.last_seen > statement_timestamp() - make_interval(secs => fresh_seconds)) IS NOT TRUE;
    END LOOP;
    PERFORM set_config('app.tenant_id', '', true);
END $$;

REVOKE ALL ON FUNCTION
    rollwave_version_key(text), rollwave_labels(text), rollwave_labels_of(text, text[]), rollwave_host_devices(text, text[]),
    rollwave_host_labels(text, text[]), rollwave_host_labels_of(text, text[]), rollwave_unstored(text),
    rollwave_heard(text, text), rollwave_registered(text), rollwave_microseconds(timestamptz),
    rollwave_heard_at(text, text, integer, timestamptz, timestamptz),
    rollwave_record_devices(text[], text[], text[], float8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    rollwave_version_key(text), rollwave_labels(text), rollwave_labels_of(text, text[]), rollwave_host_devices(text, text[]),
    rollwave_host_labels(text, text[]), rollwave_host_labels_of(text, text[]), rollwave_unstored(text),
    rollwave_heard(text, text), rollwave_registered(text), rollwave_microseconds(timestamptz),
    rollwave_heard_at(text, text, integer, timestamptz, timestamptz),
    rollwave_record_devices(text[], text[], text[], float8) TO pulse_app;
