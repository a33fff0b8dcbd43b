#!/usr/bin/env bash
# For every variant: 50 steps leave the same bits with 1 and 2 threads, with and without gradient checkpointing, and when
# the run is killed on the way and resumed.
source "$(dirname "$0")/common.sh"

train=$bin/nf-train
write_text 400
common=(--data "$work/text.txt" --hidden-size 64 --intermediate-size 96 --num-hidden-layers 3 --num-attention-heads 4
  --max-position-embeddings 64 --seq-len 40 --batch-size 3 --grad-accum 2 --steps 50 --save-every 25 --eval-every 0 --json)

hash_of() { sha256sum < "$work/$1/checkpoint-50/model.safetensors"; }

for variant in mha gqa diff ngpt mla; do
  run=("$train" "${common[@]}" --attention-type $variant)
  "${run[@]}" --threads 1 --out "$work/$variant-whole" > /dev/null
  expected=$(hash_of $variant-whole)

  "${run[@]}" --threads 2 --out "$work/$variant-threads" > /dev/null
  [ "$(hash_of $variant-threads)" = "$expected" ] || fail "$variant: 2 threads leave other bits than 1"

  "${run[@]}" --threads 2 --gradient-checkpointing layer --out "$work/$variant-layer" > /dev/null
  [ "$(hash_of $variant-layer)" = "$expected" ] || fail "$variant: gradient checkpointing changes bits"

  "${run[@]}" --threads 2 --out "$work/$variant-killed" > "$work/log" &
  pid=$!
  until compgen -G "$work/$variant-killed/checkpoint-25/manifest.json" > /dev/null || ! kill -0 $pid 2> /dev/null; do sleep 0.01; done
  kill -9 $pid 2> /dev/null || true
  wait $pid 2> /dev/null || true
  "$train" --resume "$work/$variant-killed" --threads 1 --json > /dev/null
  [ "$(hash_of $variant-killed)" = "$expected" ] || fail "$variant: other bits after kill -9 and resume"
  echo "$variant: $expected"
done
