-- Budgets of a policy document: at most so many devices in flight with the same value of a label.

-- The values of the budgets' labels, in the document's order; an element is NULL if the device does not have the label. NULL: no
-- budgets. A device that a budget holds has a negative segment: it is not in the queue.
ALTER TABLE ota_device_status ADD COLUMN IF NOT EXISTS budget_values text[];

ALTER TABLE ota_campaign_cells ADD COLUMN held integer NOT NULL DEFAULT 0; -- of those waiting, devices that a budget holds

-- One row for each value of a budget that a device was sent to for.
CREATE TABLE ota_campaign_budget_values (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    budget smallint NOT NULL CHECK (budget >= 1),      -- its place in the document, from 1
    value text COLLATE "C" NOT NULL,
    in_flight integer NOT NULL DEFAULT 0,
    held_segments integer[] NOT NULL DEFAULT '{}',     -- segments of which it may hold devices
    owed integer NOT NULL DEFAULT 0,                   -- devices that were locked when they should have returned to the queue
    PRIMARY KEY (tenant_id, campaign_id, budget, value)
) WITH (fillfactor = 50);
CREATE INDEX ota_campaign_budget_values_owed ON ota_campaign_budget_values (tenant_id, campaign_id) WHERE owed > 0;

-- The devices that a value of a budget holds, in the order in which they return to the queue.
CREATE TABLE ota_campaign_budget_held (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    budget smallint NOT NULL,
    value text COLLATE "C" NOT NULL,
    segment integer NOT NULL,
    position bigint NOT NULL,
    device_id text NOT NULL,   -- in the collation of ota_device_status, so that its index can be used
    PRIMARY KEY (tenant_id, campaign_id, budget, value, segment, position, device_id)
);

-- The value of a label as budgets store it: of a long one the beginning and a hash, since it is part of a key.
CREATE FUNCTION rollwave_budget_value(label text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN octet_length(label) > 400 THEN left(label, 80) || '#' || md5(label) ELSE label END;
REVOKE ALL ON FUNCTION rollwave_budget_value(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION rollwave_budget_value(text) TO pulse_app;

DO $$
DECLARE
    of_table text;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['ota_campaign_budget_values', 'ota_campaign_budget_held'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
        -- They go with their campaign by a foreign key, or where a host made the campaigns by the triggers of 0020.
        IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'ota_campaigns') THEN
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (tenant_id, campaign_id) REFERENCES ota_campaigns (tenant_id, id)
                            ON DELETE CASCADE', of_table);
        END IF;
    END LOOP;
END $$;
