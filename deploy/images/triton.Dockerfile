# Triton Inference Server on CPU with the tiny model, from the Python package that holds the server. For GPUs:
# triton-gpu.Dockerfile. Serves /models: mount another repository there, or name it as the argument. triton/run has the variables.
ARG BASE=docker.io/library/debian:bookworm-slim

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

FROM runtime AS builder
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3.11-venv >/dev/null; \
    python3.11 -m venv /pip; python3.11 -m venv --without-pip /opt/triton/venv
COPY requirements/triton.lock /build/
# Without dependencies, as deploy/triton/install.sh does: they serve the wheel's Python client, which is not used. Of the
# wheel only the server goes on, with the stub of this Python.
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    /pip/bin/pip --python /opt/triton/venv/bin/python install -q --no-cache-dir --no-compile --no-deps --only-binary :all: \
      --require-hashes -r /build/triton.lock; \
    server=/opt/triton/venv/lib/python3.11/site-packages/pytriton/tritonserver; \
    cp $server/python_backend_stubs/3.11/triton_python_backend_stub $server/backends/python/; \
    rm -r $server/python_backend_stubs; \
    find $server/.. -mindepth 1 -maxdepth 1 ! -name tritonserver -exec rm -rf {} +; \
    PYTHONHASHSEED=0 /opt/triton/venv/bin/python -m compileall -q -f --invalidation-mode unchecked-hash /opt/triton/venv/lib; \
    cp /build/triton.lock /opt/triton/installed.lock
COPY deploy/images/sbom.py /build/

FROM runtime AS server
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends libpython3.11 libstdc++6 zlib1g >/dev/null; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/*- /usr/share/doc/* /usr/share/man/* /tmp/* /var/tmp/*

FROM builder AS extras
ARG VERSION=
COPY --from=server /var/lib/dpkg/status /build/status
RUN mkdir -p /extras/usr/share/sbom; \
    python3.11 /build/sbom.py millrace-triton --version "${VERSION}" --packages /build/triton.lock --debian /build/status \
      >/extras/usr/share/sbom/millrace-triton.cdx.json
COPY deploy/images/triton/run /extras/opt/millrace/
COPY deploy/triton/serve.sh deploy/triton/watchdog.sh /extras/opt/millrace/deploy/triton/
COPY deploy/local/versions.toml /extras/opt/millrace/deploy/local/
COPY deploy/triton/model_repository/tiny /extras/models/tiny
RUN set -eu; find /extras/models -name __pycache__ -prune -exec rm -rf {} +; \
    chmod -R u=rwX,go=rX /extras; chmod 755 /extras/opt/millrace/run /extras/opt/millrace/deploy/triton/*.sh; \
    PYTHONHASHSEED=0 python3.11 -m compileall -q -f --invalidation-mode unchecked-hash -s /extras /extras/models

FROM server
COPY --from=builder /opt/triton /opt/triton
COPY --from=extras /extras/ /
ENV PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin LANG=C.UTF-8 HOME=/tmp \
    PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1 \
    MILLRACE_TRITON_HOME=/opt/triton
WORKDIR /
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/millrace/run"]
EXPOSE 8000 8001 8002
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="millrace-triton" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
