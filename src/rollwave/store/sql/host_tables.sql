-- name: tables
-- The tables of $1 that exist; the other tables, of all schemas; and the tables of $2 that exist, in which migration tools
-- record what they have applied.
SELECT COALESCE(array_agg(c.relname::text) FILTER (WHERE here AND c.relname = ANY ($1::text[])), '{}') AS present,
       COALESCE(array_agg(c.relname::text) FILTER (WHERE NOT (here AND c.relname = ANY ($1::text[]))), '{}') AS others,
       COALESCE(array_agg(c.relname::text) FILTER (WHERE c.relname = ANY ($2::text[])), '{}') AS migrators
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT n.nspname = current_schema()) AS of (here)
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_';

-- name: remember
-- The rights of pulse_app before the first migration, which reads this table: its own, those of its roles, of PUBLIC and of the
-- owner, and rights on single columns.
CREATE TEMP TABLE rollwave_before AS
WITH relation AS (
    SELECT c.oid, c.relname::text AS name, c.relkind, r.oid AS role
    FROM pg_class c
    JOIN pg_roles r ON r.rolname = 'pulse_app'
    WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p', 'S')
)
SELECT name, privilege
FROM relation, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER']) AS privilege
WHERE relkind <> 'S' AND has_table_privilege(role, oid, privilege)
UNION
SELECT name, privilege || ' of columns'
FROM relation, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS privilege
WHERE relkind <> 'S' AND has_any_column_privilege(role, oid, privilege)
UNION
SELECT name, 'USAGE' FROM relation WHERE CASE WHEN relkind = 'S' THEN has_sequence_privilege(role, oid, 'USAGE') END;
