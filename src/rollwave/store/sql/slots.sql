-- name: beat
-- The slot is listened to. After a gap of more than $2 seconds, listening starts anew.
INSERT INTO rollwave_listener_slots AS s (slot, topic_filter, listening_since, alive_at)
VALUES ($1, $3, statement_timestamp(), statement_timestamp())
ON CONFLICT (slot) DO UPDATE
SET topic_filter = EXCLUDED.topic_filter,
    listening_since = CASE WHEN s.alive_at < statement_timestamp() - make_interval(secs => $2)
                           THEN statement_timestamp() ELSE s.listening_since END,
    alive_at = statement_timestamp();

-- name: listening_for
SELECT CASE WHEN count(*) FILTER (WHERE alive_at > statement_timestamp() - make_interval(secs => $2)) = $1::int
            THEN EXTRACT(epoch FROM statement_timestamp() - max(listening_since))::float8 END
FROM rollwave_listener_slots
WHERE slot < $1::int;

-- name: installation
SELECT left(replace(id::text, '-', ''), 12) FROM rollwave_installation;

-- name: topic_filter
SELECT topic_filter FROM rollwave_listener_slots WHERE slot = $1;
