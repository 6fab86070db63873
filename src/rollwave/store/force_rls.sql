-- From now on the tables adopted from a host obey row-level security like the rest: the host's own logins
-- see a tenant's rows only after setting app.tenant_id, their owner included.
DO $$
DECLARE
    adopted record;
BEGIN
    FOR adopted IN SELECT table_name FROM rollwave_adopted_tables LOOP
        EXECUTE format('DROP POLICY IF EXISTS rollwave_host ON %I', adopted.table_name);
        EXECUTE format('ALTER TABLE %I FORCE ROW LEVEL SECURITY', adopted.table_name);
    END LOOP;
END $$;
