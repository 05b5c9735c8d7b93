# syntax=docker/dockerfile:1
# The program alone, in an image without a shell. Build: docker build -t flashsale .

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# The caches keep what was built between builds; the program is copied out of them.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin flashsale && cp target/release/flashsale /flashsale
# A folder that belongs to whoever runs the program; there is no shell below to make one.
RUN mkdir /data

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /flashsale /usr/local/bin/flashsale
COPY --from=build --chown=nonroot:nonroot /data /data
ENV FLASHSALE_DATA_DIR=/data FLASHSALE_LISTEN=0.0.0.0:3000
VOLUME /data
EXPOSE 3000
STOPSIGNAL SIGTERM
ENTRYPOINT ["flashsale"]
CMD ["serve"]
