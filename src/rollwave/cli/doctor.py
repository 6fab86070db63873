"""`rollwave doctor`: check an installation, and say how to fix what is wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.cli.output import Format, Output, console, printed

if TYPE_CHECKING:
    from rollwave.doctor.examination import Login
    from rollwave.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def _login(text: str) -> Login:
    from rollwave.doctor.examination import Login

    try:
        login = Path(text[1:]).read_text().strip() if text.startswith("@") else text
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]} cannot be read: {error.strerror}") from error
    username, colon, password = login.partition(":")
    if not (username and colon):
        raise typer.BadParameter("use USER:PASSWORD, or @FILE for a file that contains it")
    return Login(username, password)


def doctor(
    device_a: Annotated[
        str | None,
        typer.Option(
            metavar="USER:PASS", help="Login of a device, to test the broker's ACL; @FILE reads it from a file."
        ),
    ] = None,
    device_b: Annotated[
        str | None,
        typer.Option(metavar="USER:PASS", help="Login of another device, preferably of another tenant."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="T", help="Tenant of the devices, if their user names do not contain it.")
    ] = None,
    output: Output = Format.TABLE,
) -> None:
    """Check the installation, and say how to fix what is wrong.

    Checks DATABASE_URL and MQTT_BROKER_URL as the engine would use them, and
    changes nothing. Exits with 1 if there is a problem; warnings do not count.

    With the logins of two devices it tests whether one can act for the other.
    Both receive empty messages: use devices that are not in the field.
    """
    from rollwave.doctor.examination import examine

    if (device_a is None) != (device_b is None):
        raise typer.BadParameter("give the logins of two devices, or none", param_hint="--device-a, --device-b")
    devices = [_login(each) for each in (device_a, device_b) if each is not None]
    findings = asyncio.run(examine(devices, tenant))
    problems = sum(finding.state == "problem" for finding in findings)
    document = {"problems": problems, "findings": [asdict(finding) for finding in findings]}
    if not printed(document, output, (finding.check for finding in findings if finding.state == "problem")):
        print_findings(findings)
    if problems:
        raise typer.Exit(1)


def print_findings(findings: Sequence[Finding]) -> None:
    """Print a line for each finding, and how to fix what is wrong."""
    from rich.text import Text

    from rollwave.client.text import visible

    out = console()
    for finding in findings:
        line = Text(f"{finding.state.value:<8}", _STYLES[finding.state.value])
        line.append(f" {visible(finding.check)}: {visible(finding.text)}", "default")
        out.print(line)
        if finding.mend:
            out.print(f"         fix: {visible(finding.mend)}")
