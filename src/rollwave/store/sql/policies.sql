-- name: documents
-- The documents of revisions ($3) of campaigns ($2, one for each), as JSON.
SELECT p.campaign_id, p.revision, p.document::text AS document
FROM unnest($2::bigint[], $3::int[]) AS asked (campaign_id, revision)
CROSS JOIN LATERAL (
    SELECT campaign_id, revision, document FROM ota_campaign_policies
    WHERE tenant_id = $1 AND campaign_id = asked.campaign_id AND revision = asked.revision
    LIMIT 1
) AS p;

-- name: write_own_times
-- Not applied: there is no such revision.
UPDATE ota_campaign_policies
SET progress_timeout = $4, answer_timeout = $5, device_timeout = $6, max_attempts = $7, retry_on = $8
WHERE tenant_id = $1 AND campaign_id = $2 AND revision = $3;

-- name: revision
SELECT revision, document::text AS document, created_by, reason, EXTRACT(epoch FROM created_at)::float8 AS created_at,
       (SELECT NULLIF(k.name, '') FROM rollwave_api_keys k WHERE k.tenant_id = $1 AND k.key_id = created_by) AS by_name
FROM ota_campaign_policies
WHERE tenant_id = $1 AND campaign_id = $2 AND revision = $3;

-- name: last_revision
SELECT max(revision) FROM ota_campaign_policies WHERE tenant_id = $1 AND campaign_id = $2;

-- name: insert
INSERT INTO ota_campaign_policies
    (tenant_id, campaign_id, revision, document, created_by, reason,
     progress_timeout, answer_timeout, device_timeout, max_attempts, retry_on)
VALUES ($1, $2, $3, $4::text::jsonb, $5, $6, $7, $8, $9, $10, $11);

-- name: put_in_force
-- Needs the campaign's lock. Devices that stood by the revision $4 stand by this one: an edit that moves them begins to place them then
-- (placing.begin).
-- Not applied: the campaign follows another revision than $4 (NULL: its flat columns), or has ended, which cannot be under
-- the lock unless a host's trigger did it.
UPDATE ota_campaigns SET policy_revision = $3, placed_revision = CASE WHEN placed_revision = $4 THEN $3 ELSE placed_revision END
WHERE tenant_id = $1 AND id = $2 AND policy_revision IS NOT DISTINCT FROM $4::int
  AND status NOT IN ('COMPLETED', 'ABORTED')
RETURNING id;

-- name: authors
SELECT c.created_by AS author FROM ota_campaigns c WHERE c.tenant_id = $1 AND c.id = $2 AND c.created_by IS NOT NULL
UNION
SELECT p.created_by FROM ota_campaigns c
JOIN ota_campaign_policies p ON p.tenant_id = $1 AND p.campaign_id = c.id AND p.revision = c.policy_revision
WHERE c.tenant_id = $1 AND c.id = $2 AND p.created_by IS NOT NULL;
