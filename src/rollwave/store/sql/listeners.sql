-- name: take
-- Take the slot's lock for this session. PostgreSQL ends the session after $3 seconds without a statement.
SELECT CASE WHEN pg_try_advisory_lock($1, $2)
            THEN set_config('idle_session_timeout', $3::int || 's', false)
                 || set_config('idle_in_transaction_session_timeout', $3::int || 's', false) END IS NOT NULL;

-- name: coming
-- Record that this session is about to subscribe: commands wait until it has. Returns the slot's last subscription.
INSERT INTO rollwave_listener_slots (slot, listening_since, coming_at, holder, alive_at)
VALUES ($1, statement_timestamp(), statement_timestamp(), pg_backend_pid(), '-infinity')
ON CONFLICT (slot) DO UPDATE
SET coming_at = statement_timestamp(), subscribed_at = NULL, holder = pg_backend_pid()
RETURNING topic_filter;

-- name: heard
-- Whether each of $1 slots is subscribed now, or was within the last $2 seconds and no listener has begun to subscribe
-- since. A time further in the future was written before the database's clock was set back, and does not count. The same for one campaign
-- is read with its row (campaigns.get).
SELECT count(*) = $1::int FROM rollwave_listener_slots
WHERE slot < $1::int AND (subscribed_at IS NOT NULL OR alive_at >= coming_at)
  AND alive_at BETWEEN statement_timestamp() - make_interval(secs => $2)
                   AND statement_timestamp() + make_interval(secs => $2);

-- name: unheard_for
SELECT CASE WHEN count(*) < $1::int OR min(alive_at) = '-infinity' THEN 'infinity'::float8
            ELSE EXTRACT(epoch FROM statement_timestamp() - min(alive_at))::float8 END
FROM rollwave_listener_slots WHERE slot < $1::int;

-- name: beat
-- Record that this session is subscribed to the slot's topics. After a gap of more than $2 seconds, listening_since begins
-- again. Corrects times in the future, which remain after the database's clock was set back.
-- Not applied: another session has the slot now.
UPDATE rollwave_listener_slots s
SET topic_filter = $3,
    listening_since = CASE WHEN s.alive_at < statement_timestamp() - make_interval(secs => $2)
                           THEN statement_timestamp()
                           ELSE LEAST(s.listening_since, statement_timestamp()) END,
    subscribed_at = LEAST(s.subscribed_at, statement_timestamp()),
    alive_at = statement_timestamp(),
    documents_at = statement_timestamp()
WHERE slot = $1 AND holder = pg_backend_pid();

-- name: hush
-- Record that this session is no longer subscribed. Not applied: another session has the slot now.
UPDATE rollwave_listener_slots SET subscribed_at = NULL WHERE slot = $1 AND holder = pg_backend_pid();

-- name: listening
-- Seconds for which all $1 slots have been subscribed without a gap, and seconds since the present holders subscribed. No row:
-- a slot is not subscribed. A holder whose process died has lost its lock ($3); one whose machine died, its sign of life.
SELECT EXTRACT(epoch FROM statement_timestamp() - max(s.listening_since))::float8 AS without_gap,
       EXTRACT(epoch FROM statement_timestamp() - max(s.subscribed_at))::float8 AS subscribed
FROM rollwave_listener_slots s
JOIN pg_locks l ON l.pid = s.holder AND l.locktype = 'advisory' AND l.granted
               AND l.classid::bigint = $3 AND l.objid::bigint = s.slot
WHERE s.slot < $1::int AND s.subscribed_at IS NOT NULL
  AND s.alive_at > statement_timestamp() - make_interval(secs => $2)
HAVING count(*) = $1::int;
