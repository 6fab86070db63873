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
    version text,           -- the last one given, reported, or updated to with success
    version_key text COLLATE "C",  -- rollwave_version_key(version); not generated, which would double the time of a report
    last_seen timestamptz,  -- of its last report; at most an hour old while it reports
    PRIMARY KEY (tenant_id, device_id)
) WITH (fillfactor = 80);
ALTER TABLE rollwave_device_fields ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
DO $$
BEGIN
    IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'tenants') THEN
        ALTER TABLE rollwave_device_fields ADD FOREIGN KEY (tenant_id) REFERENCES tenants (tenant_id) ON DELETE CASCADE;
    END IF;
END $$;

-- The functions below are read as part of the statement that calls them, so a condition on a device uses the keys' indexes.
-- They name the columns of a host's tables in text: the host may change the types of its columns.

-- The labels of the registered devices of a tenant. An attribute stands in for an empty time zone or version.
CREATE FUNCTION rollwave_labels(tenant text)
RETURNS TABLE (device_id text, device_type text, version text, version_key text, time_zone text, last_seen timestamptz,
               labels jsonb)
LANGUAGE sql STABLE PARALLEL SAFE AS $$
    SELECT d.device_id::text, d.device_type::text,
           COALESCE(NULLIF(f.version, ''), a.version),
           CASE WHEN f.version <> '' THEN COALESCE(f.version_key, rollwave_version_key(f.version))
                ELSE rollwave_version_key(a.version) END,
           COALESCE(NULLIF(f.time_zone, ''), a.time_zone),
           f.last_seen, d.attributes::jsonb
    FROM devices d
    LEFT JOIN rollwave_device_fields f ON f.tenant_id = tenant AND f.device_id = d.device_id
    CROSS JOIN LATERAL (
        SELECT CASE jsonb_typeof(d.attributes::jsonb -> 'version') WHEN 'string' THEN d.attributes::jsonb ->> 'version' END
                   AS version,
               CASE jsonb_typeof(d.attributes::jsonb -> 'time_zone') WHEN 'string' THEN d.attributes::jsonb ->> 'time_zone' END
                   AS time_zone
    ) AS a
    WHERE d.tenant_id = tenant
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
CREATE FUNCTION rollwave_record_devices(
    tenants text[], ids text[], campaigns bigint[], versions text[], fresh_seconds float8
)
RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    t record;
    named text := '';
    keyed text;
    key text;
BEGIN
    FOR t IN
        SELECT u.*
        FROM unnest(tenants, ids, campaigns, versions) AS u (tenant, device, campaign, version)
        ORDER BY u.tenant, u.device COLLATE "C"
    LOOP
        IF t.tenant <> named THEN
            PERFORM set_config('app.tenant_id', t.tenant, true);
            named := t.tenant;
        END IF;
        IF t.version IS NULL AND t.campaign IS NOT NULL THEN
            t.version := (SELECT w.version FROM ota_campaigns c
                          JOIN firmware_versions w ON w.tenant_id = c.tenant_id AND w.id = c.firmware_version_id
                          WHERE c.tenant_id = t.tenant AND c.id = t.campaign);
        END IF;
        IF t.version IS DISTINCT FROM keyed THEN
            keyed := t.version;
            key := rollwave_version_key(keyed);
        END IF;
        -- Not applied: the row is as it should be, and not older than it may be.
        INSERT INTO rollwave_device_fields AS f (tenant_id, device_id, version, version_key, last_seen)
        VALUES (t.tenant, t.device, t.version, key, statement_timestamp())
        ON CONFLICT (tenant_id, device_id) DO UPDATE
        SET version = COALESCE(EXCLUDED.version, f.version), last_seen = EXCLUDED.last_seen,
            version_key = CASE WHEN EXCLUDED.version IS NULL THEN f.version_key ELSE EXCLUDED.version_key END
        WHERE (f.last_seen > statement_timestamp() - make_interval(secs => fresh_seconds)
               AND (EXCLUDED.version IS NULL OR f.version = EXCLUDED.version)) IS NOT TRUE;
    END LOOP;
    PERFORM set_config('app.tenant_id', '', true);
END $$;

REVOKE ALL ON FUNCTION
    rollwave_version_key(text), rollwave_labels(text), rollwave_labels_of(text, text[]), rollwave_host_devices(text, text[]),
    rollwave_host_labels(text, text[]), rollwave_host_labels_of(text, text[]),
    rollwave_record_devices(text[], text[], bigint[], text[], float8) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION
    rollwave_version_key(text), rollwave_labels(text), rollwave_labels_of(text, text[]), rollwave_host_devices(text, text[]),
    rollwave_host_labels(text, text[]), rollwave_host_labels_of(text, text[]),
    rollwave_record_devices(text[], text[], bigint[], text[], float8) TO pulse_app;
