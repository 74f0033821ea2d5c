# A catalog behind its page and its REST interface: CPU only, no root, one folder to mount.
#
#   docker build -t mixtura .
#   docker run --rm -p 127.0.0.1:8000:8000 -v "$PWD/shop:/catalog" -e MIXTURA_TOKEN=... mixtura
#
# The folder that is mounted is what mixtura fit has written; it must be writable for user 10001, because edits go there.
FROM python:3.11-slim

RUN useradd --uid 10001 --create-home mixtura
WORKDIR /app
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
# PyTorch from its index of CPU wheels: the default ones bring some gigabytes of CUDA.
RUN pip install --no-cache-dir --extra-index-url https://download.pytorch.org/whl/cpu '.[serve]'

USER 10001
ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=2
VOLUME /catalog
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/healthz', timeout=4)"]
# Inside the container every address is a foreign one, so all requests but /healthz need the token.
ENTRYPOINT ["mixtura", "serve", "/catalog", "--host", "0.0.0.0", "--port", "8000", "--no-browser"]
