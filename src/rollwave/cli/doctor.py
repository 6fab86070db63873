"""`rollwave doctor`: what is wrong with an installation, and how to mend it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from rollwave.cli.output import Format, console, print_json

if TYPE_CHECKING:
    from rollwave.doctor.finding import Finding

_STYLES = {"ok": "green", "warning": "yellow", "problem": "bold red"}


def _login(text: str) -> tuple[str, str]:
    try:
        login = Path(text[1:]).read_text().strip() if text.startswith("@") else text
    except OSError as error:
        raise typer.BadParameter(f"{text[1:]} cannot be read: {error.strerror}") from error
    username, colon, password = login.partition(":")
    if not (username and colon):
        raise typer.BadParameter("use USER:PASSWORD, or @FILE with that in it")
    return username, password


def doctor(
    device_a: Annotated[
        str | None,
        typer.Option(metavar="USER:PASS", help="A device to try the broker's ACL with; @FILE holds it."),
    ] = None,
    device_b: Annotated[
        str | None,
        typer.Option(metavar="USER:PASS", help="Another one, best of another tenant."),
    ] = None,
    tenant: Annotated[
        str | None, typer.Option(metavar="T", help="Whose they are, where their user names do not say.")
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="json is for scripts.")] = Format.TABLE,
) -> None:
    """Look at the installation, and say how to mend what is wrong.

    Checks DATABASE_URL and MQTT_BROKER_URL as the engine would use them, and
    changes nothing. Exits 1 when there is a problem; a warning is yours to judge.

    With two devices' logins it tries whether either can act for the other. Both
    get empty messages: use devices that are not in the field.
    """
    from rollwave.doctor.examination import examine

    if (device_a is None) != (device_b is None):
        raise typer.BadParameter("name two devices, or none", param_hint="--device-a, --device-b")
    devices = [_login(each) for each in (device_a, device_b) if each is not None]
    findings = asyncio.run(examine(devices, tenant))
    problems = sum(finding.state == "problem" for finding in findings)
    if output is Format.JSON:
        from dataclasses import asdict

        print_json({"problems": problems, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
    if problems:
        raise typer.Exit(1)


def _print(findings: Sequence[Finding]) -> None:
    from rich.text import Text

    from rollwave.client.text import visible

    out = console()
    for finding in findings:
        line = Text(f"{finding.state.value:<8}", _STYLES[finding.state.value])
        line.append(f" {visible(finding.check)}: {visible(finding.text)}", "default")
        out.print(line)
        if finding.mend:
            out.print(f"         mend: {visible(finding.mend)}")
