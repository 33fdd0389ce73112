#!/usr/bin/env bash
# One machine, all its GPUs: CONFIG=configs/align_sar.py WORKDIR=runs/x launch/gpu.sh [flags]
# Install CUDA's jax into the environment first: pip install "jax[cuda13]==<the pin>"
# Relative paths are those of the folder that you start it in.
set -euo pipefail
: "${CONFIG:?set CONFIG, such as configs/align_sar.py}"
: "${WORKDIR:?set WORKDIR, the folder of the run}"
clone=$(cd "$(dirname "$0")/.." && pwd)
export PYTHONPATH="$clone${PYTHONPATH:+:$PYTHONPATH}"
exec "${PYTHON:-python3}" -m rsclip_jax.main --config="$CONFIG" --workdir="$WORKDIR" "$@"
