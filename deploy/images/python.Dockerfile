# Every Python service, and the operator: --build-arg SERVICE=gateway, ratelimiter, cache, router, dispatcher, worker, operator.
# The context is the repository. deploy/images/build calls it; without it:
#
#   docker build -f deploy/images/python.Dockerfile --build-arg SERVICE=gateway -t millrace-gateway:dev .
#
# Layers from the one that changes least to the one that changes most: Debian, Python, packages of all services, packages of
# this one, the project. All but the last two are the same in every image and are stored once.
#
# The package indexes are those of whoever builds: the secret `indexes` is sourced before each download. What it writes, it
# removes at the end of the same step, so nothing of it stays in a layer. Without it: PyPI and Debian.
ARG BASE=docker.io/library/debian:bookworm-slim

# --- debian: this and the next step stand word for word in the other Dockerfiles too, so that their layers are shared -----
FROM ${BASE} AS runtime
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates tini >/dev/null; \
    echo 'millrace:x:10001:' >>/etc/group; echo 'millrace:x:10001:10001::/:/usr/sbin/nologin' >>/etc/passwd; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/*- /usr/share/doc/* /usr/share/man/* /tmp/* /var/tmp/*
# Bytecode is checked against no timestamp (the builder sets them all to one), and made in one process without random hashes, or
# it would differ from build to build.
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3.11 >/dev/null; \
    find /usr/lib/python3.11 -name __pycache__ -prune -exec rm -rf {} +; \
    PYTHONHASHSEED=0 python3.11 -m compileall -q -f --invalidation-mode unchecked-hash /usr/lib/python3.11; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/*- /usr/share/doc/* /usr/share/man/* /tmp/* /var/tmp/*

# --- packages ------------------------------------------------------------------------------------------------------------
FROM runtime AS builder
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3.11-venv >/dev/null; \
    python3.11 -m venv /pip; python3.11 -m venv --without-pip /opt/millrace
COPY deploy/images/locks.py /build/
COPY requirements/gateway.lock requirements/ratelimiter.lock requirements/cache.lock requirements/router.lock \
     requirements/dispatcher.lock requirements/worker.lock requirements/operator.lock /build/requirements/

FROM builder AS packages
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    python3.11 /build/locks.py common /build/requirements >/build/common.lock; \
    /pip/bin/pip --python /opt/millrace/bin/python install -q --no-cache-dir --no-compile --no-deps --only-binary :all: \
      --require-hashes -r /build/common.lock; \
    PYTHONHASHSEED=0 /opt/millrace/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/millrace/lib

FROM packages AS own
ARG SERVICE
# Only what this adds to the packages of all goes on, as a layer of its own.
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    python3.11 /build/locks.py own /build/requirements "${SERVICE}" >/build/own.lock; \
    mkdir -p /own/opt/millrace; \
    if [ -s /build/own.lock ]; then \
      find /opt/millrace ! -type d | LC_ALL=C sort >/build/before; \
      /pip/bin/pip --python /opt/millrace/bin/python install -q --no-cache-dir --no-compile --no-deps --only-binary :all: \
        --require-hashes -r /build/own.lock; \
      PYTHONHASHSEED=0 /opt/millrace/bin/python -m compileall -q --invalidation-mode unchecked-hash /opt/millrace/lib; \
      find /opt/millrace ! -type d | LC_ALL=C sort | LC_ALL=C comm -13 /build/before - >/build/new; \
      tar -C / -c -T /build/new 2>/dev/null | tar -C /own -x; \
    fi

# --- the project ---------------------------------------------------------------------------------------------------------
FROM builder AS project
ENV site=/project/opt/millrace/lib/python3.11/site-packages
COPY services ${site}/services
COPY operator/millrace_operator ${site}/millrace_operator
COPY protos/gen/millrace ${site}/millrace
COPY pyproject.toml /build/
RUN set -eu; find ${site} -name __pycache__ -prune -exec rm -rf {} +; \
    python3.11 /build/locks.py installed /build/pyproject.toml ${site}; \
    chmod -R u=rwX,go=rX /project; \
    PYTHONHASHSEED=0 /opt/millrace/bin/python -m compileall -q -f --invalidation-mode unchecked-hash -s /project ${site}

# --- what this image has beside code -------------------------------------------------------------------------------------
# The worker has the tokenizer and the chat template of the tiny model, in the folder that a pool's spec.model.assets names.
FROM builder AS extras
ARG SERVICE
ARG VERSION=
COPY deploy/triton/model_repository/tiny/chat_template.jinja deploy/triton/model_repository/tiny/tokenizer.json \
     deploy/triton/model_repository/tiny/model.json /build/tiny/
COPY deploy/images/sbom.py /build/
RUN set -eu; \
    case "${SERVICE}" in operator) module=millrace_operator ;; *) module=services.${SERVICE} ;; esac; \
    mkdir -p /extras/usr/local/bin /extras/usr/share/sbom; \
    printf '#!/bin/sh\nexec /opt/millrace/bin/python -m %s "$@"\n' "$module" >/extras/usr/local/bin/millrace-service; \
    chmod 755 /extras/usr/local/bin/millrace-service; \
    if [ "${SERVICE}" = worker ]; then mkdir /extras/assets; cp -r /build/tiny /extras/assets/tiny; chmod -R u=rwX,go=rX /extras/assets; fi
COPY --from=runtime /var/lib/dpkg/status /build/status
RUN python3.11 /build/sbom.py "millrace-${SERVICE}" --version "${VERSION}" --packages /build/requirements/${SERVICE}.lock \
      --debian /build/status >/extras/usr/share/sbom/millrace-${SERVICE}.cdx.json

# --- the image -----------------------------------------------------------------------------------------------------------
FROM runtime
COPY --from=packages /opt/millrace /opt/millrace
COPY --from=own /own/ /
COPY --from=extras /extras/ /
COPY --from=project /project/ /
# Interpreter: nothing from the working directory, no bytecode written. GRPC_EXPERIMENTS as in deploy/local/components.toml.
ENV PATH=/opt/millrace/bin:/usr/local/bin:/usr/bin:/bin \
    LANG=C.UTF-8 HOME=/tmp \
    PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1 \
    GRPC_EXPERIMENTS=-event_engine_client,-event_engine_listener,-event_engine_for_all_other_endpoints \
    MILLRACE_COMMON__HOST=0.0.0.0
WORKDIR /
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tini", "--", "/usr/local/bin/millrace-service"]
# Of the ports in deploy/local/components.toml those of this service; deploy/images/build reads them there.
ARG PORTS=
EXPOSE ${PORTS}
ARG SERVICE
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="millrace-${SERVICE}" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
