-- The tables. What CREATE lists of the seven shared ones is what hosts read and write; what ALTER adds is
-- the engine's own, so that an adopted table ends up like a new one.

CREATE TABLE IF NOT EXISTS tenants (
    tenant_id text PRIMARY KEY CHECK (tenant_id <> '')
);

CREATE TABLE IF NOT EXISTS devices (
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    PRIMARY KEY (tenant_id, device_id)
);
ALTER TABLE devices
    ADD COLUMN IF NOT EXISTS device_type text,
    ADD COLUMN IF NOT EXISTS attributes jsonb NOT NULL DEFAULT '{}',
    ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE IF NOT EXISTS device_groups (
    tenant_id text NOT NULL,
    group_id text NOT NULL,
    PRIMARY KEY (tenant_id, group_id)
);
ALTER TABLE device_groups
    ADD COLUMN IF NOT EXISTS created_at timestamptz NOT NULL DEFAULT now();

CREATE TABLE IF NOT EXISTS device_group_members (
    tenant_id text NOT NULL,
    group_id text NOT NULL,
    device_id text NOT NULL,
    PRIMARY KEY (tenant_id, group_id, device_id)
);

CREATE TABLE IF NOT EXISTS firmware_versions (
    id bigserial,
    tenant_id text NOT NULL,
    version text NOT NULL,
    description text,
    file_url text NOT NULL,
    file_size_bytes bigint,
    checksum_sha256 text,
    device_type text,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text,
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE IF NOT EXISTS ota_campaigns (
    id bigserial,
    tenant_id text NOT NULL,
    name text NOT NULL,
    firmware_version_id bigint NOT NULL,
    target_group_id text,
    rollout_strategy text NOT NULL DEFAULT 'linear',
    rollout_rate integer NOT NULL DEFAULT 10,
    abort_threshold double precision NOT NULL DEFAULT 0.1,
    status text NOT NULL DEFAULT 'CREATED'
        CHECK (status IN ('CREATED', 'RUNNING', 'PAUSED', 'COMPLETED', 'ABORTED')),
    total_devices integer NOT NULL DEFAULT 0,
    succeeded integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    created_by text,
    PRIMARY KEY (tenant_id, id)
);
ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS canary_percent double precision DEFAULT 5,
    ADD COLUMN IF NOT EXISTS abort_min_completed integer DEFAULT 1,
    ADD COLUMN IF NOT EXISTS max_in_flight integer,            -- NULL: no cap
    ADD COLUMN IF NOT EXISTS progress_timeout double precision, -- seconds of silence; NULL: OTA_PROGRESS_TIMEOUT
    ADD COLUMN IF NOT EXISTS answer_timeout double precision,   -- seconds to the first word; NULL: as progress_timeout
    ADD COLUMN IF NOT EXISTS device_timeout double precision,   -- seconds in all; NULL: ROLLWAVE_DEVICE_TIMEOUT
    ADD COLUMN IF NOT EXISTS max_attempts integer,              -- sends in all; NULL: OTA_MAX_ATTEMPTS
    ADD COLUMN IF NOT EXISTS retry_on text[],                   -- failures tried again; NULL: no_answer, no_progress
    ADD COLUMN IF NOT EXISTS retry_delay double precision,      -- seconds, doubling; NULL: progress_timeout / 30
    ADD COLUMN IF NOT EXISTS retry_delay_max double precision,  -- seconds; NULL: an hour
    ADD COLUMN IF NOT EXISTS command text,                      -- the body, frozen when the first device is claimed
    ADD COLUMN IF NOT EXISTS wave integer NOT NULL DEFAULT 0,   -- the wave that may be sent to now
    ADD COLUMN IF NOT EXISTS sent integer NOT NULL DEFAULT 0,   -- devices claimed at least once
    ADD COLUMN IF NOT EXISTS pace_opened_at timestamptz,        -- when the current tick's window opened
    ADD COLUMN IF NOT EXISTS pace_used integer NOT NULL DEFAULT 0,
    ADD COLUMN IF NOT EXISTS status_reason text,                -- why it was paused or aborted
    ADD COLUMN IF NOT EXISTS settled_at timestamptz,            -- aborted, and no device is left unfinished
    ADD COLUMN IF NOT EXISTS reconciled_at timestamptz,         -- counters last compared with the rows
    ADD COLUMN IF NOT EXISTS idempotency_key text,
    ADD COLUMN IF NOT EXISTS idempotency_digest bytea;

CREATE TABLE IF NOT EXISTS ota_device_status (
    id bigserial,
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    device_id text NOT NULL,
    status text NOT NULL DEFAULT 'PENDING'
        CHECK (status IN ('PENDING', 'DOWNLOADING', 'INSTALLING', 'SUCCESS', 'FAILED', 'SKIPPED')),
    progress_pct integer NOT NULL DEFAULT 0,
    error_message text,
    started_at timestamptz,
    completed_at timestamptz,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (tenant_id, campaign_id, device_id)
);
ALTER TABLE ota_device_status
    ADD COLUMN IF NOT EXISTS attempt smallint NOT NULL DEFAULT 0,      -- the attempt claimed last; 0: never
    ADD COLUMN IF NOT EXISTS sent_attempt smallint NOT NULL DEFAULT 0, -- the attempt the broker acknowledged last
    ADD COLUMN IF NOT EXISTS heard_attempt smallint NOT NULL DEFAULT 0, -- the attempt the device last said a word in
    ADD COLUMN IF NOT EXISTS failed_attempt smallint NOT NULL DEFAULT 0, -- the attempt that failed last ...
    ADD COLUMN IF NOT EXISTS failed_reason text,                       -- ... and why: domain.retry.Reason
    ADD COLUMN IF NOT EXISTS refusals smallint NOT NULL DEFAULT 0,     -- times in a row that the broker refused it
    ADD COLUMN IF NOT EXISTS due_at timestamptz;                       -- when its lease, deadline or delay ends

-- A host's column may be too narrow for what devices say. Where something depends on its type, it stays.
DO $$
BEGIN
    ALTER TABLE ota_device_status ALTER COLUMN error_message TYPE text;
EXCEPTION WHEN feature_not_supported OR dependent_objects_still_exist THEN
    RAISE NOTICE 'ota_device_status.error_message keeps its type: %', SQLERRM;
END $$;

-- Since when have reports been coming in? Deadlines run only while somebody listens.
CREATE TABLE IF NOT EXISTS rollwave_listener_slots (
    slot integer PRIMARY KEY,
    topic_filter text,           -- what its session in the broker was subscribed to last
    listening_since timestamptz NOT NULL,
    subscribed_at timestamptz,   -- by the session that holds it now; NULL: not at the moment
    coming_at timestamptz NOT NULL, -- when a listener last set about subscribing
    holder integer NOT NULL,     -- that session's backend
    alive_at timestamptz NOT NULL
);

CREATE TABLE IF NOT EXISTS ota_campaign_waves (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    number integer NOT NULL,
    up_to integer,           -- devices that may be sent to in all while this wave is the current one; NULL: every one
    opened_at timestamptz,
    passed_at timestamptz,
    PRIMARY KEY (tenant_id, campaign_id, number)
);

CREATE TABLE IF NOT EXISTS ota_campaign_history (
    id bigserial,
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    device_id text,          -- NULL: the campaign as a whole
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    event text NOT NULL,
    actor text NOT NULL,     -- engine, or the API key's id
    detail jsonb NOT NULL DEFAULT '{}',
    PRIMARY KEY (tenant_id, campaign_id, id)
);

CREATE TABLE IF NOT EXISTS ota_quarantine (
    id bigserial,
    tenant_id text NOT NULL,
    device_id text NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now(),
    reason text NOT NULL,
    payload bytea NOT NULL,  -- the first 4 KB
    PRIMARY KEY (tenant_id, id)
);

CREATE TABLE IF NOT EXISTS rollwave_api_keys (
    tenant_id text NOT NULL,
    key_id text NOT NULL,
    name text NOT NULL DEFAULT '',
    role text NOT NULL CHECK (role IN ('viewer', 'operator', 'approver', 'admin')),
    secret_sha256 bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz,
    PRIMARY KEY (tenant_id, key_id)
);
