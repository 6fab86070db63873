-- name: insert
-- Insert an execution for each of the next $6 members of the group, ordered by device id, after the device $5 (empty: from the
-- first). A device of another type than the firmware's is SKIPPED. Members are selected first, with $5 in the index condition,
-- and then the type of each is looked up, so that a batch costs the same at any position. No custom plan is forced: the
-- foreign key's check would be planned again for each row, which takes longer than everything else.
WITH batch AS (
    SELECT device_id
    FROM device_group_members
    WHERE tenant_id = $1 AND group_id = $3 AND device_id >= $5 AND (device_id > $5 OR $5 = '')
    ORDER BY device_id
    LIMIT $6
), typed AS MATERIALIZED (
    SELECT device_id,
           CASE WHEN $4::text IS NOT NULL
                THEN (SELECT d.device_type::text FROM devices d
                      WHERE d.tenant_id = $1 AND d.device_id = batch.device_id) END AS device_type
    FROM batch
), targeted AS (
    INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, error_message, completed_at)
    SELECT $1, $2, device_id,
           CASE WHEN device_type <> $4 THEN 'SKIPPED' ELSE 'PENDING' END,
           CASE WHEN device_type <> $4
                THEN ota_fitting('device type ' || device_type || ' does not match the firmware''s, ' || $4::text) END,
           CASE WHEN device_type <> $4 THEN statement_timestamp() END
    FROM typed
    ORDER BY device_id
    ON CONFLICT DO NOTHING
    RETURNING status
)
SELECT (SELECT count(*) FROM batch)::int AS devices,
       (SELECT max(device_id) FROM batch) AS up_to,
       (count(*) FILTER (WHERE status = 'PENDING'))::int AS pending,
       (count(*) FILTER (WHERE status = 'SKIPPED'))::int AS skipped
FROM targeted;

-- name: first_members
-- The members of the first batch of $3.
SELECT device_id FROM device_group_members WHERE tenant_id = $1 AND group_id = $2 ORDER BY device_id LIMIT $3;

-- name: count_members
SELECT count(*)::int FROM device_group_members WHERE tenant_id = $1 AND group_id = $2;

-- name: fits_another
-- Whether the group has a member after the device $4 that can be sent to.
SELECT EXISTS (
    SELECT FROM device_group_members m
    WHERE m.tenant_id = $1 AND m.group_id = $2 AND m.device_id > $4
      AND ((SELECT d.device_type::text FROM devices d
            WHERE d.tenant_id = $1 AND d.device_id = m.device_id) <> $3::text) IS NOT TRUE);

-- name: lock_or_skip
-- Lock the campaign's row until the transaction ends. No row: another transaction has locked it.
SELECT id FROM ota_campaigns WHERE tenant_id = $1 AND id = $2 FOR NO KEY UPDATE SKIP LOCKED;

-- name: begin
-- Record that $4 of $3 devices are targeted, up to the device $5; $4 and $5 are NULL if all are. Of the targeted devices, $6
-- are PENDING and $7 SKIPPED.
UPDATE ota_campaigns
SET total_devices = $3, targeted_devices = $4, targeted_up_to = $5,
    pending = $6, downloading = 0, installing = 0, skipped = $7
WHERE tenant_id = $1 AND id = $2;

-- name: advance
-- Record that another $3 devices are targeted, up to the device $4. $5: these were the last ones, and total_devices becomes
-- their number. $6 of the $3 are PENDING and $7 SKIPPED. The row is locked. Not applied: the campaign is targeted already.
UPDATE ota_campaigns
SET total_devices = CASE WHEN $5 THEN targeted_devices + $3 ELSE GREATEST(total_devices, targeted_devices + $3) END,
    targeted_devices = CASE WHEN $5 THEN NULL ELSE targeted_devices + $3 END,
    targeted_up_to = CASE WHEN $5 THEN NULL ELSE $4::text END,
    pending = pending + $6, skipped = skipped + $7
WHERE tenant_id = $1 AND id = $2 AND targeted_devices IS NOT NULL
RETURNING total_devices,
          EXTRACT(epoch FROM clock_timestamp() - COALESCE(created_at, statement_timestamp()))::float8 AS took;
