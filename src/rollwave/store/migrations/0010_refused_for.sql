-- Why the broker does not take a device's command, for as long as it does not: domain.refusal.Refusal. Beside the
-- number of times in a row (refusals), by which the device waits longer each time.

ALTER TABLE ota_device_status
    ADD COLUMN IF NOT EXISTS refused_for text;
