#!/usr/bin/env bash
# From nothing to scores and pictures on a laptop: environment, toy videos, training, testing.
#
#   ./tools/quickstart.sh [--small] [--fresh] [--gpus N] [--iters N] [--out DIR]
#
#   --small     few videos and 20 iterations: whether all of it works here, within a minute or two
#   --fresh     throw away what an earlier call left in DIR
#   --gpus N    processes for training and testing (default: 1 with a GPU, else 0 = one CPU process)
#   --iters N   training iterations (default: those of the config, 600)
#   --out DIR   where data and results go (default: work_dirs/quickstart, work_dirs/quickstart_small)
#
# Called again, it goes on where it stopped.
set -euo pipefail

fresh=no gpus="" iters="" out="" small=() name=quickstart
while [ $# -gt 0 ]; do
    case $1 in
        --small) small=(--videos 4 --val-videos 1 --test-videos 1 --frames 18) name=quickstart_small ;;
        --fresh) fresh=yes ;;
        --gpus) gpus=${2:?--gpus needs a number} && shift ;;
        --iters) iters=${2:?--iters needs a number} && shift ;;
        --out) out=$(realpath -m "${2:?--out needs a folder}") && shift ;;
        -h | --help) sed -n '2,12s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" && exit 0 ;;
        *) echo "error: unknown argument $1 (see $0 --help)" >&2 && exit 2 ;;
    esac
    shift
done

source "$(dirname "${BASH_SOURCE[0]}")/env.sh"
cd "$repo_root"
config=local_configs/toy/cffm.b0.py
out=${out:-work_dirs/$name}
data=$out/toy
[ "$fresh" = no ] || rm -rf "$out"
mkdir -p "$out"
[ -n "$gpus" ] || gpus=$(python -c 'import torch; print(min(1, torch.cuda.device_count()))')
options=("data.train.dataset.data_root=$data" "data.val.data_root=$data" "data.test.data_root=$data")
[ ${#small[@]} -eq 0 ] || iters=${iters:-20} options+=("lr_config.warmup=None")  # that of the config is longer
[ -z "$iters" ] || options+=("runner.max_iters=$iters")

step() { printf '\n== %s\n' "$*"; }

step "1/4 toy videos in the VSPW layout: $data"
python tools/make_toy_dataset.py "$data" ${small[@]+"${small[@]}"}

step "2/4 testing the untrained network"
if [ ! -f "$out/untrained/res.json" ]; then
    ./tools/dist_test.sh "$config" none "$gpus" --out "$out/untrained/res.pkl" --options "${options[@]}" \
        >"$out/untrained.log" 2>&1 || { cat "$out/untrained.log" >&2 && exit 1; }
fi

step "3/4 training CFFM with MiT-B0 from random weights"
./tools/dist_train.sh "$config" "$gpus" --work-dir "$out/train" --seed 0 --auto-resume --options "${options[@]}"

step "4/4 testing on videos that training has not seen"
if [ "$out/res.json" -nt "$out/train/latest.pth" ]; then
    echo "These weights have been tested already: $out/res.json"
else
    ./tools/dist_test.sh "$config" "$out/train/latest.pth" "$gpus" --out "$out/res.pkl" --save-png \
        --show-dir "$out/show" --options "${options[@]}"
fi

step "untrained and trained network"
python tools/compare.py untrained="$out/untrained/res.json" trained="$out/res.json"
cat <<TXT

label maps       $out/res.pkl, $out/result_submission/<video>/*.png
all scores       $out/res.json
overlay videos   $out/show/*.mp4
contact sheet    $out/show/contact_sheet.png
training log     $out/train/*.log
TXT
