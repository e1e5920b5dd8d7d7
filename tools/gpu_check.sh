#!/usr/bin/env bash
# Is this checkout right and fast on this GPU? Runs the GPU tests, then prints the table of speeds. Under 6 minutes.
#
#   ./tools/gpu_check.sh [--out DIR] [--wheels DIR]     on the machine with the GPU; no network is needed
#   ./tools/gpu_check.sh --collect DIR                  beforehand, with network: fetch the wheels that it lacks
#
#   --out DIR      the table as DIR/benchmark.txt and DIR/benchmark.json, whole videos with decoding as DIR/video.txt,
#                  the tests' report as DIR/tests.txt (default: gpu_check)
#   --wheels DIR   where the wheels of --collect are (default: wheels, if it is there)
#
# The machine is taken to have PyTorch, torchvision, numpy, OpenCV and timm; what else is needed comes as wheels.
# Environment: PYTHON (default python).
set -euo pipefail

out=gpu_check wheels=wheels collect=""
while [ $# -gt 0 ]; do
    case $1 in
        --out) out=${2:?--out needs a folder} && shift ;;
        --wheels) wheels=${2:?--wheels needs a folder} && shift ;;
        --collect) collect=${2:?--collect needs a folder} && shift ;;
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
        *) echo "error: unknown argument $1 (see $0 --help)" >&2 && exit 2 ;;
    esac
    shift
done
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python}

# What the machine has already stays away from the wheels: they are large, and its builds fit its driver.
needed() {
    grep -hvE '^ *(#|$)' "$root/requirements.txt" "$root/requirements-test.txt" |
        grep -viE '^(torch|torchvision|timm|numpy|opencv-python|ruff)\b'
}
if [ -n "$collect" ]; then
    mkdir -p "$collect"
    needed >"$collect/requirements.txt"
    exec "$python" -m pip download --quiet --only-binary :all: --no-deps --dest "$collect" -r <(
        "$python" -m pip install --quiet --dry-run --ignore-installed --report - -r "$collect/requirements.txt" |
            "$python" -c 'import json, sys
have = {"torch", "torchvision", "timm", "numpy", "opencv-python"}
for item in json.load(sys.stdin)["install"]:
    name, version = item["metadata"]["name"], item["metadata"]["version"]
    if name.lower() not in have and not name.lower().startswith(("nvidia", "triton", "cuda")):
        print(f"{name}=={version}")'
    )
fi

if ! "$python" -c 'import torch, sys; sys.exit(not torch.cuda.is_available())'; then
    echo "error: PyTorch sees no GPU here" >&2
    echo "  what to do: run it on a machine with one; ./tools/run_tests.sh is the check for CPUs" >&2
    exit 2
fi
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"
modules="mmengine pytest pytest_timeout pydantic scipy tqdm safetensors tensorboard PIL"
if ! "$python" -c "import importlib, sys; [importlib.import_module(name) for name in sys.argv[1:]]" $modules 2>/dev/null; then
    if [ ! -d "$wheels" ]; then
        echo "error: some of '$modules' are missing here, and there is no folder $wheels" >&2
        echo "  what to do: ./tools/gpu_check.sh --collect DIR where there is a network, then --wheels DIR" >&2
        exit 2
    fi
    site=$(mktemp -d)
    trap 'rm -rf "$site"' EXIT
    "$python" -m pip install --quiet --no-index --no-deps --target "$site" "$wheels"/*.whl
    export PYTHONPATH="$PYTHONPATH:$site"
fi
mkdir -p "$out"
out=$(cd "$out" && pwd)
cd "$root"
"$python" -c 'import torch; print(torch.cuda.get_device_name(), "torch", torch.__version__, "CUDA", torch.version.cuda)' |
    tee "$out/card.txt"
status=0
"$python" -m pytest -m gpu -q -p no:cacheprovider tests/contract 2>&1 | tee "$out/tests.txt" || status=$?

configs=()
for size in B0 B1 B2 B5; do
    name=$(echo "$size" | tr B b)
    configs+=("local_configs/cffm/$size/cffm.$name.480x480.vspw2.160k.py")
done
configs+=(local_configs/cffm/B1/cffm.b1.480x480.vspw2_fine_w_proto.40k.py local_configs/mrcfa/B1/mrcfa.b1.480x480.vspw2.160k.py)
"$python" tools/benchmark.py "${configs[@]}" --mode table --device cuda --frames 10 --json "$out/benchmark.json" |
    tee "$out/benchmark.txt"
"$python" tools/benchmark.py "${configs[1]}" --mode table --device cuda --frames 5 --against-reference --compile \
    --json "$out/benchmark_b1.json" | tee "$out/benchmark_b1.txt"

# Whole videos with decoding: label maps that are handed out, and (300 frames, random weights) label maps as PNGs.
for config in "${configs[1]}" "${configs[3]}"; do
    for precision in "" "--amp bfloat16"; do
        # shellcheck disable=SC2086  # two words, or none
        "$python" tools/benchmark.py "$config" --mode video --device cuda $precision
    done
done | tee "$out/video.txt"
"$python" -c 'import sys; from pathlib import Path; from mmseg.engine.benchmark_video import write_video
write_video(Path(sys.argv[1]), (480, 854), 300)' "$out/moving.mp4"
"$python" tools/infer.py "$out/moving.mp4" "${configs[1]}" none --out "$out/video" --save labels --device cuda \
    --amp bfloat16 --overwrite >"$out/infer.txt" 2>&1 || { cat "$out/infer.txt" >&2 && exit 1; }
echo "with PNGs, CFFM-B1: $(grep ' frames in ' "$out/infer.txt")" | tee -a "$out/video.txt"
exit "$status"
