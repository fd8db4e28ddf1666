# Two images from one file: `serving` (the default) and `training`, which adds what retraining needs.
#
#   docker build -t lantern .
#   docker build -t lantern-training --target training .
#
# BASE is any image with Python 3.11 to 3.13 as `python3`, with its venv module. The torch wheels bring their
# own CUDA libraries, so the same image runs on CPU and, under the NVIDIA runtime, on GPU.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS python
ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin

# Dependencies before code: a change of the code does not fetch gigabytes again.
# Compiled while the image is built: the user who serves may not write, and would compile torch at each start anew.
FROM python AS tools
ENV UV_COMPILE_BYTECODE=1
RUN python3 -m venv /opt/venv && python3 -m pip install --no-cache-dir --disable-pip-version-check uv==0.13.9

FROM tools AS serving-dependencies
COPY requirements/app.txt /tmp/requirements.txt
RUN uv pip install --no-cache --require-hashes -r /tmp/requirements.txt

FROM tools AS training-dependencies
COPY requirements/training.txt /tmp/requirements.txt
RUN uv pip install --no-cache --require-hashes -r /tmp/requirements.txt

FROM python AS base
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin lantern \
 && mkdir -p /srv/lantern/models/artifacts /srv/lantern/data /srv/lantern/runs \
 && chown lantern /srv/lantern/models/artifacts /srv/lantern/data /srv/lantern/runs
WORKDIR /srv/lantern

FROM base AS training
COPY --from=training-dependencies /opt/venv /opt/venv
COPY models models
COPY training training
RUN python3 -m compileall -q models training
USER lantern
# Where matplotlib and torch put their caches: the only other place this user may write.
ENV HOME=/tmp
CMD ["sh", "-c", "python3 -m training.datasets.fashion_mnist && exec python3 -m training"]

FROM base AS serving
COPY --from=serving-dependencies /opt/venv /opt/venv
COPY models models
COPY app app
RUN python3 -m compileall -q models app
USER lantern
ENV HOME=/tmp LANTERN_HOST=0.0.0.0
EXPOSE 8000
STOPSIGNAL SIGTERM
# Live, not ready: a service that waits for its first model must not be restarted for it.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python3", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('LANTERN_PORT', 8000)), timeout=2); c.request('GET', '/health/live'); sys.exit(c.getresponse().status != 200)"]
CMD ["python3", "-m", "app"]
