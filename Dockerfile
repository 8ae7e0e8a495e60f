# The server in a container of its own; docs/container.md says how to run it.
#
#   docker build -t channelstream .

FROM rust:1.95-slim-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev make \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN cargo build --release --locked --bin channelstream

FROM debian:bookworm-slim
RUN useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin channelstream \
 && install -d -m 0700 -o channelstream -g channelstream /var/lib/channelstream
COPY --from=build /source/target/release/channelstream /usr/local/bin/channelstream
USER channelstream
WORKDIR /var/lib/channelstream
VOLUME /var/lib/channelstream
ENV CHANNELSTREAM_PORT=8000
EXPOSE 8000
# Whether the process answers; a standby does so, too. The header satisfies enforce_https.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["bash", "-c", "\
    exec 3<>/dev/tcp/127.0.0.1/$CHANNELSTREAM_PORT && \
    printf 'GET /healthz HTTP/1.0\\r\\nX-Url-Scheme: https\\r\\n\\r\\n' >&3 && \
    read -r line <&3 && [[ $line == *' 200 '* ]]"]
ENTRYPOINT ["channelstream"]
