# The image of `rollwave serve`, `worker`, `migrate` and the rest of the command line; not of `rollwave demo`.
# `scripts/replay-image` runs these steps without a container engine, and checks what comes out.

FROM debian:bookworm-slim AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Debian's own versions: a rebuild takes in its security updates.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY requirements.txt requirements-server.txt ./
# The build tools, with the hashes that requirements.txt has for them. Their pip serves the other environment too.
RUN python3 -m venv /opt/build \
 && awk '/^[^ #]/ { keep = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/ } keep' requirements.txt \
      > /opt/build/requirements.txt \
 && /opt/build/bin/pip install --require-hashes --only-binary :all: --requirement /opt/build/requirements.txt
RUN python3 -m venv --without-pip /opt/rollwave \
 && /opt/build/bin/pip --python /opt/rollwave/bin/python install --require-hashes --only-binary :all: \
      --requirement requirements-server.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /opt/build/wheels . \
 && /opt/build/bin/pip --python /opt/rollwave/bin/python install --no-deps --no-index /opt/build/wheels/*.whl

FROM debian:bookworm-slim
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Rollwave" \
      org.opencontainers.image.description="A campaign engine for firmware over the air" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.base.name="docker.io/library/debian:bookworm-slim" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates python3 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --no-log-init --uid 10001 --user-group --no-create-home --home-dir /nonexistent \
      --shell /usr/sbin/nologin rollwave
COPY --from=build /opt/rollwave /opt/rollwave
# The root file system may be read-only: nothing is written, no bytecode either, which is compiled already.
ENV PATH=/opt/rollwave/bin:/usr/bin:/bin PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# Is the process alive? /readyz would be wrong here: it is red while the database is unavailable, and a restart does not help.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["rollwave"]
CMD ["serve", "--host", "0.0.0.0"]
