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
-- What the host itself gave pulse_app before Rollwave came, for the migration that asks for it.
CREATE TEMP TABLE rollwave_before AS
SELECT c.relname::text AS name, e.privilege_type AS privilege
FROM pg_class c
CROSS JOIN LATERAL aclexplode(c.relacl) AS e
JOIN pg_roles r ON r.oid = e.grantee AND r.rolname = 'pulse_app'
WHERE c.relnamespace = current_schema()::regnamespace;
