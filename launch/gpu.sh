#!/usr/bin/env bash
# Runs rsclip_jax on all GPUs of this machine.
#
#   CONFIG=configs/align_sar.py WORKDIR=runs/gpu launch/gpu.sh [flags]
#
# [flags] are those of rsclip_jax.main.
# Install JAX's CUDA build first: .venv/bin/pip install -r requirements.txt "jax[cuda13]"
# Relative paths are those of the folder that you start it in. The same command
# continues an interrupted run.
#
#   --help      this text
#   --dry-run   prints the command and runs nothing
#
# variable   default   meaning
# CONFIG     required  config file or the name of a shipped config
# WORKDIR    required  folder of the run
# PYTHON               Python with the requirements; default: the clone's .venv or python3
set -euo pipefail
# shellcheck source=launch/common.sh
source "$(dirname "$0")/common.sh"
: "${PYTHON:=$(default_python)}"
parse "$@"
need CONFIG "such as configs/align_sar.py"
need_config "$PWD"
need_flags '--coordinator=*' '--processes=*' '--process=*'
need WORKDIR "the folder of the run"
need_workdir
need_tool "$PYTHON" "set PYTHON to a Python that has the requirements"

become env PYTHONPATH="$clone${PYTHONPATH:+:$PYTHONPATH}" \
    "$PYTHON" -m rsclip_jax.main --config="$CONFIG" --workdir="$WORKDIR" \
    ${flags[@]+"${flags[@]}"}
