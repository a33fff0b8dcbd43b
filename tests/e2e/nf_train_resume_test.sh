#!/usr/bin/env bash
# nf-train stopped in every way there is: Ctrl-C, kill -9, another number of threads. The resumed run must end
# with the bits of one that was never stopped.
source "$(dirname "$0")/common.sh"

train=$bin/nf-train
write_text 400
# A model of a few thousand parameters; enough steps that a signal meets it at work.
common=(--data "$work/text.txt" --attention-type gqa --hidden-size 32 --intermediate-size 64
  --num-hidden-layers 2 --num-attention-heads 4 --max-position-embeddings 64 --seq-len 32 --batch-size 4
  --residual-dropout 0.1 --steps 400 --save-every 20 --eval-every 50 --eval-batches 2)

"$train" "${common[@]}" --threads 1 --out "$work/whole" --json > /dev/null
expected=$(sha256sum < "$work/whole/checkpoint-400/model.safetensors")

wait_for_checkpoint() { # RUN PID
  for _ in $(seq 1 600); do
    compgen -G "$1/checkpoint-*[0-9]/manifest.json" > /dev/null && return
    kill -0 "$2" 2> /dev/null || fail "the run in $1 ended before its first checkpoint"
    sleep 0.05
  done
  fail "no checkpoint in $1"
}

# Ctrl-C: the step is finished and saved, the exit status is 130.
"$train" "${common[@]}" --threads 2 --out "$work/stopped" --json > "$work/stopped.log" &
pid=$!
wait_for_checkpoint "$work/stopped" $pid
kill -INT $pid
status=0
wait $pid || status=$?
if [ $status -eq 130 ]; then
  tail -n 1 "$work/stopped.log" | grep -q '"interrupted":true' || fail "the last line does not say interrupted"
elif [ $status -ne 0 ]; then # 0: the run was faster than the signal
  fail "stopped run exited with $status, not 130"
fi
"$train" --resume "$work/stopped" --threads 1 --json > /dev/null
[ "$(sha256sum < "$work/stopped/checkpoint-400/model.safetensors")" = "$expected" ] || fail "other bits after a stop"

# kill -9 at random moments, again and again: whatever was half done is passed over. NF_KILLS=20 tries more of them.
RANDOM=1
runs=0 kills=0
while [ $kills -lt "${NF_KILLS:-6}" ]; do
  run=$work/killed$((runs += 1)) alive=
  "$train" "${common[@]}" --threads 1 --out "$run" --json > /dev/null &
  pid=$!
  wait_for_checkpoint "$run" $pid
  while true; do
    sleep "0.$(printf %03d $((RANDOM % 1000)))"
    kill -9 $pid 2> /dev/null && kills=$((kills + 1)) || alive=no
    wait $pid 2> /dev/null || true
    [ -z "$alive" ] && [ $kills -lt "${NF_KILLS:-6}" ] || break
    "$train" --resume "$run" --threads $((1 + RANDOM % 2)) --json > /dev/null &
    pid=$!
  done
  "$train" --resume "$run" --threads 2 --json > /dev/null
  [ "$(sha256sum < "$run/checkpoint-400/model.safetensors")" = "$expected" ] || fail "other bits after kill -9"
  [ "$(grep -c '"loss"' "$run/metrics.jsonl")" = 400 ] || fail "metrics.jsonl has not one record per step"
done
echo "killed $kills times in $runs runs"

# What has changed is told; what cannot change is refused.
cp -r "$work/stopped" "$work/changed"
"$train" --resume "$work/changed" --lr 0.002 --steps 401 > /dev/null 2> "$work/notes"
grep -q '^lr 0.001 in the checkpoint, 0.002 now$' "$work/notes" || fail "a changed lr is not told: $(cat "$work/notes")"
grep -q '^steps 400 in the checkpoint, 401 now$' "$work/notes" || fail "more steps are not told"
[ "$(grep -c 'in the checkpoint' "$work/notes")" = 2 ] || fail "other changes are told: $(cat "$work/notes")"
refuse 'made with model.hidden_size = 32, now it is 64' nf-train --resume "$work/changed" --hidden-size 64
refuse 'made with batch_size = 4, now it is 8' nf-train --resume "$work/changed" --batch-size 8
refuse 'made with the byte tokenizer, now it is char' nf-train --resume "$work/changed" --tokenizer char

# A checkpoint that was altered is passed over for the one before.
printf 'x' | dd of="$work/whole/checkpoint-400/model.safetensors" bs=1 seek=2000 conv=notrunc status=none
"$train" --resume "$work/whole" --json > "$work/altered.log"
grep -q 'passing over' "$work/altered.log" || fail "the altered checkpoint is not mentioned"
[ "$(sha256sum < "$work/whole/checkpoint-400/model.safetensors")" = "$expected" ] || fail "other bits after damage"
echo "ok"
