"""Commands in the README do what the README says."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from tests.servers import Mosquitto
from tests.support import environment, eventually, psql, rollwave, rollwave_running

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


async def test_the_readmes_campaign_by_hand_works(empty_database: str, mosquitto: Mosquitto, tmp_path: Path) -> None:
    (sql,) = re.findall(r"```sql\n(.*?)```", README, re.DOTALL)
    (report,) = re.findall(r"^mosquitto_pub .*$", README, re.MULTILINE)
    settings = {"DATABASE_URL": empty_database, "MQTT_BROKER_URL": mosquitto.url, "OTA_TICK_INTERVAL": "0.2"}
    assert rollwave("migrate", env=settings).returncode == 0
    async with rollwave_running("worker", log=tmp_path / "worker", env=settings) as worker:
        await eventually(lambda: "ota_status_listener_subscribed" in worker.output(), what="listening")
        psql(empty_database, sql)
        await eventually(lambda: psql(empty_database, "SELECT status FROM ota_device_status") == "DOWNLOADING")
        here = report.replace("mosquitto_pub", f"mosquitto_pub -p {mosquitto.port}")
        subprocess.run(["sh", "-c", here], env=environment(), check=True)
        await eventually(lambda: psql(empty_database, "SELECT status FROM ota_campaigns") == "COMPLETED")


def test_every_link_in_the_docs_has_a_target() -> None:
    root = Path(__file__).parents[2]
    targets = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert [target for target in targets if not (root / target).exists()] == []
