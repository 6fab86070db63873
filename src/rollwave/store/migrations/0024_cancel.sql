-- A campaign that was cancelled is ABORTED, and its devices in progress are told so.

ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS cancelled_at timestamptz,   -- NULL: devices in progress are not told
    ADD COLUMN IF NOT EXISTS cancel_next_at timestamptz; -- from then on the next cancel commands may be claimed

ALTER TABLE ota_device_status
    ADD COLUMN IF NOT EXISTS cancel_claimed_until timestamptz, -- until then a worker sends it the cancel command; after it, another may
    ADD COLUMN IF NOT EXISTS cancel_sent_at timestamptz;       -- the broker acknowledged its cancel command
