# A container image with nothing in it but the static executable, its names, a passwd entry and the folder for the data.
# `make docker` builds it where there is an engine; `make image` makes the same from the static executable without one.

# Whoever mirrors images says where this one is.
ARG RUST=docker.io/library/rust:1.95-bookworm
FROM ${RUST} AS build
RUN apt-get update && apt-get install --yes --no-install-recommends musl-tools
WORKDIR /mcias
COPY . .
# `make docker` takes them from git, which isn't in here.
ARG VERSION
RUN rustup target add "$(uname -m)-unknown-linux-musl" && make size ${VERSION:+VERSION="$VERSION"}
RUN mkdir -p /image/etc /image/data && chown 10001:10001 /image/data && chmod 0700 /image/data \
    && cp "target/$(uname -m)-unknown-linux-musl/release/mcias" /image/mcias && chmod 0755 /image/mcias \
    && for name in mciassrv mciasctl mciasgrpcctl mciasdb; do ln -s mcias "/image/$name"; done \
    && echo "mcias:x:10001:10001:MCIAS:/data:/sbin/nologin" >/image/etc/passwd

FROM scratch
ARG VERSION
ARG REVISION
LABEL org.opencontainers.image.title="mcias" \
      org.opencontainers.image.description="An identity and access server for people who own their infrastructure" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
USER 10001:10001
# REST and gRPC.
EXPOSE 8443 9443
VOLUME /data
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 \
    CMD ["/mcias", "server", "--config", "/etc/mcias/mcias.conf", "--healthcheck"]
ENTRYPOINT ["/mciassrv"]
CMD ["-config", "/etc/mcias/mcias.conf"]
