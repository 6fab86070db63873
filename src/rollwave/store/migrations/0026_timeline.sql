-- The past of a campaign for charts: its counters from time to time, and what its policy planned.

-- The counters at one time. Old points are removed (domain/overview/timeline.py), so there are at most a few hundred of a campaign.
CREATE TABLE ota_campaign_points (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    at timestamptz NOT NULL,
    pending integer NOT NULL,
    downloading integer NOT NULL,
    installing integer NOT NULL,
    succeeded integer NOT NULL,
    failed integer NOT NULL,
    skipped integer NOT NULL,
    PRIMARY KEY (tenant_id, campaign_id, at)
);

-- The plan of one revision of the policy. It is made once and does not change.
CREATE TABLE ota_campaign_plans (
    tenant_id text NOT NULL,
    campaign_id bigint NOT NULL,
    revision integer NOT NULL,              -- 0: the flat columns of the campaign
    made_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    ends_at timestamptz,                    -- when the last device is sent to; NULL: there is no plan, or its end is not known
    points_at float8[] NOT NULL,            -- epoch seconds, rising; empty: there is no plan
    devices integer[] NOT NULL,             -- sent to by each of these times
    PRIMARY KEY (tenant_id, campaign_id, revision)
);

-- Events of a campaign itself, without those of its devices: there may be a hundred thousand of these.
CREATE INDEX ota_campaign_history_of_campaign ON ota_campaign_history (tenant_id, campaign_id, id) WHERE device_id IS NULL;

DO $$
DECLARE
    of_table text;
BEGIN
    FOREACH of_table IN ARRAY ARRAY['ota_campaign_points', 'ota_campaign_plans'] LOOP
        EXECUTE format('ALTER TABLE %I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', of_table);
        -- They go with their campaign by a foreign key, or where a host made the campaigns by the triggers of 0020.
        IF NOT EXISTS (SELECT FROM rollwave_adopted_tables WHERE table_name = 'ota_campaigns') THEN
            EXECUTE format('ALTER TABLE %I ADD FOREIGN KEY (tenant_id, campaign_id) REFERENCES ota_campaigns (tenant_id, id)
                            ON DELETE CASCADE', of_table);
        END IF;
    END LOOP;
END $$;
