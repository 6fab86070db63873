-- name: columns
-- The status columns of the contract, if their tables exist, and whether their type is a text type.
SELECT c.relname::text AS of_table, format_type(a.atttypid, a.atttypmod) AS type, t.typcategory = 'S' AS is_text
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'status' AND NOT a.attisdropped
JOIN pg_type t ON t.oid = a.atttypid
WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p') AND c.relname = ANY ($1::text[])
ORDER BY c.relname;

-- name: checks
-- The check constraints on this column alone.
SELECT k.conname::text AS name, pg_get_expr(k.conbin, k.conrelid) AS expression
FROM pg_constraint k
JOIN pg_class c ON c.oid = k.conrelid
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attname = 'status'
WHERE c.relnamespace = current_schema()::regnamespace AND c.relname = $1::text AND k.contype = 'c'
  AND k.conkey = ARRAY[a.attnum]
ORDER BY k.conname;

-- name: failing
-- The caller replaces varchar by the column's type, and true by the expression of a check.
SELECT word FROM (SELECT word, word::varchar AS status FROM unnest($1::text[]) AS t (word)) AS row
WHERE NOT (true);

-- name: unfinished
SELECT tenant_id, array_agg(campaign_id) AS campaigns
FROM rollwave_due_campaigns_2() WHERE status IN ('RUNNING', 'PAUSED')
GROUP BY tenant_id ORDER BY tenant_id LIMIT $1::int;

-- name: unknown
-- Unknown statuses among the first $3 rows of these campaigns, with their number of devices.
SELECT COALESCE(d.status::text, 'NULL') AS word, count(*) AS devices
FROM (SELECT status FROM ota_device_status
      WHERE tenant_id = $1::text AND campaign_id = ANY ($2::bigint[]) LIMIT $3::int) AS d
WHERE d.status IS NULL OR d.status::text <> ALL ($4::text[])
GROUP BY d.status ORDER BY d.status;
