# ragbook's question page on the CPU: all weights and passages are inside, and it runs offline.
#   docker build -t ragbook .
#   docker run --rm -p 7860:7860 -e RAGBOOK_TOKEN=a-long-secret ragbook

FROM python:3.11-slim AS build
ENV UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1
RUN pip install --no-cache-dir uv && uv venv /opt/ragbook
WORKDIR /src
# PyTorch first, in its build for CPUs; it changes less often than the package.
COPY constraints.txt ./
RUN uv pip install --no-cache --python /opt/ragbook/bin/python --torch-backend cpu \
    --constraint constraints.txt torch==2.13.0
COPY pyproject.toml README.md LICENSE LICENSE-book ragbook_start.py ./
COPY ragbook ragbook
RUN uv pip install --no-cache --python /opt/ragbook/bin/python --torch-backend cpu \
    --constraint constraints.txt .

FROM python:3.11-slim
# Spaces on Hugging Face run with this user's number.
RUN useradd --create-home --uid 1000 ragbook
COPY --from=build /opt/ragbook /opt/ragbook
USER ragbook
WORKDIR /home/ragbook
ENV PATH=/opt/ragbook/bin:$PATH \
    RAGBOOK_CACHE=/home/ragbook/cache \
    HF_HUB_OFFLINE=1 \
    TRANSFORMERS_OFFLINE=1 \
    MPLCONFIGDIR=/tmp/matplotlib \
    PYTHONUNBUFFERED=1
# One answer, so that the index is built and an image that can't answer isn't made.
RUN ragbook ask "In what English county did HMS Beagle lie as a coastguard ship?"
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:7860/health', timeout=3)"]
# The token is never part of the image: it is read from the environment variable RAGBOOK_TOKEN. Behind a
# proxy, RAGBOOK_NAME is the name under which it makes the page known.
CMD ["ragbook", "serve", "--host", "0.0.0.0", "--port", "7860"]
