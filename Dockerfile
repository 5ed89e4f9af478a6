# The service with the shipped connectors. It runs as an unprivileged user. It only reads /config, which contains the rules
# and your own connectors, and writes only to /data.
FROM python:3.12-slim AS build
WORKDIR /src
COPY requirements.lock ./
RUN python -m venv /opt/bridge \
    && /opt/bridge/bin/pip install --no-cache-dir --require-hashes --no-deps -r requirements.lock
# setuptools is needed only to build the wheel, so it is installed outside /opt/bridge.
COPY requirements-dev.lock pyproject.toml README.md LICENSE ./
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements-dev.lock >build.lock \
    && pip install --no-cache-dir --require-hashes --no-deps -r build.lock
COPY bridge bridge
COPY connectors connectors
RUN pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
    && /opt/bridge/bin/pip install --no-cache-dir --no-deps dist/*.whl

FROM python:3.12-slim
COPY --from=build /opt/bridge /opt/bridge
COPY --chmod=644 rules.yaml /config/rules.yaml
RUN useradd --uid 10001 --user-group --home-dir /data --shell /usr/sbin/nologin bridge \
    && install --directory --owner=bridge --group=bridge --mode=700 /data
# Few arenas, because glibc keeps the memory of each one. Bytecode was written during the build; the root can be read-only.
ENV PATH=/opt/bridge/bin:$PATH PYTHONDONTWRITEBYTECODE=1 MALLOC_ARENA_MAX=2 \
    BRIDGE_HOST=0.0.0.0 BRIDGE_LOG_FORMAT=json BRIDGE_RULES_FILE=/config/rules.yaml
# A number, because Kubernetes' runAsNonRoot does not accept a name.
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Every role: a server is asked at BRIDGE_PORT, `bridge worker` at BRIDGE_METRICS_PORT.
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s CMD ["python", "-P", "-m", "bridge.healthcheck"]
ENTRYPOINT ["bridge"]
CMD ["serve"]
