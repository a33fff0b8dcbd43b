#!/usr/bin/env bash
# nf-compare: models side by side on the same batches, stopped and gone on with, and what it refuses.
source "$(dirname "$0")/common.sh"

write_text 300
models=(-m gqa,num_key_value_heads=2 -m ngpt)
common=(--data "$work/text.txt" --hidden-size 32 --intermediate-size 64 --num-hidden-layers 1 --num-attention-heads 4
  --num-key-value-heads 4 --seq-len 32 --batch-size 2 --eval-batches 1 --threads 1)
compare=("$bin/nf-compare" "${models[@]}" "${common[@]}")

"${compare[@]}" --budget tokens=5k --out "$work/whole" > "$work/out" 2> /dev/null
grep -q '^78 steps\|78 steps, 4.99k tokens each' "$work/out" || fail "5k tokens are not 78 steps of 64: $(cat "$work/out")"
grep -q '^\[2/2\] ngpt: ' "$work/out" || fail "it does not say which run it is at"
grep -q '^model .*val loss .*KV/token' "$work/out" || fail "there is no table"
grep -q 'learns best\|learn equally well' "$work/out" || fail "it does not say what came out"
for file in report.html gqa/report.html gqa/checkpoint-78/model.safetensors ngpt/metrics.jsonl; do
  [ -s "$work/whole/$file" ] || fail "no $file"
done

# Each run is the run that nf-train makes.
"$bin/nf-train" -m gqa "${common[@]}" --num-key-value-heads 2 --steps 78 --eval-every 1 --save-every 15 --out "$work/alone" \
  > /dev/null 2>&1
cmp "$work/alone/checkpoint-78/model.safetensors" "$work/whole/gqa/checkpoint-78/model.safetensors" ||
  fail "other weights than nf-train's"

# The same command again keeps what is done; it says the same.
"${compare[@]}" --budget tokens=5k --out "$work/whole" > "$work/again" 2> /dev/null
[ "$(grep -c 'done before' "$work/again")" = 2 ] || fail "runs that are done are not kept: $(cat "$work/again")"
[ "$(tail -n 8 "$work/out")" = "$(tail -n 8 "$work/again")" ] || fail "another result the second time"

# Ctrl-C, then the same command: the bits of a run that was never stopped.
long=("${compare[@]}" --budget tokens=40k --save-every 20 --eval-every 40)
"${long[@]}" --out "$work/long" > /dev/null 2>&1
"${long[@]}" --out "$work/stopped" > "$work/stopped.log" 2>&1 &
pid=$!
for _ in $(seq 1 600); do
  compgen -G "$work/stopped/*/checkpoint-*" > /dev/null && break
  sleep 0.05
done
kill -INT $pid
status=0
wait $pid || status=$?
[ $status -eq 130 ] || [ $status -eq 0 ] || fail "a stopped comparison exits with $status"
if [ $status -eq 130 ]; then
  grep -q 'the same command goes on from here' "$work/stopped.log" || fail "it does not say how to go on"
fi
"${long[@]}" --out "$work/stopped" > /dev/null 2>&1
for model in gqa ngpt; do
  cmp "$work/long/$model/checkpoint-625/model.safetensors" "$work/stopped/$model/checkpoint-625/model.safetensors" ||
    fail "other weights of $model after a stop"
done

# Budgets of arithmetic and of time give each model its own number of steps; seeds have their own runs.
"${compare[@]}" --budget flops=1e9 --seeds 2 --out "$work/flops" > "$work/out" 2> /dev/null
grep -q 'to .* steps, --budget flops=1e9' "$work/out" || fail "a budget of FLOPs: $(cat "$work/out")"
grep -q '±' "$work/out" || fail "seeds have no spread"
[ -d "$work/flops/ngpt-seed2" ] || fail "the second seed has no folder"
"${compare[@]}" --budget time=1s --out "$work/time" > "$work/out" 2> /dev/null || fail "a budget of time"

# A run that fails leaves the others going.
status=0
"$bin/nf-compare" -m gqa,num_key_value_heads=2,lr=1e30,clip=0,warmup_steps=0 -m ngpt "${common[@]}" --budget tokens=5k --out "$work/fails" \
  > "$work/out" 2> /dev/null || status=$?
[ $status -eq 1 ] || fail "a failed run gives status $status"
grep -q 'gqa: step' "$work/out" || fail "it does not say what failed: $(cat "$work/out")"
[ -d "$work/fails/ngpt/checkpoint-78" ] || fail "the other run was not made"

mkdir -p "$work/early/gqa/tokenizer.json" # which cannot be written: a run that fails before its first step
status=0
"${compare[@]}" --budget tokens=5k --out "$work/early" > "$work/out" 2> "$work/err" || status=$?
[ $status -eq 1 ] && [ -d "$work/early/ngpt/checkpoint-78" ] || fail "a run that fails early: $status, $(cat "$work/out" "$work/err")"

refuse 'was made with other settings: training/lr is 0.001, now it would be 0.004' nf-compare "${models[@]}" "${common[@]}" \
  --budget tokens=5k --lr 0.004 --out "$work/whole"
echo 'broken' > "$work/time/gqa/config.json"
refuse 'gqa/config.json: line 1' nf-compare "${models[@]}" "${common[@]}" --budget tokens=5k --out "$work/time"
refuse 'give the models' nf-compare "${common[@]}"
refuse "did you mean '--budget'" nf-compare "${models[@]}" "${common[@]}" --budgt tokens=1k
refuse 'tokens=AMOUNT' nf-compare "${models[@]}" "${common[@]}" --budget 5k
refuse 'shipped are' nf-compare -m nosuch "${common[@]}"
echo "ok"
