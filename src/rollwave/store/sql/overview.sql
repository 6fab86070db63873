-- name: campaigns
-- The facts about campaigns ($2) of which the verdict is made, from counters and small tables: no statement here reads executions of a
-- campaign beyond a few. heard_slots as in campaigns.get. worst: the $4 segments of an unfinished campaign with the largest share of failures,
-- those under quarantine first; segments: the number of all of them. row_version as in campaigns.get. quiet_since_at: since then no device
-- of a campaign with devices in progress has got further or reported; NULL: unknown. Points of the series say since when no counter that only
-- reports and deadlines change is another one, and since when devices are in progress. A device that repeats its state extends its deadline to
-- 1.1 times the progress timeout ($5 seconds if the campaign has none); of these, the $6 with the latest deadlines are looked at.
-- aborted_by: who aborted a campaign with flat columns; NULL: it is not aborted, or other SQL has aborted it.
SELECT c.tenant_id, c.id, c.status, c.status_reason, c.total_devices, c.targeted_devices, c.wave, c.sent, c.policy_revision,
       c.abort_threshold::text::float8 AS abort_threshold, c.abort_min_completed, c.cancelled_at IS NOT NULL AS cancelled,
       CASE WHEN c.status = 'ABORTED' AND c.policy_revision IS NULL THEN
           (SELECT (array_agg(h.actor ORDER BY h.id DESC))[1] FROM ota_campaign_history h
            WHERE h.tenant_id = $1 AND h.campaign_id = c.id AND h.device_id IS NULL AND h.event = 'aborted') END AS aborted_by,
       c.placement ->> 'fault' AS fault, c.from_versions::text AS from_versions, f.version AS firmware_version,
       c.pending AS "PENDING", c.downloading AS "DOWNLOADING", c.installing AS "INSTALLING",
       c.succeeded AS "SUCCESS", c.failed AS "FAILED", c.skipped AS "SKIPPED",
       p.ctid::text || ' ' || EXTRACT(epoch FROM p.created_at)::text AS row_version,
       (SELECT jsonb_agg(jsonb_build_object('number', w.number, 'up_to', w.up_to, 'name', w.name, 'size', w.size, 'state', w.state,
                                            'since', CASE WHEN isfinite(w.since) THEN w.since END,
                                            'soak_from', CASE WHEN isfinite(w.soak_from) THEN w.soak_from END,
                                            'opened_at', CASE WHEN isfinite(w.opened_at) THEN w.opened_at END,
                                            'passed_at', CASE WHEN isfinite(w.passed_at) THEN w.passed_at END)
                         ORDER BY w.number)::text
        FROM ota_campaign_waves w
        WHERE w.tenant_id = $1 AND w.campaign_id = c.id) AS waves,
       (SELECT jsonb_agg(jsonb_build_object('kind', b.kind, 'name', b.name, 'since', b.starts_at, 'until', b.ends_at,
                                            'by', b.created_by, 'reason', b.reason) ORDER BY b.kind DESC, b.starts_at, b.name)::text
        FROM rollwave_brakes b
        WHERE b.tenant_id = $1 AND c.status IN ('CREATED', 'RUNNING', 'PAUSED')
          AND b.starts_at <= statement_timestamp() AND (b.ends_at IS NULL OR b.ends_at > statement_timestamp())
          AND (b.kind = 'halt' OR p.document #>> '{schedule,ignore_freezes}' IS DISTINCT FROM 'true')) AS stopped_by,
       CASE WHEN c.policy_revision IS NOT NULL AND c.status IN ('RUNNING', 'PAUSED') THEN
           (SELECT jsonb_agg(jsonb_build_object('number', s.number, 'labels', s.labels, 'waiting', s.waiting, 'in_flight', s.in_flight,
                                                'succeeded', s.succeeded, 'failed', s.failed, 'quarantined', s.quarantined))::text
            FROM (SELECT g.number, g.labels, g.quarantined_at IS NOT NULL AS quarantined, COALESCE(sum(l.waiting), 0) AS waiting,
                         COALESCE(sum(l.in_flight), 0) AS in_flight, COALESCE(sum(l.succeeded), 0) AS succeeded,
                         COALESCE(sum(l.failed), 0) AS failed
                  FROM ota_campaign_segments g
                  LEFT JOIN ota_campaign_cells l ON l.tenant_id = $1 AND l.campaign_id = c.id AND l.segment = g.number
                  WHERE g.tenant_id = $1 AND g.campaign_id = c.id AND g.labels <> '{}'
                  GROUP BY g.number, g.labels, g.quarantined_at
                  ORDER BY g.quarantined_at IS NULL,
                           COALESCE(sum(l.failed), 0)::float8 / GREATEST(sum(l.in_flight + l.succeeded + l.failed), 1) DESC, g.number
                  LIMIT $4) AS s) END AS worst,
       (SELECT count(*)::int FROM ota_campaign_segments g WHERE g.tenant_id = $1 AND g.campaign_id = c.id) AS segments,
       CASE WHEN c.status IN ('RUNNING', 'PAUSED') AND c.downloading + c.installing > 0 THEN
           (SELECT EXTRACT(epoch FROM GREATEST(
                       max(s.at) FILTER (WHERE (s.installing, s.succeeded, s.failed)
                                               IS DISTINCT FROM (c.installing, c.succeeded::int, c.failed::int)
                                            OR s.downloading + s.installing = 0),
                       min(s.at), c.started_at,
                       (SELECT max(d.due_at) FROM (
                            SELECT due_at, heard_attempt = attempt AS heard FROM ota_device_status
                            WHERE tenant_id = $1 AND campaign_id = c.id
                              AND (status IN ('DOWNLOADING', 'INSTALLING') OR (status = 'PENDING' AND attempt > 0))
                            ORDER BY due_at DESC NULLS LAST LIMIT $6) AS d WHERE d.heard)
                       - make_interval(secs => 1.1 * COALESCE(CASE WHEN c.policy_revision IS NULL THEN c.progress_timeout
                                                                   ELSE p.progress_timeout END, $5))))::float8
            FROM ota_campaign_points s WHERE s.tenant_id = $1 AND s.campaign_id = c.id HAVING count(*) > 0) END AS quiet_since_at,
       EXTRACT(epoch FROM statement_timestamp())::float8 AS read_at,
       ARRAY(SELECT l.slot FROM rollwave_listener_slots l
             WHERE (l.subscribed_at IS NOT NULL OR l.alive_at >= l.coming_at)
               AND l.alive_at BETWEEN statement_timestamp() - make_interval(secs => $3)
                                  AND statement_timestamp() + make_interval(secs => $3)
               AND (c.policy_revision IS NULL OR l.documents_at >= l.alive_at)) AS heard_slots,
       NOT EXISTS (SELECT FROM rollwave_installation i
                   WHERE i.bound_to IS NOT NULL AND i.bound_to IS DISTINCT FROM rollwave_here()) AS in_own_database
FROM ota_campaigns c
LEFT JOIN firmware_versions f ON f.tenant_id = c.tenant_id AND f.id = c.firmware_version_id
LEFT JOIN ota_campaign_policies p ON p.tenant_id = c.tenant_id AND p.campaign_id = c.id AND p.revision = c.policy_revision
WHERE c.tenant_id = $1 AND c.id = ANY ($2::bigint[]);
