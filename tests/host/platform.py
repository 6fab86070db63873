"""The host's database, as its migrations create it, and its logins."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tests.engine import connect
from tests.support import rollwave

HERE = Path(__file__).parent

RUNNING = 3
"""The campaign of 24 devices that runs when Rollwave is installed."""

_LOGINS = ("host_owner", "host_service", "host_reports", "rollwave_worker")


@dataclass(frozen=True, slots=True)
class Host:
    """URLs of one database, by login.

    ``root``: a superuser · ``owner``: owns the tables · ``service``: works as ``pulse_app`` · ``reports``: reads ·
    ``worker``: a login for Rollwave's workers, which ``migrate`` has to grant rights to.
    """

    root: str
    owner: str
    service: str
    reports: str
    worker: str

    def migrate(self, *arguments: str, url: str | None = None) -> str:
        """Run ``rollwave migrate`` as ``root``, or with ``url``. Returns its output."""
        done = rollwave("migrate", *arguments, env={"DATABASE_URL": url or self.root})
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr


async def make_host(database: str, *, rows: bool = True) -> Host:
    """Create the host's tables in an empty ``database``, and its ``rows``."""

    def login(name: str) -> str:
        return database.replace("postgres@", f"{name}@", 1)

    name = database.partition("@/")[2].partition("?")[0]
    async with connect(database) as root:
        for role, how in (("pulse_app", "NOLOGIN NOINHERIT"), *((each, "LOGIN") for each in _LOGINS)):
            if not await root.fetchval("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", role):
                await root.execute(f"CREATE ROLE {role} {how}")
        await root.execute("GRANT pulse_app TO host_service")
        await root.execute(f"ALTER DATABASE {name} OWNER TO host_owner")
        await root.execute("ALTER SCHEMA public OWNER TO host_owner; GRANT USAGE ON SCHEMA public TO pulse_app")
    async with connect(login("host_owner")) as owner:
        await owner.execute((HERE / "schema.sql").read_text())
        if rows:
            await owner.execute((HERE / "rows.sql").read_text())
    return Host(database, *(login(each) for each in _LOGINS))
