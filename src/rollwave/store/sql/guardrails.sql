-- The tests of guardrails, and their buckets. All of these statements need the campaign's lock, but page. Rows are found by key
-- through LATERAL with a LIMIT, and updated by arrays of keys: a join could read all tests of the campaign for each row.

-- name: find
-- Tests by guardrail ($3), wave ($4) and the key of their labels ($5), with their buckets from the one that has dispatch number $6 on: all of
-- them if $8, or if fewer than $9 devices have finished (then from the first one); otherwise up to number $7. before_…: the sums
-- over the buckets before these, if they are judged. place: the number of the row in the arrays.
SELECT w.place::int, t.number, t.began_after, t.of_groups, t.finished, t.failed, t.tripped_at IS NOT NULL AS tripped,
       b.firsts, b.sent, b.ended, b.failures, b.before_sent, b.before_ended, b.before_failures
FROM unnest($3::text[], $4::int[], $5::text[], $6::int[], $7::int[], $8::bool[], $9::int[])
    WITH ORDINALITY AS w (guardrail, wave, labels_key, lowest, highest, judged, whole_below, place)
CROSS JOIN LATERAL (
    SELECT number, began_after, of_groups, finished, failed, tripped_at
    FROM ota_campaign_tests
    WHERE tenant_id = $1 AND campaign_id = $2 AND guardrail = w.guardrail AND wave = w.wave AND labels_key = w.labels_key
    LIMIT 1
) AS t
CROSS JOIN LATERAL (
    SELECT w.judged OR t.finished < w.whole_below AS all_after,
           CASE WHEN t.finished >= w.whole_below THEN (
               SELECT first FROM ota_campaign_test_buckets
               WHERE tenant_id = $1 AND campaign_id = $2 AND test = t.number AND first <= w.lowest
               ORDER BY first DESC LIMIT 1) END AS start
    OFFSET 0 -- otherwise it would be computed for each use
) AS s
CROSS JOIN LATERAL (
    SELECT array_agg(first ORDER BY first) FILTER (WHERE first >= COALESCE(s.start, 0)) AS firsts,
           array_agg(dispatched ORDER BY first) FILTER (WHERE first >= COALESCE(s.start, 0)) AS sent,
           array_agg(finished ORDER BY first) FILTER (WHERE first >= COALESCE(s.start, 0)) AS ended,
           array_agg(failed ORDER BY first) FILTER (WHERE first >= COALESCE(s.start, 0)) AS failures,
           COALESCE(sum(dispatched) FILTER (WHERE first < s.start), 0)::int AS before_sent,
           COALESCE(sum(finished) FILTER (WHERE first < s.start), 0)::int AS before_ended,
           COALESCE(sum(failed) FILTER (WHERE first < s.start), 0)::int AS before_failures
    FROM ota_campaign_test_buckets
    WHERE tenant_id = $1 AND campaign_id = $2 AND test = t.number
      AND (s.all_after OR first BETWEEN COALESCE(s.start, 0) AND w.highest)
) AS b;

-- name: last_buckets
-- Tests as in find, each with its last bucket.
SELECT w.place::int, t.number, t.dispatched, b.first, b.dispatched AS last_dispatched, b.finished, b.failed
FROM unnest($3::text[], $4::int[], $5::text[]) WITH ORDINALITY AS w (guardrail, wave, labels_key, place)
CROSS JOIN LATERAL (
    SELECT number, dispatched
    FROM ota_campaign_tests
    WHERE tenant_id = $1 AND campaign_id = $2 AND guardrail = w.guardrail AND wave = w.wave AND labels_key = w.labels_key
    LIMIT 1
) AS t
LEFT JOIN LATERAL (
    SELECT first, dispatched, finished, failed FROM ota_campaign_test_buckets
    WHERE tenant_id = $1 AND campaign_id = $2 AND test = t.number
    ORDER BY first DESC LIMIT 1
) AS b ON true;

-- name: begin
-- Begin tests ($3, $4, $5 as in find; $9: their labels, as JSON). Each counts from the device on that the guardrail's first row
-- says. The number of groups of a guardrail ($7) with labels ($8: their keys, as JSON; NULL: none) is counted once for each
-- revision ($6) of the document.
WITH known AS MATERIALIZED (
    SELECT g.guardrail, (
        SELECT began_after FROM ota_campaign_tests
        WHERE tenant_id = $1 AND campaign_id = $2 AND guardrail = g.guardrail AND wave = -1 AND labels_key = ''
        LIMIT 1) AS began_after, CASE WHEN g.per IS NOT NULL THEN COALESCE(
        (SELECT t.of_groups FROM ota_campaign_tests t
         WHERE t.tenant_id = $1 AND t.campaign_id = $2 AND t.guardrail = g.guardrail AND t.revision = $6 AND t.labels_key <> ''
         ORDER BY t.number DESC LIMIT 1),
        (SELECT GREATEST(1, count(DISTINCT (SELECT jsonb_object_agg(k.key, s.labels -> k.key)
                                            FROM jsonb_array_elements_text(g.per::jsonb) AS k (key))))::int
         FROM ota_campaign_segments s
         WHERE s.tenant_id = $1 AND s.campaign_id = $2)) END AS groups
    FROM unnest($7::text[], $8::text[]) AS g (guardrail, per)
)
INSERT INTO ota_campaign_tests (tenant_id, campaign_id, number, guardrail, wave, labels_key, labels, revision, began_after,
                                of_groups)
SELECT $1, $2, last.number + row_number() OVER (ORDER BY n.place), n.guardrail, n.wave, n.labels_key, n.labels::jsonb, $6,
       COALESCE(known.began_after, 0), COALESCE(known.groups, 1)
FROM unnest($3::text[], $4::int[], $5::text[], $9::text[]) WITH ORDINALITY AS n (guardrail, wave, labels_key, labels, place)
CROSS JOIN (SELECT COALESCE(max(number), 0) AS number FROM ota_campaign_tests WHERE tenant_id = $1 AND campaign_id = $2) AS last
LEFT JOIN known ON known.guardrail = n.guardrail
RETURNING number, began_after, of_groups;

-- name: cover_in_flight
-- Put devices that were in flight when tests ($3) began into buckets, in the order in which they were sent to: the present rows, and
-- devices ($5: dispatch numbers, each of the test $4) that this transaction has ended. A device that an operator retries had failed
-- before, and is not covered. $6, $7: the least and the largest number of devices of a bucket; $8: the number of buckets wanted.
WITH tests AS MATERIALIZED (
    SELECT number, guardrail, wave, labels, began_after FROM ota_campaign_tests
    WHERE tenant_id = $1 AND campaign_id = $2 AND number = ANY ($3::int[])
), keys AS (
    SELECT DISTINCT t.guardrail, ARRAY(SELECT jsonb_object_keys(t.labels)) AS keys FROM tests t WHERE t.labels <> '{}'
), groups AS MATERIALIZED (
    SELECT k.guardrail, s.number AS segment, (SELECT jsonb_object_agg(key, s.labels -> key) FROM unnest(k.keys) AS key) AS labels
    FROM keys k
    JOIN ota_campaign_segments s ON s.tenant_id = $1 AND s.campaign_id = $2
), in_flight AS MATERIALIZED (
    SELECT dispatch_number AS number, (position >> 44)::int - 1 AS wave, abs(segment) AS segment
    FROM ota_device_status
    WHERE tenant_id = $1 AND campaign_id = $2
      AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
      AND dispatch_number <= (SELECT max(began_after) FROM tests) AND failed_before IS NULL
), covered AS (
    SELECT t.number AS test, f.number, t.began_after
    FROM tests t JOIN in_flight f ON t.wave = -1 OR t.wave = f.wave
    WHERE t.labels = '{}'
    UNION ALL
    SELECT t.number, f.number, t.began_after
    FROM in_flight f
    JOIN groups g ON g.segment = f.segment
    JOIN tests t ON t.guardrail = g.guardrail AND t.labels = g.labels
    UNION ALL
    SELECT e.test, e.number, t.began_after
    FROM unnest($4::int[], $5::int[]) AS e (test, number) JOIN tests t ON t.number = e.test
), placed AS (
    SELECT test, number, row_number() OVER (PARTITION BY test ORDER BY number) - 1 AS place,
           count(*) OVER (PARTITION BY test) AS devices
    FROM covered WHERE number <= began_after
), stored AS (
    INSERT INTO ota_campaign_test_buckets (tenant_id, campaign_id, test, first, dispatched)
    SELECT $1, $2, test, min(number), count(*)
    FROM placed
    GROUP BY test, place / GREATEST($6::int, LEAST($7::int, devices / $8::int))
    RETURNING test, dispatched
)
UPDATE ota_campaign_tests t SET dispatched = t.dispatched + s.dispatched
FROM (SELECT test, sum(dispatched)::int AS dispatched FROM stored GROUP BY test) AS s
WHERE t.tenant_id = $1 AND t.campaign_id = $2 AND t.number = s.test;

-- name: draw
-- Store the new numbers of devices in buckets ($3 to $5: test, first, dispatched), and add those of tests ($6, $7).
WITH stored AS (
    INSERT INTO ota_campaign_test_buckets (tenant_id, campaign_id, test, first, dispatched)
    SELECT $1, $2, b.test, b.first, b.dispatched FROM unnest($3::int[], $4::int[], $5::int[]) AS b (test, first, dispatched)
    ON CONFLICT (tenant_id, campaign_id, test, first) DO UPDATE SET dispatched = EXCLUDED.dispatched
)
UPDATE ota_campaign_tests SET dispatched = dispatched + ($7::int[])[array_position($6::int[], number)]
WHERE tenant_id = $1 AND campaign_id = $2 AND number = ANY ($6::int[]);

-- name: count
-- Store the new numbers of buckets ($3 to $7: test, first, dispatched, finished, failed), which exist, and add those of tests
-- ($8 to $10).
WITH stored AS (
    INSERT INTO ota_campaign_test_buckets (tenant_id, campaign_id, test, first, dispatched, finished, failed)
    SELECT $1, $2, b.*
    FROM unnest($3::int[], $4::int[], $5::int[], $6::int[], $7::int[]) AS b (test, first, dispatched, finished, failed)
    ON CONFLICT (tenant_id, campaign_id, test, first) DO UPDATE SET finished = EXCLUDED.finished, failed = EXCLUDED.failed
)
UPDATE ota_campaign_tests
SET finished = finished + ($9::int[])[array_position($8::int[], number)],
    failed = failed + ($10::int[])[array_position($8::int[], number)]
WHERE tenant_id = $1 AND campaign_id = $2 AND number = ANY ($8::int[]);

-- name: match_counters
-- Tests of guardrails ($3) that count every failure of the whole campaign have at least the numbers of its counters, which
-- include rows that other SQL changed. Not a test that began when devices had been sent to.
UPDATE ota_campaign_tests t
SET finished = GREATEST(t.finished, c.succeeded + c.failed), failed = GREATEST(t.failed, c.failed)
FROM ota_campaigns c
WHERE t.tenant_id = $1 AND t.campaign_id = $2 AND t.guardrail = ANY ($3::text[]) AND t.wave = -1 AND t.began_after = 0
  AND c.tenant_id = $1 AND c.id = $2
  AND (t.finished < c.succeeded + c.failed OR t.failed < c.failed);

-- name: in_force
-- The tests of guardrails ($3) that have not tripped, with all of their buckets.
SELECT t.number, t.guardrail, t.wave, t.labels::text AS labels, t.of_groups, t.finished, t.failed,
       b.firsts, b.sent, b.ended, b.failures
FROM ota_campaign_tests t
CROSS JOIN LATERAL (
    SELECT array_agg(first ORDER BY first) AS firsts, array_agg(dispatched ORDER BY first) AS sent,
           array_agg(finished ORDER BY first) AS ended, array_agg(failed ORDER BY first) AS failures
    FROM ota_campaign_test_buckets
    WHERE tenant_id = $1 AND campaign_id = $2 AND test = t.number
) AS b
WHERE t.tenant_id = $1 AND t.campaign_id = $2 AND t.guardrail = ANY ($3::text[]) AND t.tripped_at IS NULL AND t.finished > 0
ORDER BY t.number;

-- name: trip
-- Not applied: the test has tripped before.
UPDATE ota_campaign_tests SET tripped_at = statement_timestamp(), evidence = $4::text::jsonb
WHERE tenant_id = $1 AND campaign_id = $2 AND number = $3 AND tripped_at IS NULL
RETURNING number;

-- name: failed_devices
-- Up to $8 devices of test $3 that failed for one of the reasons $4 and with one of the codes $5 (NULL: any), by id.
-- $6: of this wave; NULL: of every wave. $7: of segments with these labels. The condition on status repeats the index's. Devices
-- that were in flight when the test began have failed since. The first row of its guardrail has begun then.
WITH test AS MATERIALIZED (
    SELECT t.began_after, (SELECT min(f.began_at) FROM ota_campaign_tests f
                           WHERE f.tenant_id = $1 AND f.campaign_id = $2 AND f.guardrail = t.guardrail
                             AND f.began_after = t.began_after) AS began_at
    FROM ota_campaign_tests t WHERE t.tenant_id = $1 AND t.campaign_id = $2 AND t.number = $3
)
SELECT d.device_id
FROM ota_device_status d
JOIN test ON (d.dispatch_number > test.began_after) IS NOT FALSE OR (d.failed_before IS NULL AND d.completed_at >= test.began_at)
WHERE d.tenant_id = $1 AND d.campaign_id = $2 AND d.status IN ('FAILED', 'SKIPPED', 'INSTALLING') AND d.status = 'FAILED'
  AND d.failed_reason = ANY ($4::text[]) AND ($5::text[] IS NULL OR d.error_code = ANY ($5))
  AND ($6::int IS NULL OR (d.position >> 44)::int - 1 = $6)
  AND ($7::text = '{}' OR d.segment = ANY (ARRAY(
      SELECT s.number FROM ota_campaign_segments s
      WHERE s.tenant_id = $1 AND s.campaign_id = $2
        AND $7::jsonb = (SELECT jsonb_object_agg(k, s.labels -> k) FROM jsonb_object_keys($7::jsonb) AS k))))
ORDER BY d.device_id
LIMIT $8;

-- name: tripped
-- The tests of guardrails ($3) that have tripped; $4: only those whose labels the segment has (NULL: all).
SELECT t.number, t.guardrail FROM ota_campaign_tests t
WHERE t.tenant_id = $1 AND t.campaign_id = $2 AND t.guardrail = ANY ($3::text[]) AND t.tripped_at IS NOT NULL
  AND ($4::int IS NULL OR t.labels = (
      SELECT jsonb_object_agg(k, s.labels -> k)
      FROM ota_campaign_segments s, jsonb_object_keys(t.labels) AS k
      WHERE s.tenant_id = $1 AND s.campaign_id = $2 AND s.number = $4))
ORDER BY t.number;

-- name: tripped_groups
-- Which of these tests have tripped: the numbers of their rows in the arrays, which are as in find.
SELECT w.place::int
FROM unnest($3::text[], $4::int[], $5::text[]) WITH ORDINALITY AS w (guardrail, wave, labels_key, place)
CROSS JOIN LATERAL (
    SELECT tripped_at
    FROM ota_campaign_tests
    WHERE tenant_id = $1 AND campaign_id = $2 AND guardrail = w.guardrail AND wave = w.wave AND labels_key = w.labels_key
    LIMIT 1
) AS t
WHERE t.tripped_at IS NOT NULL
ORDER BY w.place;

-- name: begin_anew
-- Let tests ($3) begin anew: they cover the devices that have not finished yet.
WITH emptied AS (
    DELETE FROM ota_campaign_test_buckets WHERE tenant_id = $1 AND campaign_id = $2 AND test = ANY ($3::int[])
)
UPDATE ota_campaign_tests t
SET generation = t.generation + 1, revision = COALESCE(c.policy_revision, t.revision), began_at = statement_timestamp(),
    began_after = c.sent, dispatched = 0, finished = 0, failed = 0, tripped_at = NULL, evidence = NULL
FROM ota_campaigns c
WHERE t.tenant_id = $1 AND t.campaign_id = $2 AND t.number = ANY ($3::int[]) AND c.tenant_id = $1 AND c.id = $2;

-- name: forget
-- Delete all tests of the guardrails that are not in $3.
WITH gone AS (
    DELETE FROM ota_campaign_tests
    WHERE tenant_id = $1 AND campaign_id = $2 AND NOT guardrail = ANY ($3::text[])
    RETURNING number
)
DELETE FROM ota_campaign_test_buckets
WHERE tenant_id = $1 AND campaign_id = $2 AND test = ANY (ARRAY(SELECT number FROM gone));

-- name: insert_first_rows
-- The first rows of guardrails ($3) whose tests cover the devices that have not finished yet. $4: the revision.
INSERT INTO ota_campaign_tests (tenant_id, campaign_id, number, guardrail, revision, began_after)
SELECT $1, $2, last.number + row_number() OVER (ORDER BY n.place), n.guardrail, $4, c.sent
FROM unnest($3::text[]) WITH ORDINALITY AS n (guardrail, place)
CROSS JOIN (SELECT COALESCE(max(number), 0) AS number FROM ota_campaign_tests WHERE tenant_id = $1 AND campaign_id = $2) AS last
JOIN ota_campaigns c ON c.tenant_id = $1 AND c.id = $2
RETURNING number, guardrail;

-- name: page
-- For people: the tests of guardrails ($3) of campaigns ($2, one for each), at most $4 of each: those that have tripped, then those
-- with the largest share of failures. in_short ($5): only those that have tripped, without their buckets. Read without the campaigns' locks.
SELECT w.campaign_id, t.number, t.guardrail, t.wave, t.labels::text AS labels, t.of_groups, t.finished, t.failed,
       EXTRACT(epoch FROM t.tripped_at)::float8 AS tripped_at, t.evidence::text AS evidence,
       b.firsts, b.sent, b.ended, b.failures
FROM unnest($2::bigint[], $3::text[], $5::bool[]) AS w (campaign_id, guardrail, in_short)
CROSS JOIN LATERAL (
    SELECT * FROM ota_campaign_tests
    WHERE tenant_id = $1 AND campaign_id = w.campaign_id AND guardrail = w.guardrail
      AND (NOT w.in_short OR tripped_at IS NOT NULL)
    ORDER BY tripped_at IS NULL, wave DESC, failed::float8 / GREATEST(dispatched, finished, 1) DESC, number
    LIMIT $4
) AS t
CROSS JOIN LATERAL (
    SELECT array_agg(first ORDER BY first) AS firsts, array_agg(dispatched ORDER BY first) AS sent,
           array_agg(finished ORDER BY first) AS ended, array_agg(failed ORDER BY first) AS failures
    FROM ota_campaign_test_buckets
    WHERE tenant_id = $1 AND campaign_id = w.campaign_id AND test = t.number AND NOT w.in_short
) AS b
ORDER BY w.campaign_id, t.number;
