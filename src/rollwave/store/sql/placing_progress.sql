-- How far the devices of a campaign are placed. Every statement that writes needs the campaign's lock.

-- name: inserted
-- Record that devices are placed that other SQL has inserted. $3 of them have become SKIPPED. The campaign is locked.
UPDATE ota_campaigns c
SET pending = c.pending - $3, skipped = c.skipped + $3, total_devices = GREATEST(c.total_devices, l.devices + c.skipped + $3)
FROM (SELECT COALESCE(sum(waiting + in_flight + succeeded + failed), 0)::int AS devices
      FROM ota_campaign_cells WHERE tenant_id = $1 AND campaign_id = $2) AS l
WHERE c.tenant_id = $1 AND c.id = $2;

-- name: begin
-- Begin to place the devices never sent to, by the revision in force. Nothing is sent until all are placed. $3: the waves begin anew
-- too. The campaign is locked.
WITH emptied AS (
    UPDATE ota_campaign_cells SET waiting = 0, held = 0 WHERE tenant_id = $1 AND campaign_id = $2 AND waiting > 0
), waves AS (
    DELETE FROM ota_campaign_waves WHERE tenant_id = $1 AND campaign_id = $2 AND $3::boolean
), unheld AS ( -- the rows of held devices are deleted before the first is placed (budgets.forget_held)
    DELETE FROM ota_campaign_budget_values WHERE tenant_id = $1 AND campaign_id = $2
)
UPDATE ota_campaigns
SET placement = jsonb_build_object('moves', true, 'began', clock_timestamp()), placed_revision = policy_revision,
    targeted_devices = 0, targeted_up_to = NULL, wave = CASE WHEN $3 THEN 0 ELSE wave END,
    reconciled_at = clock_timestamp() -- a comparison that began before must not repair the cells
WHERE tenant_id = $1 AND id = $2;

-- name: surveyed
-- Store the survey that was made for the revision $4, and for the placing that began at $5 (NULL: that of the creation). Not applied:
-- another worker has stored one, the policy was edited since, or the placing has begun anew.
UPDATE ota_campaigns SET placement = COALESCE(placement, '{}') || jsonb_build_object('survey', $3::text::jsonb)
WHERE tenant_id = $1 AND id = $2 AND policy_revision IS NOT DISTINCT FROM $4
  AND placement ->> 'began' IS NOT DISTINCT FROM $5::text
  AND targeted_devices IS NOT NULL AND placement ->> 'survey' IS NULL
RETURNING id;

-- name: store_fault
-- Store why the devices cannot be placed. Not applied: they are placed, or the same reason is stored.
UPDATE ota_campaigns SET placement = COALESCE(placement, '{}') || jsonb_build_object('fault', $3::text)
WHERE tenant_id = $1 AND id = $2 AND targeted_devices IS NOT NULL AND placement ->> 'fault' IS DISTINCT FROM $3::text
RETURNING id;

-- name: advance
-- Record that another $3 devices are placed, up to the device $4; $5: these were the last ones. $6 devices have become SKIPPED.
-- The campaign is locked.
UPDATE ota_campaigns
SET targeted_devices = CASE WHEN $5 THEN NULL ELSE targeted_devices + $3 END,
    targeted_up_to = CASE WHEN $5 THEN NULL ELSE $4::text END,
    total_devices = CASE WHEN $5 THEN GREATEST(total_devices, targeted_devices + $3) ELSE total_devices END,
    placement = CASE WHEN $5 THEN NULL ELSE placement - 'fault' END,
    pending = pending - $6, skipped = skipped + $6
WHERE tenant_id = $1 AND id = $2 AND targeted_devices IS NOT NULL
RETURNING total_devices;

-- name: filled
-- Record the last value ($4) of a budget ($3) and segment ($5) whose first devices have returned to the queue. The campaign is locked.
UPDATE ota_campaigns SET placement = COALESCE(placement, '{}') || jsonb_build_object('filled', jsonb_build_array($3::int, $4::text, $5::int))
WHERE tenant_id = $1 AND id = $2;

-- name: finish
-- The devices of the group are placed. The campaign is locked.
UPDATE ota_campaigns SET placement = NULL WHERE tenant_id = $1 AND id = $2;

-- name: unplaced
-- Whether devices have no place though all were placed: those that other SQL has inserted and that wait, and those in flight. For the
-- latter, the counters say that there are more devices than the cells have: this reads no devices.
SELECT (SELECT true FROM ota_device_status
        WHERE tenant_id = $1 AND campaign_id = $2 AND status = 'PENDING' AND attempt = 0 AND segment = 0
        ORDER BY segment, position, id LIMIT 1) IS NOT NULL AS waiting,
       COALESCE(c.pending + c.downloading + c.installing > l.devices, false) AS in_flight
FROM ota_campaigns c
CROSS JOIN (SELECT COALESCE(sum(waiting + in_flight), 0) AS devices
            FROM ota_campaign_cells WHERE tenant_id = $1 AND campaign_id = $2) AS l
WHERE c.tenant_id = $1 AND c.id = $2;
