"""Functions that triggers run work with the rights of the tables' owner, and use nothing that a caller made."""

from __future__ import annotations

import pytest

from tests.engine import connect
from tests.support import psql, rollwave

pytestmark = pytest.mark.parametrize("postgres", ["embedded", "debian"], indirect=True)


@pytest.mark.parametrize("place", ["pg_temp", "public"])
async def test_tables_and_operators_of_the_caller_do_not_run_as_the_owner(empty_database: str, place: str) -> None:
    """Neither a caller's table with the same name, nor a caller's operator that matches the types better, is used."""
    psql(
        empty_database, "CREATE TABLE tenants (tenant_id varchar(64)); INSERT INTO tenants VALUES ('north'), ('south')"
    )
    psql(empty_database, "CREATE TABLE worked_as (who name); GRANT INSERT ON worked_as TO PUBLIC")
    assert rollwave("migrate", env={"DATABASE_URL": empty_database}).returncode == 0
    async with connect(empty_database) as root:
        await root.execute("CREATE ROLE intruder LOGIN")
        await root.execute("GRANT pulse_app TO intruder; GRANT CREATE ON SCHEMA public TO intruder")
        await root.execute("GRANT SELECT, DELETE ON tenants TO intruder")
        async with connect(empty_database.replace("postgres@", "intruder@", 1)) as login:
            for table in ("rollwave_group_import_devices", "rollwave_adopted_tables"):
                await login.execute(f"CREATE TEMP TABLE {table} (tenant_id text, import_id bigint, table_name text)")
            await login.execute(
                f"""
                CREATE FUNCTION {place}.noted() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN INSERT INTO public.worked_as VALUES (current_user); RETURN NULL; END $$;
                CREATE TRIGGER noted AFTER DELETE ON pg_temp.rollwave_group_import_devices
                    FOR EACH STATEMENT EXECUTE FUNCTION {place}.noted();
                GRANT ALL ON pg_temp.rollwave_group_import_devices TO PUBLIC;
                CREATE FUNCTION {place}.same(varchar, varchar) RETURNS boolean LANGUAGE plpgsql AS
                    $$ BEGIN INSERT INTO public.worked_as VALUES (current_user); RETURN true; END $$;
                CREATE OPERATOR {place}.= (FUNCTION = {place}.same, LEFTARG = varchar, RIGHTARG = varchar);
                """
            )
            await login.execute("DELETE FROM tenants WHERE tenant_id::text = 'south'")
            await login.execute("SET ROLE pulse_app; SET app.tenant_id = 'north'")
            await login.execute(
                "INSERT INTO rollwave_group_imports (tenant_id, group_id, created_by, expires_at)"
                " VALUES ('north', 'all', 'test', now() + interval '1 hour')"
            )
            await login.execute("DELETE FROM rollwave_group_imports")
        assert await root.fetch("SELECT * FROM worked_as") == []


@pytest.mark.parametrize("function", ["rollwave_forget_campaign", "rollwave_forget_import", "rollwave_forget_tenant"])
async def test_a_trigger_on_any_other_table_is_refused(database: str, function: str) -> None:
    async with connect(database) as root:
        await root.execute(
            "CREATE TEMP TABLE tenants (tenant_id text, id bigint); INSERT INTO tenants VALUES ('north', 1)"
        )
        for event in ("DELETE", "TRUNCATE"):
            each = "ROW" if event == "DELETE" else "STATEMENT"
            await root.execute(
                f"CREATE TRIGGER of_{event} AFTER {event} ON pg_temp.tenants"
                f" FOR EACH {each} EXECUTE FUNCTION {function}()"
            )
        with pytest.raises(Exception, match="this trigger is for"):
            await root.execute("DELETE FROM pg_temp.tenants")
        with pytest.raises(Exception, match="this trigger is for"):
            await root.execute("TRUNCATE pg_temp.tenants")
