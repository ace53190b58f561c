# A worker of Freshet. Another base with Python 3.11 or newer: docker build --build-arg BASE=…
ARG BASE=python:3.11-slim

FROM ${BASE} AS dependencies
COPY requirements.runtime.lock .
RUN python3 -m venv /opt/venv \
 && /opt/venv/bin/python -m pip install --quiet --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.runtime.lock

FROM ${BASE}
RUN useradd --system --uid 10001 --create-home freshet
COPY --from=dependencies /opt/venv /opt/venv
WORKDIR /srv/freshet
COPY app app
COPY agents agents
COPY core core
COPY demo demo
COPY features features
COPY services services
COPY serving serving
COPY stores stores
COPY tables tables
RUN printf '#!/bin/sh\nexec python -c "from app.cli import main; main()" "$@"\n' >/usr/local/bin/freshet \
 && chmod 755 /usr/local/bin/freshet
ENV PATH=/opt/venv/bin:$PATH PYTHONPATH=/srv/freshet PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER freshet
EXPOSE 6566
# /health answers without a key; the worker's own port is asked, from inside.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=6 \
  CMD ["python", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ.get('FRESHET_WEB_PORT', '6566') + '/health', timeout=2)"]
CMD ["faust", "-A", "app.worker", "worker", "-l", "info"]
