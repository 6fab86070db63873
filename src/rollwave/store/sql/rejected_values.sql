-- Each statement reads a row from JSON, which checks each value as a write would: width, range, domain, label of an
-- enumeration. It reads no table. It raises an error if a value does not fit its column.

-- name: devices
SELECT count(jsonb_populate_record(NULL::devices, given.row::jsonb)) FROM unnest($1::text[]) AS given (row);

-- name: device_groups
SELECT count(jsonb_populate_record(NULL::device_groups, given.row::jsonb)) FROM unnest($1::text[]) AS given (row);

-- name: device_group_members
SELECT count(jsonb_populate_record(NULL::device_group_members, given.row::jsonb)) FROM unnest($1::text[]) AS given (row);

-- name: firmware_versions
SELECT count(jsonb_populate_record(NULL::firmware_versions, given.row::jsonb)) FROM unnest($1::text[]) AS given (row);

-- name: ota_campaigns
SELECT count(jsonb_populate_record(NULL::ota_campaigns, given.row::jsonb)) FROM unnest($1::text[]) AS given (row);

-- name: ota_device_status
SELECT count(jsonb_populate_record(NULL::ota_device_status, given.row::jsonb)) FROM unnest($1::text[]) AS given (row);

-- name: columns_of_constraint
-- Without tenant_id, which is not a field of any request.
SELECT a.attname::text AS column_name
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_namespace n ON n.oid = c.relnamespace
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = ANY (k.conkey) AND a.attname <> 'tenant_id'
WHERE n.nspname = $1::text AND c.relname = $2::text AND k.conname = $3::text;
