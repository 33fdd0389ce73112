#!/usr/bin/env bash
# One machine, all its GPUs: CONFIG=configs/align_sar.py WORKDIR=runs/x launch/gpu.sh [flags]
# Install CUDA's jax into the environment first: pip install "jax[cuda13]==<the pin>"
set -euo pipefail
cd "$(dirname "$0")/.."
: "${CONFIG:?set CONFIG, such as configs/align_sar.py}"
: "${WORKDIR:?set WORKDIR, the folder of the run}"
exec "${PYTHON:-python3}" -m rsclip_jax.main --config="$CONFIG" --workdir="$WORKDIR" "$@"
