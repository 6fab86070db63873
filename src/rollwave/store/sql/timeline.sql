-- name: write
-- Write the counters as a point, and remove points in the future, which remain after the database's clock was set back. Needs the
-- campaign's lock. Not written: the counters are as in the last point, are not counted yet, or the last point is less than $3 seconds old.
-- If the last point is more than twice $4 seconds old, its counters held until $4 seconds ago: a look is never rarer. So they are written
-- for that time too. Returns the number of points before, and the time of the first one.
WITH last AS (
    SELECT p.* FROM ota_campaign_points p
    WHERE p.tenant_id = $1 AND p.campaign_id = $2::bigint AND p.at <= statement_timestamp()
    ORDER BY p.at DESC LIMIT 1
), future AS (
    DELETE FROM ota_campaign_points p
    WHERE p.tenant_id = $1 AND p.campaign_id = $2::bigint AND p.at > statement_timestamp()
), news AS (
    SELECT c.pending::int AS pending, c.downloading::int AS downloading, c.installing::int AS installing,
           c.succeeded::int AS succeeded, c.failed::int AS failed, c.skipped::int AS skipped
    FROM ota_campaigns c LEFT JOIN last l ON true
    WHERE c.tenant_id = $1 AND c.id = $2::bigint
      AND c.pending + c.downloading + c.installing + c.succeeded + c.failed + c.skipped IS NOT NULL
      AND (l.at IS NULL
           OR l.at <= statement_timestamp() - make_interval(secs => $3)
              AND (c.pending, c.downloading, c.installing, c.succeeded, c.failed, c.skipped)
                  IS DISTINCT FROM (l.pending, l.downloading, l.installing, l.succeeded, l.failed, l.skipped))
), written AS (
    INSERT INTO ota_campaign_points (tenant_id, campaign_id, at, pending, downloading, installing, succeeded, failed, skipped)
    SELECT $1, $2::bigint, statement_timestamp(), n.pending, n.downloading, n.installing, n.succeeded, n.failed, n.skipped FROM news n
    UNION ALL
    SELECT $1, $2::bigint, statement_timestamp() - make_interval(secs => $4),
           l.pending, l.downloading, l.installing, l.succeeded, l.failed, l.skipped
    FROM last l, news n WHERE l.at < statement_timestamp() - make_interval(secs => 2 * $4)
    ON CONFLICT (tenant_id, campaign_id, at) DO UPDATE
    SET pending = EXCLUDED.pending, downloading = EXCLUDED.downloading, installing = EXCLUDED.installing,
        succeeded = EXCLUDED.succeeded, failed = EXCLUDED.failed, skipped = EXCLUDED.skipped
)
SELECT count(*)::int AS points, EXTRACT(epoch FROM min(p.at))::float8 AS first_at
FROM ota_campaign_points p WHERE p.tenant_id = $1 AND p.campaign_id = $2::bigint;

-- name: points
-- Oldest first.
SELECT EXTRACT(epoch FROM at)::float8 AS at, pending, downloading, installing, succeeded, failed, skipped
FROM ota_campaign_points WHERE tenant_id = $1 AND campaign_id = $2::bigint ORDER BY at;

-- name: lately
-- The series of several campaigns ($2) in their last $3 seconds, oldest first: of each of $4 equal parts the last point, and the last
-- point before them.
WITH part AS (
    SELECT c.id, LEAST($3, EXTRACT(epoch FROM statement_timestamp() - f.at)::float8) AS seconds
    FROM unnest($2::bigint[]) AS c (id)
    CROSS JOIN LATERAL (SELECT min(p.at) AS at FROM ota_campaign_points p WHERE p.tenant_id = $1 AND p.campaign_id = c.id) AS f
)
SELECT DISTINCT ON (s.campaign_id, s.part) s.campaign_id, EXTRACT(epoch FROM s.at)::float8 AS at,
       s.pending, s.downloading, s.installing, s.succeeded, s.failed, s.skipped
FROM (
    SELECT p.*, CASE WHEN part.seconds > 0 THEN
                     GREATEST(-1, floor($4 - EXTRACT(epoch FROM statement_timestamp() - p.at)::float8 * $4 / part.seconds)) END AS part
    FROM part
    JOIN ota_campaign_points p ON p.tenant_id = $1 AND p.campaign_id = part.id
         AND p.at >= COALESCE((SELECT max(b.at) FROM ota_campaign_points b
                               WHERE b.tenant_id = $1 AND b.campaign_id = part.id
                                 AND b.at <= statement_timestamp() - make_interval(secs => $3)), '-infinity')
) AS s
ORDER BY s.campaign_id, s.part, s.at DESC;

-- name: remove
-- Remove the points at the times $3, in microseconds since 1970.
DELETE FROM ota_campaign_points
WHERE tenant_id = $1 AND campaign_id = $2::bigint AND (EXTRACT(epoch FROM at) * 1000000)::bigint = ANY ($3::bigint[]);

-- name: counters
-- The counters now; NULL in a row that is not counted yet.
SELECT pending, downloading, installing, succeeded::int AS succeeded,
       failed::int AS failed, skipped,
       EXTRACT(epoch FROM started_at)::float8 AS started_at, EXTRACT(epoch FROM completed_at)::float8 AS completed_at
FROM ota_campaigns WHERE tenant_id = $1 AND id = $2::bigint;

-- name: plan_made
SELECT EXISTS (SELECT FROM ota_campaign_plans WHERE tenant_id = $1 AND campaign_id = $2::bigint AND revision = $3);

-- name: write_plan
-- Not applied: this revision has one.
INSERT INTO ota_campaign_plans (tenant_id, campaign_id, revision, made_at, ends_at, points_at, devices)
VALUES ($1, $2::bigint, $3, to_timestamp($4::float8), to_timestamp($5::float8), $6::float8[], $7::int[])
ON CONFLICT DO NOTHING;

-- name: plans
-- In the order in which they were made.
SELECT revision, EXTRACT(epoch FROM made_at)::float8 AS made_at, EXTRACT(epoch FROM ends_at)::float8 AS ends_at, points_at AS times, devices
FROM ota_campaign_plans WHERE tenant_id = $1 AND campaign_id = $2::bigint ORDER BY made_at, revision;

-- name: plan
-- The plan of the revision in force; no row: none is made yet.
SELECT p.revision, EXTRACT(epoch FROM p.made_at)::float8 AS made_at, EXTRACT(epoch FROM p.ends_at)::float8 AS ends_at, p.points_at AS times, p.devices
FROM ota_campaigns c
JOIN ota_campaign_plans p ON p.tenant_id = $1 AND p.campaign_id = $2::bigint AND p.revision = COALESCE(c.policy_revision, 0)
WHERE c.tenant_id = $1 AND c.id = $2::bigint;

-- name: marks
-- The last $4 events of the campaign itself that have these names, oldest first.
SELECT id, at, event, actor, device_id, detail
FROM (SELECT id, EXTRACT(epoch FROM at)::float8 AS at, event, actor, device_id,
             CASE jsonb_typeof(detail) WHEN 'string' THEN detail #>> '{}' ELSE detail::text END AS detail
      FROM ota_campaign_history
      WHERE tenant_id = $1 AND campaign_id = $2::bigint AND device_id IS NULL AND event = ANY ($3::text[])
      ORDER BY id DESC LIMIT $4) AS latest
ORDER BY id;
