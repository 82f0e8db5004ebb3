# The server only. It needs a Postgres (DATABASE_URL) and keys (RIDEWIRE_JWT_PUBLIC_KEY or RIDEWIRE_JWKS).

FROM rust:1.95-bookworm AS build
WORKDIR /src
# The dependencies are built in a layer of their own, since they change less often than the code.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches/ridewire tests/it tests/faults tests/model tests/schedules \
    && echo 'fn main() {}' | tee src/main.rs benches/ridewire/main.rs tests/it/main.rs tests/faults/main.rs \
        tests/model/main.rs tests/schedules/main.rs > /dev/null \
    && touch src/lib.rs \
    && cargo build --profile dist --features jemalloc --locked --bin ridewire \
    && rm -rf src
COPY openapi.yaml ./
COPY docs docs
COPY sql sql
COPY web web
COPY clients clients
COPY src src
RUN touch src/main.rs src/lib.rs && cargo build --profile dist --features jemalloc --locked --bin ridewire

FROM debian:bookworm-slim
# Certificate authorities for https to the issuer's keys and to the collector of traces.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home ridewire
COPY --from=build /src/target/dist/ridewire /usr/local/bin/ridewire
USER 10001
ENV RIDEWIRE_LISTEN=0.0.0.0:8080 RIDEWIRE_LOG_FORMAT=json
EXPOSE 8080
# SIGTERM starts a drain, which takes RIDEWIRE_DRAIN_WINDOW and 5 s. The stop timeout of the container must be longer.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=40s --retries=3 CMD ["ridewire", "healthcheck"]
ENTRYPOINT ["ridewire"]
CMD ["serve"]
