-- What some hosts have besides: narrower columns, and keys, checks and triggers of their own. After schema.sql and rows.sql.

CREATE TABLE device_kinds (name varchar(50) PRIMARY KEY);
INSERT INTO device_kinds VALUES ('pump'), ('valve');
ALTER TABLE devices ADD COLUMN device_type varchar(50);
ALTER TABLE devices ADD CONSTRAINT no_prototypes CHECK (device_type NOT LIKE 'prototype%');

ALTER TABLE firmware_versions ALTER COLUMN file_size_bytes TYPE integer;
ALTER TABLE firmware_versions ALTER COLUMN description TYPE varchar(300);
ALTER TABLE firmware_versions ADD CONSTRAINT known_kind FOREIGN KEY (device_type) REFERENCES device_kinds (name);
ALTER TABLE firmware_versions ADD CONSTRAINT no_betas CHECK (version NOT LIKE '%beta%');
ALTER TABLE firmware_versions ADD CONSTRAINT one_version_a_url UNIQUE (tenant_id, file_url);
CREATE TABLE shipped (firmware_id integer NOT NULL REFERENCES firmware_versions (id));

CREATE DOMAIN short_id AS varchar(64) CHECK (VALUE !~ ' ');
ALTER TABLE ota_campaigns ALTER COLUMN rollout_rate TYPE smallint;
ALTER TABLE ota_campaigns ALTER COLUMN abort_threshold TYPE numeric(3, 2);
ALTER TABLE ota_campaigns ALTER COLUMN target_group_id TYPE short_id;
ALTER TABLE ota_campaigns ADD COLUMN status_reason varchar(15);
ALTER TABLE ota_campaigns ADD COLUMN max_attempts smallint;
ALTER TABLE ota_campaigns ADD CONSTRAINT one_name UNIQUE (tenant_id, name);
ALTER TABLE ota_campaigns ADD CONSTRAINT linear_only CHECK (rollout_strategy = 'linear' OR rollout_rate < 1000);
ALTER TABLE ota_campaigns ADD CONSTRAINT one_pilot EXCLUDE USING btree (tenant_id WITH =) WHERE (name LIKE 'pilot%');

-- A device's own id may be 100 characters long, and in a campaign 80.
ALTER TABLE ota_device_status ALTER COLUMN device_id TYPE varchar(80);

CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;
CREATE TRIGGER signed BEFORE INSERT ON firmware_versions
    FOR EACH ROW WHEN (NEW.description = 'unsigned') EXECUTE FUNCTION refuse('firmware must be signed');
CREATE TRIGGER kept BEFORE DELETE ON firmware_versions
    FOR EACH ROW WHEN (OLD.version LIKE 'kept%') EXECUTE FUNCTION refuse('an auditor keeps this firmware');
CREATE TRIGGER holidays BEFORE UPDATE ON ota_campaigns
    FOR EACH ROW WHEN (NEW.name LIKE 'holiday%' AND NEW.status = 'RUNNING') EXECUTE FUNCTION refuse('no rollouts on holidays');
-- One that is deferred speaks up at the commit.
CREATE CONSTRAINT TRIGGER audited AFTER INSERT ON devices DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.device_id LIKE 'unaudited%') EXECUTE FUNCTION refuse('devices must be audited');
-- One that is broken: it writes to a table that there is not.
CREATE FUNCTION log_group() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO group_log VALUES (NEW.group_id);
    RETURN NEW;
END $$;
CREATE TRIGGER logged BEFORE INSERT ON device_groups
    FOR EACH ROW WHEN (NEW.group_id LIKE 'logged%') EXECUTE FUNCTION log_group();
