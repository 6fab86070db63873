-- What the host's own worker left behind: one campaign of the past that is done, one that it aborted, and one that
-- runs (id 3, 24 devices) with what lay about in it for days.

INSERT INTO tenants (tenant_id, name) VALUES ('north', 'North'), ('south', 'South');
INSERT INTO devices (tenant_id, device_id, name)
    SELECT tenant_id, 'dev-' || n, 'Device ' || n FROM tenants, generate_series(1, 24) AS n;
INSERT INTO device_groups (tenant_id, group_id, name) VALUES ('north', 'all', 'All of them');
INSERT INTO device_group_members SELECT tenant_id, 'all', device_id FROM devices WHERE tenant_id = 'north';
INSERT INTO firmware_versions (tenant_id, version, file_url, checksum_sha256, device_type, created_by)
    VALUES ('north', '1.0', 'https://files.invalid/1', repeat('a', 64), 'pump', 'host'),
           ('north', '2.0', 'https://files.invalid/2', NULL, NULL, NULL),
           ('south', '9.0', 'https://files.invalid/9', '', 'pump', 'host');
INSERT INTO ota_campaigns (tenant_id, name, firmware_version_id, target_group_id, rollout_rate, abort_threshold,
                           status, total_devices, succeeded, failed, started_at, completed_at, created_by)
    VALUES ('north', 'done', 1, 'all', 10, 0.1, 'COMPLETED', 2, 2, 0, now() - '9 days'::interval, now() - '8 days'::interval, 'host'),
           ('north', 'stopped', 1, 'all', 10, 0.1, 'ABORTED', 4, 0, 1, now() - '7 days'::interval, NULL, 'host'),
           ('north', 'running', 2, 'all', 5, 0.1, 'RUNNING', 24, 4, 0, now() - '5 days'::interval, NULL, 'host');

INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, progress_pct, error_message,
                               started_at, completed_at)
    VALUES ('north', 1, 'dev-1', 'SUCCESS', 100, NULL, now() - '9 days'::interval, now() - '8 days'::interval),
           ('north', 1, 'dev-2', 'SUCCESS', 100, NULL, now() - '9 days'::interval, now() - '8 days'::interval),
           ('north', 2, 'dev-1', 'FAILED', 40, 'no space left', now() - '7 days'::interval, now() - '7 days'::interval),
           ('north', 2, 'dev-2', 'DOWNLOADING', 10, NULL, now() - '7 days'::interval, NULL),
           ('north', 2, 'dev-3', 'PENDING', 0, NULL, NULL, NULL),
           ('north', 2, 'dev-4', 'PENDING', 0, NULL, NULL, NULL);
-- dev-1 to dev-4 are done. dev-5 to dev-9 were done at once, and the dispatcher, a moment later, wrote DOWNLOADING over
-- it. dev-10 to dev-17 have been on their way for days. dev-18 to dev-24 wait.
INSERT INTO ota_device_status (tenant_id, campaign_id, device_id, status, progress_pct, started_at, completed_at)
    SELECT 'north', 3, 'dev-' || n,
           CASE WHEN n <= 4 THEN 'SUCCESS' WHEN n <= 13 THEN 'DOWNLOADING' WHEN n <= 17 THEN 'INSTALLING' ELSE 'PENDING' END,
           CASE WHEN n <= 9 THEN 100 WHEN n <= 13 THEN 30 WHEN n <= 17 THEN 100 ELSE 0 END,
           CASE WHEN n <= 17 THEN now() - '4 days'::interval END,
           CASE WHEN n <= 9 THEN now() - '4 days'::interval + '1 second'::interval END
    FROM generate_series(1, 24) AS n;
