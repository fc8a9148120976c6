# Triton with TensorRT-LLM, for nodes with NVIDIA GPUs. deploy/images/build makes it only when it is named (triton-gpu): its base
# is only at nvcr.io and has some 20 GB.
#
#   deploy/images/build --base registry triton-gpu
#
# Serves the model repository at /models: mount one made from TensorRT-LLM's `llmapi` model
# (triton_backend/all_models/llmapi at the tag of the tensorrt_llm inside), with the model's path in its 1/model.yaml. The
# tensors are those of deploy/triton/model_repository/tiny. Weights belong on a volume, not in an image.
#
# Writable, beside /tmp: /dev/shm of at least 2 GiB (an emptyDir with `medium: Memory`), and /cache, where libraries keep what they
# compile (an emptyDir).
ARG TAG=26.09
FROM nvcr.io/nvidia/tritonserver:${TAG}-trtllm-python-py3
USER root
COPY --chmod=755 deploy/triton/watchdog.sh deploy/images/triton-gpu/run /opt/millrace/
RUN set -eu; getent passwd 10001 >/dev/null || echo 'millrace:x:10001:10001::/:/usr/sbin/nologin' >>/etc/passwd; \
    getent group 10001 >/dev/null || echo 'millrace:x:10001:' >>/etc/group; \
    mkdir -p /models /cache; chown 10001:10001 /cache
ENV HOME=/cache XDG_CACHE_HOME=/cache HF_HOME=/cache/huggingface HF_HUB_OFFLINE=1 TRITON_CACHE_DIR=/cache/triton \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor CUDA_CACHE_PATH=/cache/cuda \
    PYTHONSAFEPATH=1 PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PYTHONNOUSERSITE=1
WORKDIR /
VOLUME /cache
USER 10001:10001
STOPSIGNAL SIGTERM
ENTRYPOINT ["/opt/millrace/run"]
EXPOSE 8000 8001 8002
ARG VERSION=
ARG REVISION=
ARG SOURCE=
LABEL org.opencontainers.image.title="millrace-triton-gpu" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
