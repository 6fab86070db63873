-- Guardrails of a policy document: their tests, and the devices in the order in which they were sent to.

-- Failures of the device that an operator's retry followed, each as reason:code. A test counts a device once, also if it fails
-- again.
ALTER TABLE ota_device_status ADD COLUMN IF NOT EXISTS failed_before text[];

-- One row for each guardrail and each group of devices that it judges by itself: the campaign, a wave, or the devices with the
-- same values of the labels in per. A test that begins anew keeps its row. With scope wave or segment, the row with wave -1 and
-- without labels says when tests that begin later have begun.
CREATE TABLE ota_campaign_tests (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    number integer NOT NULL CHECK (number >= 1),
    guardrail text NOT NULL,                     -- its name
    wave integer NOT NULL DEFAULT -1,            -- scope wave: the number of the wave
    labels jsonb NOT NULL DEFAULT '{}',          -- scope segment: the values of per; null: the devices do not have the label
    labels_key text NOT NULL DEFAULT '',         -- a hash of them, since an index of long labels is not possible; '': none
    generation integer NOT NULL DEFAULT 1,       -- how often it has begun
    revision integer NOT NULL,                   -- the document in force when it began
    began_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    began_after integer NOT NULL DEFAULT 0,      -- it covers devices with a higher dispatch number, and those in flight when it began
    of_groups integer NOT NULL DEFAULT 1,        -- groups of this guardrail that were known then: each is judged at alpha / groups
    dispatched integer NOT NULL DEFAULT 0,       -- devices that were sent to: counted for the method sequential only
    finished integer NOT NULL DEFAULT 0,         -- devices that have finished for good
    failed integer NOT NULL DEFAULT 0,           -- of these, counted failures
    tripped_at timestamptz,
    evidence jsonb,                              -- of the trip
    PRIMARY KEY (tenant_id, campaign_id, number)
) WITH (fillfactor = 50);
CREATE UNIQUE INDEX ota_campaign_tests_group
    ON ota_campaign_tests (tenant_id, campaign_id, guardrail, wave, labels_key);

-- The devices of a test from dispatch number first up to the next bucket.
CREATE TABLE ota_campaign_test_buckets (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    test integer NOT NULL,
    first integer NOT NULL,
    dispatched integer NOT NULL DEFAULT 0,
    finished integer NOT NULL DEFAULT 0,
    failed integer NOT NULL DEFAULT 0,
    PRIMARY KEY (tenant_id, campaign_id, test, first)
) WITH (fillfactor = 50);

DO $$
DECLARE
    of_table text;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['ota_campaign_tests', 'ota_campaign_test_buckets'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
        -- They go with their campaign by a foreign key, or where a host made the campaigns by the triggers of 0020.
        IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'ota_campaigns') THEN
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (tenant_id, campaign_id) REFERENCES ota_campaigns (tenant_id, id)
                            ON DELETE CASCADE', of_table);
        END IF;
    END LOOP;
END $$;
