"""Build the image's file system without a container engine, and check it.

Runs the Dockerfile's steps in roots made by debootstrap, which has the packages of debian:bookworm-slim. Then checks
the last stage: no pip and no compiler in it, and the program runs as the image's user on a read-only root without
capabilities. With DATABASE_URL and MQTT_BROKER_URL set, it also migrates, serves, runs the image's health check and
stops with the image's signal.

Needs root, debootstrap, util-linux and the package registries; takes a minute or two.

    python3 scripts/replay_image.py /var/tmp/replay [--base DIRECTORY]
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

CONTEXT = Path(__file__).resolve().parents[1]
SUITE, MIRROR = "bookworm", "http://deb.debian.org/debian"
SOURCES = f"""\
deb {MIRROR} {SUITE} main
deb {MIRROR} {SUITE}-updates main
deb {MIRROR}-security {SUITE}-security main
"""

UNWANTED = (
    "pip",
    "pip3",
    "gcc",
    "cc",
    "g++",
    "c++",
    "clang",
    "ld",
    "as",
    "make",
    "cargo",
    "rustc",
    "curl",
    "wget",
    "git",
)
PLACES = ("/opt/rollwave/bin", "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
PASSED_ON = ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")
"""Variables of this machine's registries, for the build's steps alone, as an engine's build arguments are."""

LINE = 76


@dataclass
class Stage:
    """A root, and what the Dockerfile has said about it so far."""

    root: Path
    env: dict[str, str] = field(
        default_factory=lambda: {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    )
    workdir: str = "/"
    user: str = "0:0"
    health: list[str] = field(default_factory=list)
    entrypoint: list[str] = field(default_factory=list)
    command: list[str] = field(default_factory=list)
    stop: signal.Signals = signal.SIGTERM


def main() -> None:
    options = argparse.ArgumentParser(description="Build the image without a container engine, and check it.")
    options.add_argument("directory", type=Path, help="new, on a disk with 2 GB")
    options.add_argument("--base", type=Path, help="a debootstrap root to copy instead of making one")
    given = options.parse_args()
    given.directory.mkdir(parents=True)
    base = given.base or bootstrap(given.directory / "base")
    image = build(given.directory, base)
    check(image)
    print("replay-image: all checks passed")


def bootstrap(root: Path) -> Path:
    run("debootstrap", "--variant=minbase", SUITE, str(root), MIRROR)
    return root


def build(directory: Path, base: Path) -> Stage:
    """Run every instruction. Returns the last stage."""
    stages: dict[str, Stage] = {}
    stage: Stage | None = None
    for word, rest in instructions((CONTEXT / "Dockerfile").read_text()):
        say(f"{word} {rest}"[:LINE])
        if word == "FROM":
            image, _, name = rest.partition(" AS ")
            if image != f"debian:{SUITE}-slim":
                fail(f"cannot replay FROM {image}")
            stage = Stage(directory / (name or "image"))
            stages[name] = stage
            run("cp", "--archive", str(base), str(stage.root))
            (stage.root / "etc/apt/sources.list").write_text(SOURCES)
        elif stage is None:
            fail(f"{word} before FROM")
        else:
            step(stage, stages, word, rest)
    if stage is None:
        fail("no FROM")
    return stage


def instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in whole)]


def step(stage: Stage, stages: dict[str, Stage], word: str, rest: str) -> None:
    match word:
        case "COPY":
            copy(stage, stages, shlex.split(rest))
        case "RUN":
            in_root(stage, rest)
        case "WORKDIR":
            stage.workdir = rest
            (stage.root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        case "LABEL" | "EXPOSE":
            pass
        case _:
            configure(stage, word, rest)


def configure(stage: Stage, word: str, rest: str) -> None:
    match word:
        case "ENV" | "ARG":
            stage.env |= dict(pair.split("=", 1) for pair in shlex.split(rest))
        case "USER":
            stage.user = rest
        case "STOPSIGNAL":
            stage.stop = signal.Signals[rest]
        case "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
        case "ENTRYPOINT":
            stage.entrypoint = json.loads(rest)
        case "CMD":
            stage.command = json.loads(rest)
        case _:
            fail(f"cannot replay {word}")


def copy(stage: Stage, stages: dict[str, Stage], words: list[str]) -> None:
    source_root, allowed = CONTEXT, context_names()
    if words[0].startswith("--from="):
        source_root, allowed = stages[words.pop(0).removeprefix("--from=")].root, None
    *sources, target = words
    into = stage.root / (PurePosixPath(stage.workdir) / target).relative_to("/")
    for name in sources:
        if allowed is not None and name not in allowed:
            fail(f"COPY {name}: .dockerignore keeps it out of the context")
        source = source_root / name.lstrip("/")
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__") if allowed is not None else None
            shutil.copytree(source, into, symlinks=True, dirs_exist_ok=True, ignore=ignored)
        else:
            shutil.copy(source, into / source.name if target.endswith("/") else into)


def context_names() -> set[str]:
    lines = (CONTEXT / ".dockerignore").read_text().splitlines()
    return {line.removeprefix("!") for line in lines if line.startswith("!")}


def in_root(stage: Stage, command: str) -> None:
    """One RUN, as root, with the network of this machine."""
    env = stage.env | {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    shutil.copy("/etc/resolv.conf", stage.root / "etc/resolv.conf")
    mounts = 'mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev"'
    if "PIP_CERT" in os.environ:
        env["PIP_CERT"] = "/run/registry-ca.crt"
        (stage.root / "run/registry-ca.crt").touch()
        mounts += ' && mount --bind "$PIP_CERT_HERE" "$0/run/registry-ca.crt"'
    script = f'{mounts} && exec env -i {shell_words(env)} /usr/sbin/chroot "$0" /bin/sh -c "cd $1 && $2"'
    run(
        *("unshare", "--mount", "--pid", "--fork", "sh", "-c", script, str(stage.root), stage.workdir, command),
        env=os.environ | {"PIP_CERT_HERE": os.environ.get("PIP_CERT", "")},
    )
    (stage.root / "run/registry-ca.crt").unlink(missing_ok=True)


def check(image: Stage) -> None:
    for name in UNWANTED:
        found = [path for path in PLACES if (image.root / path.lstrip("/") / name).exists()]
        if found:
            fail(f"{name} is in the image, in {found}")
    size = sum(path.lstat().st_size for path in image.root.rglob("*") if path.is_file() and not path.is_symlink())
    say(f"no {', '.join(UNWANTED)}; {size / 1e6:.0f} MB")
    if started(image, ["python3", "-c", "import pip"], stderr=subprocess.DEVNULL).wait() == 0:
        fail("pip can be imported")
    for command in (["--version"], ["--help"], ["serve", "--help"], ["migrate", "--help"]):
        require(image, [*image.entrypoint, *command])
    require(
        image,
        ["python3", "-c", "import rollwave.api.app, rollwave.engine.worker.worker, rollwave.fleet, rollwave.doctor"],
    )
    wrote = "import os, pathlib, sys\nassert os.getuid() == 10001\ntry: pathlib.Path(sys.argv[1], 'x').touch()\n"
    for place in ("/", "/tmp", "/opt/rollwave", "/run"):  # noqa: S108  it must not be written to
        require(image, ["python3", "-c", f"{wrote}except OSError: pass\nelse: sys.exit('written')", place])
    say(f"runs as {image.user} on a read-only root, without capabilities, and can write nowhere")
    if "DATABASE_URL" in os.environ:
        check_service(image)
    else:
        say("DATABASE_URL is not set: `rollwave serve` was not tried")


def check_service(image: Stage) -> None:
    require(image, [*image.entrypoint, "migrate"])
    service = started(image, [*image.entrypoint, *image.command])
    try:
        deadline = time.monotonic() + 30
        while started(image, image.health, stderr=subprocess.DEVNULL).wait() != 0:
            if service.poll() is not None or time.monotonic() > deadline:
                fail("`rollwave serve` is not healthy after 30 s")
            time.sleep(0.5)
        service.send_signal(image.stop)
        if code := service.wait(timeout=30):
            fail(f"`rollwave serve` exits {code} on {image.stop.name}")
    finally:
        service.kill()
    say(f"migrates, serves, is healthy by the image's own check, and exits 0 on {image.stop.name}")


def require(image: Stage, command: list[str]) -> None:
    if code := started(image, command, stdout=subprocess.DEVNULL).wait():
        fail(f"{shlex.join(command)} exits {code}")


def started(image: Stage, command: list[str], **streams: int) -> subprocess.Popen[bytes]:
    """A process as the image's user, on a read-only root, without capabilities and without new privileges."""
    uid, gid = image.user.split(":")
    env = image.env | {"HOME": "/nonexistent"}
    env |= {name: value for name, value in os.environ.items() if name.startswith(("DATABASE_", "MQTT_", "ROLLWAVE_"))}
    script = (
        'mount --bind "$0" "$0" && mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && '
        f'mount -o remount,ro,bind "$0" && exec env -i {shell_words(env)} /usr/sbin/chroot "$0" '
        f'setpriv --reuid {uid} --regid {gid} --clear-groups --no-new-privs --bounding-set=-all -- "$@"'
    )
    # No namespace for processes: the signal of a stop reaches the program itself.
    return subprocess.Popen(["unshare", "--mount", "sh", "-c", script, str(image.root), *command], **streams)


def shell_words(env: dict[str, str]) -> str:
    return shlex.join(f"{name}={value}" for name, value in env.items())


def run(*command: str, env: dict[str, str] | None = None) -> None:
    if code := subprocess.run(command, env=env, check=False).returncode:
        fail(f"{shlex.join(command)} exits {code}")


def say(text: str) -> None:
    print(f"replay-image: {text}", flush=True)


def fail(reason: str) -> None:
    sys.exit(f"replay-image: FAILED: {reason}")


if __name__ == "__main__":
    main()
