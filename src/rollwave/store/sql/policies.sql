-- name: document
-- The document of one revision, as JSON.
SELECT document::text AS document FROM ota_campaign_policies WHERE tenant_id = $1 AND campaign_id = $2 AND revision = $3;

-- name: write_own_times
-- Not applied: there is no such revision.
UPDATE ota_campaign_policies
SET progress_timeout = $4, answer_timeout = $5, device_timeout = $6, max_attempts = $7, retry_on = $8
WHERE tenant_id = $1 AND campaign_id = $2 AND revision = $3;
