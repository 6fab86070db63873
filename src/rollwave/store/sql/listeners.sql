-- name: take
-- Take the slot's lock for this session, which PostgreSQL ends when nothing is heard of it for $3 seconds.
SELECT CASE WHEN pg_try_advisory_lock($1, $2)
            THEN set_config('idle_session_timeout', $3::int || 's', false)
                 || set_config('idle_in_transaction_session_timeout', $3::int || 's', false) END IS NOT NULL;

-- name: coming
-- This session is about to subscribe, and commands wait until it has. Returns what the slot was subscribed to last.
INSERT INTO rollwave_listener_slots (slot, listening_since, coming_at, holder, alive_at)
VALUES ($1, statement_timestamp(), statement_timestamp(), pg_backend_pid(), '-infinity')
ON CONFLICT (slot) DO UPDATE
SET coming_at = statement_timestamp(), subscribed_at = NULL, holder = pg_backend_pid()
RETURNING topic_filter;

-- name: heard
-- Whether each of $1 slots is listened to now, or was no more than $2 seconds ago and no listener has set about
-- subscribing since. A time well in the future was dated by a clock that has been set back since.
SELECT count(*) = $1::int FROM rollwave_listener_slots
WHERE slot < $1::int AND (subscribed_at IS NOT NULL OR alive_at >= coming_at)
  AND alive_at BETWEEN statement_timestamp() - make_interval(secs => $2)
                   AND statement_timestamp() + make_interval(secs => $2);

-- name: unheard_for
SELECT CASE WHEN count(*) < $1::int OR min(alive_at) = '-infinity' THEN 'infinity'::float8
            ELSE EXTRACT(epoch FROM statement_timestamp() - min(alive_at))::float8 END
FROM rollwave_listener_slots WHERE slot < $1::int;

-- name: beat
-- This session is subscribed to the slot's topics. After a gap of more than $2 seconds, listening starts anew. No time
-- stays in the future, where a clock that was set back leaves it.
-- Not applied: another session has the slot now.
UPDATE rollwave_listener_slots s
SET topic_filter = $3,
    listening_since = CASE WHEN s.alive_at < statement_timestamp() - make_interval(secs => $2)
                           THEN statement_timestamp()
                           ELSE LEAST(s.listening_since, statement_timestamp()) END,
    subscribed_at = LEAST(s.subscribed_at, statement_timestamp()),
    alive_at = statement_timestamp()
WHERE slot = $1 AND holder = pg_backend_pid();

-- name: hush
-- This session is no longer subscribed. Not applied: another one has the slot already.
UPDATE rollwave_listener_slots SET subscribed_at = NULL WHERE slot = $1 AND holder = pg_backend_pid();

-- name: listening
-- Since when every one of $1 slots has been listened to, and since when by who listens now. No row: one is not
-- listened to. A holder that died without a word has lost its lock ($3), and one whose machine died, its beat.
SELECT EXTRACT(epoch FROM statement_timestamp() - max(s.listening_since))::float8 AS without_gap,
       EXTRACT(epoch FROM statement_timestamp() - max(s.subscribed_at))::float8 AS subscribed
FROM rollwave_listener_slots s
JOIN pg_locks l ON l.pid = s.holder AND l.locktype = 'advisory' AND l.granted
               AND l.classid::bigint = $3 AND l.objid::bigint = s.slot
WHERE s.slot < $1::int AND s.subscribed_at IS NOT NULL
  AND s.alive_at > statement_timestamp() - make_interval(secs => $2)
HAVING count(*) = $1::int;
