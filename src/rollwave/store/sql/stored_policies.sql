-- name: get
SELECT name, document::text AS document, EXTRACT(epoch FROM changed_at)::float8 AS changed_at, changed_by
FROM rollwave_policies WHERE tenant_id = $1 AND name = $2;

-- name: page
-- Ordered by name, along the primary key.
SELECT name, EXTRACT(epoch FROM changed_at)::float8 AS changed_at, changed_by,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = changed_by) AS changed_by_name
FROM rollwave_policies
WHERE tenant_id = $1 AND ($2::text IS NULL OR name > $2)
ORDER BY name
LIMIT $3;

-- name: count
SELECT count(*) FROM rollwave_policies WHERE tenant_id = $1;

-- name: put
INSERT INTO rollwave_policies (tenant_id, name, document, changed_by) VALUES ($1, $2, $3::text::jsonb, $4)
ON CONFLICT (tenant_id, name) DO UPDATE
SET document = EXCLUDED.document, changed_by = EXCLUDED.changed_by, changed_at = statement_timestamp();

-- name: delete
DELETE FROM rollwave_policies WHERE tenant_id = $1 AND name = $2 RETURNING name;
