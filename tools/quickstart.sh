#!/usr/bin/env bash
# From nothing to scores and pictures on a laptop: environment, toy videos, training, testing.
#
#   ./tools/quickstart.sh [--fresh] [--gpus N]
#
#   --fresh     throw away what an earlier call left in work_dirs/quickstart and data/toy
#   --gpus N    processes for training and testing (default: 1 with a GPU, else 0 = one CPU process)
#
# Called again, it goes on where it stopped. Results: work_dirs/quickstart/.
set -euo pipefail

fresh=no gpus=""
while [ $# -gt 0 ]; do
    case $1 in
        --fresh) fresh=yes ;;
        --gpus) gpus=${2:?--gpus needs a number} && shift ;;
        -h | --help) sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
        *) echo "error: unknown argument $1 (see $0 --help)" >&2 && exit 2 ;;
    esac
    shift
done

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$repo_root"
config=local_configs/toy/cffm.b0.py
data=data/toy
out=work_dirs/quickstart
[ "$fresh" = no ] || rm -rf "$out" "$data"
mkdir -p "$out"
[ -n "$gpus" ] || gpus=$(python -c 'import torch; print(min(1, torch.cuda.device_count()))')

step() { printf '\n== %s\n' "$*"; }

step "1/4 toy videos in the VSPW layout: $data"
python tools/make_toy_dataset.py "$data"

step "2/4 testing the untrained network"
if [ ! -f "$out/untrained/res.json" ]; then
    ./tools/dist_test.sh "$config" none "$gpus" --out "$out/untrained/res.pkl" >"$out/untrained.log" 2>&1 ||
        { cat "$out/untrained.log" >&2; exit 1; }
fi

step "3/4 training CFFM with MiT-B0 from random weights"
./tools/dist_train.sh "$config" "$gpus" --work-dir "$out/train" --seed 0 --auto-resume

step "4/4 testing on videos that training has not seen"
./tools/dist_test.sh "$config" "$out/train/latest.pth" "$gpus" --out "$out/res.pkl" --save-png --show-dir "$out/show"

step "untrained and trained network"
python tools/compare.py untrained="$out/untrained/res.json" trained="$out/res.json"
cat <<TXT

label maps       $out/res.pkl, $out/result_submission/<video>/*.png
all scores       $out/res.json
overlay videos   $out/show/*.mp4
contact sheet    $out/show/contact_sheet.png
training log     $out/train/*.log
TXT
