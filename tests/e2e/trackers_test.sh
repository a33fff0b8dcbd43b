#!/usr/bin/env bash
# What --track writes is read by others: protocol buffers' own library (Debian's python3-protobuf), with checksums
# computed anew. Also after a run was stopped in the middle and resumed.
source "$(dirname "$0")/common.sh"

python=""
for candidate in python3 /usr/bin/python3; do
  "$candidate" -c 'import google.protobuf' 2> /dev/null && python=$candidate && break
done
if [ -z "$python" ]; then
  echo "skipped: no python3 with google.protobuf (Debian: python3-protobuf)"
  exit 0
fi

write_text 400
run=(--data "$work/text.txt" "${small[@]}" --seq-len 32 --batch-size 2 --steps 300 --eval-every 40 --save-every 100
  --eval-batches 1 --track jsonl,tensorboard,wandb --threads 1)
check() { "$python" "$(dirname "$0")/check_trackers.py" "$1" || fail "the trackers of $1 are not as they should be"; }

"$bin/nf-train" "${run[@]}" --out "$work/run" --json > /dev/null
check "$work/run"

# Once more from the middle: later checkpoints are gone, as after a crash, and the metrics go beyond.
rm -r "$work/run/checkpoint-300" "$work/run/best"
"$bin/nf-train" --resume "$work/run" --steps 320 --json --threads 1 > /dev/null
check "$work/run"

refuse "track' must be a list of jsonl, tensorboard and wandb" nf-train "${run[@]}" --track tensorbord --out "$work/x"
"$bin/nf-train" "${run[@]}" --track jsonl --steps 5 --out "$work/plain" --json > /dev/null
[ ! -e "$work/plain/wandb" ] && [ ! -e "$work/plain/tensorboard" ] || fail "trackers that nobody asked for"
"$bin/nf-train" "${run[@]}" --track jsonl --wandb --steps 5 --out "$work/wandb" --json > /dev/null
[ -d "$work/wandb/wandb" ] || fail "--wandb is not a way to say --track wandb"
echo "ok"
