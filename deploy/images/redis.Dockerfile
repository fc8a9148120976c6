# Redis of one node, for development (`dev.enabled` of the chart). Data in /data; more flags as arguments.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS runtime
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates tini >/dev/null; \
    echo 'millrace:x:10001:' >>/etc/group; echo 'millrace:x:10001:10001::/:/usr/sbin/nologin' >>/etc/passwd; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/*- /usr/share/doc/* /usr/share/man/* /tmp/* /var/tmp/*
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends redis-server >/dev/null; \
    mkdir /data; chown 10001:10001 /data; sed -i -E 's/^([^:]*:[^:]*):[0-9]+:/\1:20454:/' /etc/shadow; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/*- /usr/share/doc/* /usr/share/man/* /tmp/* /var/tmp/*

FROM ${BASE} AS extras
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3.11 >/dev/null
ARG VERSION=
COPY deploy/images/sbom.py /build/
COPY --from=runtime /var/lib/dpkg/status /build/status
RUN mkdir -p /extras/usr/share/sbom; \
    python3.11 /build/sbom.py millrace-redis --version "${VERSION}" --debian /build/status >/extras/usr/share/sbom/millrace-redis.cdx.json

FROM runtime
COPY --from=extras /extras/ /
ENV LANG=C.UTF-8 HOME=/tmp
WORKDIR /data
VOLUME /data
USER 10001:10001
STOPSIGNAL SIGTERM
# The flags of deploy/local/components.toml; in a pod it listens on every interface.
ENTRYPOINT ["/usr/bin/tini", "--", "redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--port", "16379", \
            "--dir", "/data", "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", \
            "--maxmemory-policy", "noeviction", "--stream-node-max-bytes", "512"]
EXPOSE 16379
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="millrace-redis" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
