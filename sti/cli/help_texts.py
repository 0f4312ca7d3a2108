"""What the help of each command of ``sti`` says after its options: examples, and what they show."""

from __future__ import annotations

TARGET_HELP = """\
targets:
  Without --latency, the best quality in the pack is used, however long it takes. Times are written
  as 200ms or 1.5s, sizes as 4MB, 512KB or 2MiB. Targets can be given names in sti.toml:

    [targets.voice]
    latency = "150ms"
    memory = "32MB"
    quantile = "99%"
    floor = "90%"

  sti.toml is looked for in the working directory, then in ~/.config/sti. Options on the command
  line override a named target.
"""

RUN_HELP = """\
examples:
  sti run model.sti.safetensors "a text" "another text"
  sti run model.sti.safetensors --input texts.txt --latency 200ms --preload 4MB
  sti run model.sti.safetensors --input texts.txt --jsonl > answers.jsonl
  sti run model.sti.safetensors --pair "a premise" "a hypothesis" --json
  cat texts.txt | sti run model.sti.safetensors --target voice

  Answers are printed on standard output. What they cost (times, bytes, the plan) is printed on
  standard error; with --json it is part of the document.

  Texts are read, answered and printed in batches of a few, however many there are; --json holds all
  answers until the end. A latency holds for each batch, from when it begins: it has as many texts
  as are answered in time without losing quality. A line that cannot be used ends the run when the
  texts before it are answered, and so does Ctrl-C, after a batch.

"""

WORKER_HELP = """\
examples:
  sti worker model.sti.safetensors --listen 0.0.0.0:7311 --keys keys
  sti worker part.sti.safetensors --listen 0.0.0.0:7311 --keys keys --memory 200MB
  sti worker model.sti.safetensors --listen 127.0.0.1:7311 --name board

  A worker computes the layers that a controller (`sti run --devices`) gives it. It needs the same
  pack as the controller, or a part of it (`sti-shard share`), and the same releases of STI and ONNX
  Runtime. Everything it says to others is encrypted, and only devices whose keys it has are heard;
  without keys it listens on 127.0.0.1 alone.

  Ctrl-C stops it. Controllers notice, and answer by themselves.
"""

DEVICES_HELP = """\
examples:
  sti devices init --keys keys phone board
  sti devices init --keys keys tablet

  Makes keys for this machine, the controller, in DIR, and a folder for each other device in it:
  DIR/phone is to be copied to the phone, which uses it as `sti worker --keys`. Devices that are
  added later need every folder to be copied again, for the public keys of the new ones.
"""

PLAN_HELP = """\
examples:
  sti plan model.sti.safetensors --latency 100ms --preload 2MB
  sti plan model.sti.safetensors --latency 100ms --explain
  sti plan model.sti.safetensors --tokens 128 --latency 50ms --output night.json
  sti run model.sti.safetensors --plan night.json "a text"
  sti plan model.sti.safetensors --device paper-board --latency 200ms
  sti plan model.sti.safetensors --device phone.json --latency 200ms

  --output FILE saves the plan as JSON, whatever is printed; --json prints the same JSON instead of
  the table.

  A device file holds what `sti calibrate PACK --json` printed on that device, or the times of one
  layer on a board, as in paper-board, which comes with STI.

"""

REPORT_HELP = """\
examples:
  sti report model.sti.safetensors --latency 100ms
  sti report model.sti.safetensors --tokens 16 --latency 50ms --preload 1MB -o page.html
  sti report model.sti.safetensors -o - > page.html

  The page is one file without scripts, which loads nothing. It says what will happen and why, and
  how runs went. Nothing is run for it: runs of `sti run` and of the Python API are summed up by day
  and target beside the device profile, without texts or answers; STI_HISTORY=off keeps nothing.

"""

BENCH_HELP = """\
examples:
  sti bench model.sti.safetensors
  sti bench model.sti.safetensors --tokens 128 --latency 100ms --format csv
  sti bench model.sti.safetensors --storage microsd -o card.md -o card.json
  sti bench model.sti.safetensors --storage 300MB/s:0.2ms
  sti bench model.sti.safetensors --fidelity 4 --preload 2MB --against model-int8.onnx

  Cold: a fresh process opens the pack, nothing of which is in the page cache, and runs once.
  Warm: an engine that is already open; weights are streamed again in every run.
  Against: ONNX Runtime answers the same texts with the whole model in memory. Every system runs in
  its own processes, and they take turns. The ONNX model may have the inputs input_ids,
  attention_mask and token_type_ids. It is opened and run once before anything is measured.

"""

CALIBRATE_HELP = """\
examples:
  sti calibrate model.sti.safetensors      measure, and choose the number of compute threads
  sti calibrate                            list what was measured before

  The first run of a pack measures the device by itself, in about two seconds. Calibrate again after
  changing the system's power settings, or after moving a pack to other storage.
"""

DOCTOR_HELP = """\
examples:
  sti doctor
  sti doctor model.sti.safetensors         also measures storage where the pack lies
"""
