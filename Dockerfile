# ResMem service. Two targets, both without a compiler and run by a user with no rights:
#   docker build -t resmem-service:cpu .                  any x86-64 (v3: 2013 and later) or arm64 machine
#   docker build -t resmem-service:gpu --target gpu .     NVIDIA driver 580 or later; docker run --gpus all
# The root file system may be read-only: state lives in the volume /var/lib/resmem, scratch in /tmp.
ARG PYTHON=3.12

# --- toolchain: what compiles; nothing of it reaches a final image -------------------------------
FROM python:${PYTHON}-slim AS toolchain
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_NO_CACHE_DIR=1
RUN python -m venv /opt/resmem
ENV PATH=/opt/resmem/bin:$PATH
WORKDIR /build

# --- dependencies: the layer that only pyproject.toml can spoil ----------------------------------
FROM toolchain AS dependencies
# hnswlib comes as source alone and would compile itself for the machine that builds the image.
# x86-64-v3 (AVX2) costs a tenth of its speed against that and runs everywhere since Haswell; the
# service's own search picks its instructions when it starts, whatever this line says.
RUN arch=$(uname -m); if [ "$arch" = x86_64 ]; then export CXXFLAGS=-march=x86-64-v3; fi; \
    HNSWLIB_NO_NATIVE=1 pip install "hnswlib>=0.8.0"
COPY deploy/image/requirements.py pyproject.toml ./
RUN python requirements.py > requirements.txt && pip install -r requirements.txt

# --- wheel: the service itself --------------------------------------------------------------------
FROM toolchain AS wheel
COPY pyproject.toml setup.py README.md LICENSE ./
COPY service service
RUN pip wheel --no-deps --wheel-dir /wheels .

# --- environments: dependencies + one ONNX Runtime + the service ----------------------------------
FROM dependencies AS cpu-environment
RUN python requirements.py cpu > requirements.txt && pip install -r requirements.txt
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl && pip uninstall -y pip

FROM dependencies AS gpu-environment
# CUDA and cuDNN as wheels, in the versions that this ONNX Runtime was built against: one base image
# for both targets, and no CUDA base image to keep in step with the runtime by hand.
RUN python requirements.py gpu > requirements.txt \
    && pip install -r requirements.txt "onnxruntime-gpu[cuda,cudnn]"
COPY --from=wheel /wheels /wheels
RUN pip install --no-deps /wheels/*.whl && pip uninstall -y pip

# --- what both final images share -----------------------------------------------------------------
FROM python:${PYTHON}-slim AS runtime
LABEL org.opencontainers.image.title="resmem-service" \
      org.opencontainers.image.description="An ONNX model answers, a memory of its past mistakes corrects the answer" \
      org.opencontainers.image.licenses="Apache-2.0"
RUN groupadd --gid 10001 resmem \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin resmem \
    && install -d -o 10001 -g 10001 -m 0750 /var/lib/resmem
ENV PATH=/opt/resmem/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ORT_DISABLE_TELEMETRY=1 \
    RESMEM_HOST=0.0.0.0 \
    RESMEM_PORT=8080 \
    RESMEM_STORE=/models \
    RESMEM_STATE_DIR=/var/lib/resmem \
    RESMEM_SHUTDOWN_DELAY_S=5
VOLUME /var/lib/resmem
EXPOSE 8080
USER 10001:10001
WORKDIR /
STOPSIGNAL SIGTERM
COPY deploy/image/healthcheck.py /usr/local/lib/resmem/healthcheck.py
# Healthy means ready for traffic: warmed up, and not about to end.
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s --retries=3 \
    CMD ["python", "-I", "-S", "/usr/local/lib/resmem/healthcheck.py"]
ENTRYPOINT ["resmem"]
CMD ["serve"]

# --- final images ---------------------------------------------------------------------------------
FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility
COPY --from=gpu-environment /opt/resmem /opt/resmem
COPY model_store /models

FROM runtime AS cpu
COPY --from=cpu-environment /opt/resmem /opt/resmem
COPY model_store /models
