#!/usr/bin/env bash
# Train with several processes: ./tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#
# GPUS=0 is one CPU process. Environment: MAX_RESTARTS (default 0: how often to go on from the newest checkpoint after a
# crash), PORT (default: a free one; 43412 with several machines) and what processes.sh names (docs/many_machines.md).
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG GPUS [arguments of tools/train.py]" >&2
    exit 2
fi
source "$(dirname "${BASH_SOURCE[0]}")/processes.sh"
run_processes train.py "$2" 43412 "--gpus 0" "$1" "${@:3}"
