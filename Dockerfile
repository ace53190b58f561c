# A worker of Freshet. Another base with Python 3.11 or newer: docker build --build-arg BASE=…
ARG BASE=python:3.11-slim

FROM ${BASE} AS build
WORKDIR /build
COPY requirements.runtime.lock requirements.lock ./
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.runtime.lock
# The developers' lock holds what builds the package, on every platform.
RUN sed -n '/^setuptools==/,/[^\\]$/p' requirements.lock >build.lock \
 && python3 -m venv /opt/builder \
 && /opt/builder/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r build.lock
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY agents agents
COPY client client
COPY core core
COPY demo demo
COPY features features
COPY services services
COPY serving serving
COPY stores stores
COPY tables tables
RUN /opt/builder/bin/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index dist/*.whl

FROM ${BASE}
RUN useradd --system --uid 10001 --create-home freshet
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# Definitions of one's own are mounted here: modules in the working directory are found.
WORKDIR /srv/definitions
USER freshet
EXPOSE 6566 8566
# /health answers without a key; the worker's own port is asked, from inside.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('FRESHET_WEB_PORT', '6566') + '/health', timeout=2)"]
CMD ["faust", "-A", "app.worker", "worker", "-l", "info"]
