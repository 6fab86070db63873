-- name: read
-- Every installation row (there is one, unless rows of a dump were added to a new schema), with the identifier of this
-- database. The row that is bound to this database comes first. An unbound row counts as used if a slot was held by a
-- session that no longer exists.
SELECT left(replace(i.id::text, '-', ''), 12) AS name, i.bound_to, h.here,
       CASE WHEN i.bound_to IS NULL
            THEN EXISTS (SELECT FROM rollwave_listener_slots s
                         WHERE NOT EXISTS (SELECT FROM pg_locks l
                                           WHERE l.pid = s.holder AND l.locktype = 'advisory' AND l.granted))
            ELSE true END AS used
FROM (SELECT rollwave_here() AS here) AS h
LEFT JOIN rollwave_installation i ON true
ORDER BY (i.bound_to = h.here) IS TRUE DESC, i.installed_at, i.id;

-- name: bind_new
-- The first worker binds the installation. It generates a new id, because a copy that was made before has the same one. If
-- workers of an older version already listen, the id stays, so that they keep their sessions. Not applied: another worker was
-- first.
UPDATE rollwave_installation
SET id = CASE WHEN EXISTS (SELECT FROM rollwave_listener_slots) THEN id ELSE gen_random_uuid() END,
    bound_to = rollwave_here(), bound_at = statement_timestamp()
WHERE bound_to IS NULL;

-- name: keep_one
-- Of several rows, keep the one that is bound to another database: it came with the data. If there is no row, insert one.
WITH kept AS (
    SELECT id FROM rollwave_installation
    ORDER BY (bound_to IS DISTINCT FROM rollwave_here() AND bound_to IS NOT NULL) DESC, installed_at, id
    LIMIT 1
), removed AS (
    DELETE FROM rollwave_installation WHERE id NOT IN (SELECT id FROM kept)
)
INSERT INTO rollwave_installation SELECT WHERE NOT EXISTS (SELECT FROM kept);

-- name: bind
UPDATE rollwave_installation SET bound_to = rollwave_here(), bound_at = statement_timestamp();

-- name: renew
UPDATE rollwave_installation SET id = gen_random_uuid(), bound_to = rollwave_here(), bound_at = statement_timestamp();

-- name: forget_slots
-- In a copy, the slots belong to sessions of the original.
DELETE FROM rollwave_listener_slots;

-- name: running
-- Campaigns of every tenant that send commands.
SELECT tenant_id, campaign_id FROM rollwave_due_campaigns_2() WHERE status = 'RUNNING';

-- name: may_read
-- Whether the engine's role may read the identifier of this database.
SELECT has_function_privilege('pulse_app', 'pg_catalog.pg_control_system()', 'EXECUTE');
