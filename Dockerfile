# Serves a catalog as a web page and REST API: CPU only, no root, one folder to mount.
#
#   docker build -t mixtura .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/shop:/catalog" -e MIXTURA_TOKEN=... mixtura
#
# Mount a folder written by mixtura fit. User 10001 must be able to write to it, because edits are stored there.
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home mixtura
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# Use PyTorch's CPU wheel index: the default wheels add gigabytes of CUDA.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu '.[serve]'

USER 10001
ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2
VOLUME /catalog
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# To the container every client is remote, so all requests except /healthz need the token.
ENTRYPOINT ["mixtura", "serve", "/catalog", "--host", "0.0.0.0", "--port", "8000", "--no-browser"]
