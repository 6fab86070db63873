-- name: tables
-- Of the tables named in $1, those that there are; other tables, of whatever schema; and those among these by which a
-- migration tool remembers what it has done.
SELECT COALESCE(array_agg(c.relname::text) FILTER (WHERE here AND c.relname = ANY ($1::text[])), '{}') AS present,
       COALESCE(array_agg(c.relname::text) FILTER (WHERE NOT (here AND c.relname = ANY ($1::text[]))), '{}') AS others,
       COALESCE(array_agg(c.relname::text) FILTER (WHERE c.relname = ANY ($2::text[])), '{}') AS migrators
FROM pg_class c
JOIN pg_namespace n ON n.oid = c.relnamespace
CROSS JOIN LATERAL (SELECT n.nspname = current_schema()) AS of (here)
WHERE c.relkind IN ('r', 'p') AND n.nspname <> 'information_schema' AND n.nspname !~ '^pg_';

-- name: remember
-- What pulse_app may do before Rollwave comes, for the migration that asks for it: as itself, as a member of another role,
-- as everybody, as the owner, or with single columns.
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
