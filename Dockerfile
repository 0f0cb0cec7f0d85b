# One image for Compose and the cluster: nginx in front of the server, supervisord holding both.
#
# It needs no root, no capability and no writable file system but /tmp, /run/pycrudapi and a volume, and serves http on
# 8080, https on 8443 when a certificate is at /etc/pycrudapi/tls (or TLS_SELF_SIGNED=true), and metrics on 9464.
# Plain instructions only: the classic builder makes it as well as BuildKit does.

FROM rust:1.95-slim-trixie AS build
WORKDIR /src

# The dependencies are a layer of their own, built around an empty crate: a change below src/ compiles the
# crate alone.
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
# What /metrics says is running.
ARG REVISION=unknown
# Copied files keep their dates, which are older than the empty crate's: cargo would think it is done.
RUN touch src/main.rs src/lib.rs && cargo build --release --locked --no-default-features


FROM debian:trixie-slim

# Costs 30 MB: nginx 2, its libraries 2, Python 20, supervisor 3, the list of packages 3. Taken out again is what they
# pull in and nothing here runs: iproute2 (for a script of nginx's service) with its libraries, Python's tests, manual,
# terminal and database modules. Packages go by dpkg, so that the list an SBOM is made from stays true. Compiled Python
# stays: a read-only file system could not keep it.
# Nothing is started meanwhile (policy-rc.d), and dpkg's remarks on what is forced are shown only when it fails.
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
        lib-dynload/_codecs_* lib-dynload/_curses* lib-dynload/_sqlite3* lib-dynload/_test* lib-dynload/readline* \
        ../python3/dist-packages/supervisor/tests \
    && apt-get clean \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt /var/cache/debconf /var/cache/ldconfig /var/log/* \
        /usr/share/doc /usr/share/man

# The time of the commit, which useradd notes as that of the password and BuildKit gives to files: two builds of a commit are
# the same bytes as long as the base images and Debian's packages are (docs/production.md). Below the packages, which are to
# be kept from one commit to the next.
ARG SOURCE_DATE_EPOCH

# The one user, and the one directory besides /tmp that it writes to. Open like /tmp, because a tmpfs that is mounted
# there belongs to root and takes its mode from here.
RUN groupadd --gid 10001 pycrudapi \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin pycrudapi \
    && install --directory --mode=1777 /run/pycrudapi /var/spool/pycrudapi \
    # A volume that is mounted here for backups takes its owner and mode from it.
    && install --directory --owner=10001 --group=10001 --mode=0700 /var/backups/pycrudapi

# The same files that a laptop runs.
COPY supervisord.conf /etc/pycrudapi/
COPY supervisor /etc/pycrudapi/supervisor
# Descriptions of resources; a folder that is mounted here brings others.
COPY resources/*.toml /etc/pycrudapi/resources/
COPY --from=build /src/target/release/pycrudapi /usr/local/bin/

# Metrics have a listener of their own; here it is for other containers, and nothing publishes it.
ENV RUN_DIR=/run/pycrudapi \
    RESOURCES_DIR=/etc/pycrudapi/resources \
    SPOOL_DIR=/var/spool/pycrudapi \
    PYTHONPATH=/etc/pycrudapi/supervisor \
    PYTHONDONTWRITEBYTECODE=1 \
    METRICS_LISTEN=0.0.0.0:9464

# Long bodies while they arrive. On a disk: in a tmpfs they would count as memory.
VOLUME /var/spool/pycrudapi

USER 10001:10001
EXPOSE 8080 8443 9464
# nginx drains first, then the server: give it longer than both (`docker stop --time 90`).
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
