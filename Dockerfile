# sepml on a CPU, without root. TORCH_INDEX is the address that PyTorch's selector shows for "CPU"
# (https://pytorch.org/get-started/locally/); without it torch comes with CUDA, five times as large:
#     docker build --build-arg TORCH_INDEX=... -t sepml .
#     docker run --rm -v "$PWD:/work" --user "$(id -u):$(id -g)" sepml separate meeting.m4a
# docs/install.md says more.

# pesq has no wheel: the compiler stays in this stage.
FROM python:3.12-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/sepml
ARG TORCH_INDEX=
RUN /opt/sepml/bin/pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch==2.11.*" "torchaudio==2.11.0"
ARG EXTRAS=train,page
COPY setup.cfg pyproject.toml README.md LICENSE /src/
COPY sepml /src/sepml
RUN /opt/sepml/bin/pip install --no-cache-dir "/src[$EXTRAS]"

FROM python:3.12-slim-bookworm
COPY --from=build /opt/sepml /opt/sepml
# Any user may be given: what is cached goes to a folder that every user can write to.
ENV PATH=/opt/sepml/bin:$PATH HOME=/tmp
RUN useradd --create-home sepml && mkdir /work && chown sepml /work
USER sepml
WORKDIR /work
ENTRYPOINT ["sepml"]
CMD ["--help"]
