# One image for Compose and Kubernetes: nginx in front of the server, both supervised by supervisord.
#
# It requires no root, no capability and no writable file system except /tmp, /run/pycrudapi and a volume. It serves http on
# 8080, https on 8443 if a certificate is at /etc/pycrudapi/tls (or TLS_SELF_SIGNED=true), and metrics on 9464.
# Only instructions that both the classic builder and BuildKit support.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src

# The dependencies are a separate layer, built with an empty crate: a change below src/ recompiles only the
# crate.
COPY Cargo.toml Cargo.lock ./
RUN mkdir src \
    && echo 'fn main() {}' >src/main.rs \
    && touch src/lib.rs \
    && cargo build --release --locked --no-default-features \
    && rm -r src

COPY migrations migrations
COPY data data
COPY resources resources
COPY nginx nginx
COPY src src
# The build that /metrics reports.
ARG REVISION=unknown
# Copied files keep their modification times, which are older than the empty crate's, so cargo would not rebuild it.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --no-default-features


FROM debian:trixie-slim

# Adds 30 MB: nginx 2, its libraries 2, Python 20, supervisor 3, the package list 3. Unused dependencies are removed again:
# iproute2 (for a script of nginx's service) with its libraries, and Python's tests, manual, terminal and database modules
# and what requires them. Packages are removed with dpkg, so that the list used for an SBOM stays correct. Compiled Python files
# are kept, because they could not be written to a read-only file system.
# policy-rc.d prevents services from being started, and dpkg's warnings about forced removals are shown only if it fails.
RUN export DEBIAN_FRONTEND=noninteractive \
    && printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d && chmod 0755 /usr/sbin/policy-rc.d \
    && apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates nginx supervisor \
    && rm /usr/sbin/policy-rc.d \
    && { dpkg --purge --force-depends \
        iproute2 libbpf1 libcap2-bin libcom-err2 libelf1t64 libgssapi-krb5-2 libk5crypto3 libkeyutils1 libkrb5-3 \
        libkrb5support0 libmnl0 libtirpc-common libtirpc3t64 libxtables12 \
        libncursesw6 libreadline8t64 libsqlite3-0 readline-common \
        python3-autocommand python3-inflect python3-typeguard python3-typing-extensions \
        2>/tmp/forced || { cat /tmp/forced; exit 1; }; } \
    && rm /tmp/forced \
    && cd /usr/lib/python3.13 \
    && rm -r _pyrepl asyncio concurrent curses dbm multiprocessing pydoc_data sqlite3 test unittest venv wsgiref \
        doctest.py turtle.py __pycache__/doctest.* __pycache__/turtle.* lib-dynload/_asyncio* \
        lib-dynload/_codecs_* lib-dynload/_curses* lib-dynload/_sqlite3* lib-dynload/_test* lib-dynload/readline* \
        ../python3/dist-packages/supervisor/tests \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf /var/cache/ldconfig /var/log/* \
        /usr/share/doc /usr/share/man

# The time of the commit, which useradd records as the time of the password and BuildKit assigns to files: two builds of a
# commit are identical if the base images and Debian's packages are (docs/production.md). After the packages, so that their
# layer is reused for the next commit.
ARG SOURCE_DATE_EPOCH

# The user, and the only directory besides /tmp that it writes to. Its mode is that of /tmp, because a tmpfs mounted there is
# owned by root and takes its mode from here.
RUN groupadd --gid 10001 pycrudapi \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pycrudapi \
    && install --directory --mode=1777 /run/pycrudapi /var/spool/pycrudapi \
    # A volume mounted here for backups takes its owner and mode from this directory.
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/backups/pycrudapi

# The same files that `make up` uses.
COPY supervisord.conf /etc/pycrudapi/
COPY supervisor /etc/pycrudapi/supervisor
# Descriptions of resources; mount a folder here to add others.
COPY resources/*.toml /etc/pycrudapi/resources/
COPY --from=build /src/target/release/pycrudapi /usr/local/bin/

# Metrics have a separate listener; it is for other containers, and no port of it is published.
ENV RUN_DIR=/run/pycrudapi \
    RESOURCES_DIR=/etc/pycrudapi/resources \
    SPOOL_DIR=/var/spool/pycrudapi \
    PYTHONPATH=/etc/pycrudapi/supervisor \
    PYTHONDONTWRITEBYTECODE=1 \
    METRICS_LISTEN=0.0.0.0:9464

# Long bodies while they are received. On disk, because a tmpfs would count as memory.
VOLUME /var/spool/pycrudapi

USER 10001:10001
EXPOSE 8080 8443 9464
# nginx drains first, then the server: the stop timeout must exceed both (`docker stop --time 90`).
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["pycrudapi", "healthcheck"]
CMD ["python3", "-m", "begin", "-c", "/etc/pycrudapi/supervisord.conf"]

# Last, because they change with every build.
ARG VERSION=0.0.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="pycrudapi" \
      org.opencontainers.image.description="A passenger CRUD API on PostgreSQL: nginx, the server and supervisord" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.base.name="docker.io/library/debian:trixie-slim" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
