-- name: count
-- The number of segments. No row: there is no such campaign.
SELECT (SELECT count(*) FROM ota_campaign_segments s WHERE s.tenant_id = $1 AND s.campaign_id = c.id)
FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = $2::bigint;

-- name: page
SELECT s.number, s.labels::text AS labels, COALESCE(sum(l.waiting), 0)::int AS waiting,
       COALESCE(sum(l.in_flight), 0)::int AS in_flight, COALESCE(sum(l.succeeded), 0)::int AS succeeded,
       COALESCE(sum(l.failed), 0)::int AS failed,
       EXTRACT(epoch FROM s.quarantined_at)::float8 AS quarantined_at, s.quarantined_because
FROM (SELECT * FROM ota_campaign_segments
      WHERE tenant_id = $1 AND campaign_id = $2::bigint AND number > $3
      ORDER BY number LIMIT $4) AS s
LEFT JOIN ota_campaign_cells l ON l.tenant_id = $1 AND l.campaign_id = $2::bigint AND l.segment = s.number
GROUP BY s.number, s.labels, s.quarantined_at, s.quarantined_because
ORDER BY s.number;

-- name: quarantined
-- The segments under quarantine, by number, at most $4. $3: only this one; NULL: all.
SELECT number, labels::text AS labels, quarantined_because
FROM ota_campaign_segments
WHERE tenant_id = $1 AND campaign_id = $2::bigint AND quarantined_at IS NOT NULL AND number = COALESCE($3::int, number)
ORDER BY number LIMIT $4;

-- name: described
-- The labels and time zones of these segments ($3). Looked up as cells.sql says. is_placed: in this snapshot all devices are placed by the
-- revision $4, which is in force.
SELECT s.number, s.labels::text AS labels, s.time_zone,
       EXISTS (SELECT FROM ota_campaigns c
               WHERE c.tenant_id = $1 AND c.id = $2 AND c.targeted_devices IS NULL
                 AND c.policy_revision = $4 AND c.placed_revision = $4) AS is_placed
FROM unnest($3::int[]) AS asked (number)
CROSS JOIN LATERAL (
    SELECT number, labels, time_zone FROM ota_campaign_segments
    WHERE tenant_id = $1 AND campaign_id = $2 AND number BETWEEN asked.number AND asked.number
    ORDER BY number LIMIT 1
) AS s;
