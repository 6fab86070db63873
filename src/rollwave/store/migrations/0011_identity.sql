-- The database that the installation belongs to. A copy of a database has all of its rows, so the identity that names the
-- listener's sessions in the broker must not be valid in another one. NULL: no worker has run here yet.

ALTER TABLE rollwave_installation
    ADD COLUMN IF NOT EXISTS bound_to text,
    ADD COLUMN IF NOT EXISTS bound_at timestamptz;
GRANT UPDATE (id, bound_to, bound_at) ON rollwave_installation TO pulse_app; -- the first worker binds it

-- What tells this database from any other: PostgreSQL's system identifier, which a streaming replica shares with its
-- primary, and the database's oid. NULL where this role may not read it; PL/pgSQL, because it checks that only when the
-- call is reached.
CREATE FUNCTION rollwave_here() RETURNS text
LANGUAGE plpgsql STABLE AS $$
BEGIN
    IF COALESCE(has_function_privilege(to_regprocedure('pg_catalog.pg_control_system()'), 'EXECUTE'), false) THEN
        RETURN (SELECT c.system_identifier || '/' || d.oid
                FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d
                WHERE d.datname = current_database());
    END IF;
    RETURN NULL;
END $$;
REVOKE ALL ON FUNCTION rollwave_here() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollwave_here() TO pulse_app;

DO $$
BEGIN
    IF rollwave_here() IS NULL THEN
        RAISE EXCEPTION 'this login may not ask PostgreSQL which database this is; as a superuser: '
            'GRANT EXECUTE ON FUNCTION pg_control_system() TO pulse_app, %', quote_ident(current_user);
    END IF;
END $$;

-- An installation that has been used belongs to the database in which it is found now.
UPDATE rollwave_installation
SET bound_to = rollwave_here(), bound_at = now()
WHERE EXISTS (SELECT FROM rollwave_listener_slots) OR EXISTS (SELECT FROM ota_campaigns);
