# Two targets: `docker build --target cpu .` and `docker build --target cuda .`.
# Both do what `make setup` does, as a user without root. The base images are arguments; any Debian or Ubuntu
# with Python 3.11, 3.12 or 3.13 will do, and for cuda one with nvcc.
# A tag can move to another image. So a release names the bases by digest:
#   docker buildx imagetools inspect python:3.11-slim-bookworm     (prints the digest)
#   docker build --target cpu --build-arg CPU_BASE=python:3.11-slim-bookworm@sha256:… .
# The same for CUDA_BASE. What is built on them is pinned in constraints.txt, by version and hash.
ARG CPU_BASE=python:3.11-slim-bookworm
ARG CUDA_BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04

FROM ${CPU_BASE} AS cpu-base
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates g++ git make \
 && rm -rf /var/lib/apt/lists/*

FROM ${CUDA_BASE} AS cuda-base
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates g++ git make python3 python3-dev python3-venv \
 && rm -rf /var/lib/apt/lists/*

FROM cpu-base AS cpu
RUN useradd --create-home --uid 10001 press
USER press
WORKDIR /home/press/quantpress
COPY --chown=press . .
RUN make setup && .venv/bin/python -m quantpress toolchain install llama.cpp
ENTRYPOINT [".venv/bin/python", "-m"]
CMD ["quantpress", "--help"]

FROM cuda-base AS cuda
RUN useradd --create-home --uid 10001 press
USER press
WORKDIR /home/press/quantpress
COPY --chown=press . .
# The tools are built for the GPU at hand when they are first used: an image build has none.
RUN make setup
ENTRYPOINT [".venv/bin/python", "-m"]
CMD ["quantpress", "--help"]
