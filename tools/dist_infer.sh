#!/usr/bin/env bash
# Segment many videos with several processes:
#
#   ./tools/dist_infer.sh GPUS [CONFIG] CHECKPOINT --input VIDEO ... --out DIR [arguments of tools/infer.py]
#
# GPUS=0 is one CPU process. The same command goes on where a run was stopped. Environment: PORT (default: a free one;
# 29833 with several machines) and what processes.sh names.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 GPUS [CONFIG] CHECKPOINT --input VIDEO ... --out DIR [arguments of tools/infer.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
run_processes infer.py "$1" 29833 "--device cpu" "${@:2}"
