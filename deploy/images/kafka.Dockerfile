# Kafka of one node (KRaft, broker and controller in one process), for development (`dev.enabled` of the chart).
# Jars: what deploy/local/kafka/pom.xml resolves, in the versions of deploy/local/versions.toml. Data in /data.
ARG BASE=docker.io/library/debian:bookworm-slim

FROM ${BASE} AS runtime
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates tini >/dev/null; \
    echo 'millrace:x:10001:' >>/etc/group; echo 'millrace:x:10001:10001::/:/usr/sbin/nologin' >>/etc/passwd; \
    rm -rf /var/lib/apt/lists/* /var/cache/* /var/log/* /etc/*- /usr/share/doc/* /usr/share/man/* /tmp/* /var/tmp/*

# A Java runtime of the standard modules and the few others that a broker uses, and the jars.
FROM ${BASE} AS builder
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    mkdir -p /usr/share/man/man1; \
    apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
      binutils maven openjdk-17-jdk-headless python3.11 >/dev/null
RUN jlink --no-header-files --no-man-pages --strip-debug --compress=2 --output /opt/java --add-modules \
      java.se,jdk.crypto.ec,jdk.management,jdk.security.auth,jdk.unsupported,jdk.zipfs
COPY deploy/local/kafka/pom.xml deploy/local/versions.toml /build/
RUN --mount=type=secret,id=indexes \
    set -eu; [ ! -e /run/secrets/indexes ] || . /run/secrets/indexes; \
    pinned() { sed -n "/^\[kafka\]/,/^\[/s/^$1 = \"\([^\"]*\)\".*/\1/p" /build/versions.toml; }; \
    mvn -q -B -ntp ${MAVEN_SETTINGS:+-s "$MAVEN_SETTINGS"} -Dkafka.version="$(pinned version)" -Dscala.version="$(pinned scala)" \
      -Dslf4j.version="$(pinned slf4j)" -f /build/pom.xml dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=/opt/kafka/lib; \
    chmod 644 /opt/kafka/lib/*.jar
ARG VERSION=
COPY deploy/images/sbom.py /build/
COPY deploy/images/kafka/run deploy/local/kafka/broker.properties deploy/local/kafka/jvm.options /opt/kafka/
COPY --from=runtime /var/lib/dpkg/status /build/status
RUN set -eu; chmod 755 /opt/kafka/run; chmod 644 /opt/kafka/broker.properties /opt/kafka/jvm.options; mkdir -p /extras/usr/share/sbom; \
    python3.11 /build/sbom.py millrace-kafka --version "${VERSION}" --debian /build/status --jars /opt/kafka/lib \
      --debian-from openjdk-17-jdk-headless=/var/lib/dpkg/status >/extras/usr/share/sbom/millrace-kafka.cdx.json

FROM runtime
COPY --from=builder /opt/java /opt/java
COPY --from=builder /opt/kafka /opt/kafka
COPY --from=builder /extras/ /
RUN mkdir /data && chown 10001:10001 /data
ENV PATH=/opt/java/bin:/usr/local/bin:/usr/bin:/bin LANG=C.UTF-8 HOME=/tmp \
    KAFKA_LISTEN_PORT=19092 KAFKA_ADVERTISED_HOST=localhost
WORKDIR /
VOLUME /data
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/bin/tini", "--", "/opt/kafka/run"]
EXPOSE 19092 19192
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="millrace-kafka" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
