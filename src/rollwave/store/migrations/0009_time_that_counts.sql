-- Deadlines stand still while nothing may be sent (domain/suspension.py).

ALTER TABLE ota_campaigns
    ADD COLUMN IF NOT EXISTS active_since timestamptz,  -- NULL: suspended, nothing may be sent
    ADD COLUMN IF NOT EXISTS active_at timestamptz,     -- when it was last known to be active; NULL: never
    ADD COLUMN IF NOT EXISTS suspended_for double precision NOT NULL DEFAULT 0,    -- seconds, in all
    ADD COLUMN IF NOT EXISTS suspended_lately double precision NOT NULL DEFAULT 0; -- seconds of it that deadlines still make up for
