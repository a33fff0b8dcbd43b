#!/usr/bin/env bash
# nf-estimate: figures, JSON, errors; nf-train --estimate is the same; huge models are only looked at.
set -euo pipefail

bin=${NF_BIN_DIR:?}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAIL: $*" >&2
  exit 1
}

for i in $(seq 1 200); do echo "line $i of a text to train on"; done > "$work/text.txt"
cd "$work" # where a run would be written
small=(--attention-type gqa --hidden-size 32 --intermediate-size 64 --num-hidden-layers 2 --num-attention-heads 4
  --max-position-embeddings 64 --seq-len 16 --batch-size 2)

"$bin/nf-estimate" "${small[@]}" --data "$work/text.txt" --out "$work/run" > "$work/text.out"
for word in parameters 'training tokens' 'forward, per token' activations peak 'compute-optimal tokens'; do
  grep -q "$word" "$work/text.out" || fail "the estimate does not say '$word'"
done
[ ! -e "$work/run" ] || fail "an estimate writes a run's folder"

"$bin/nf-estimate" "${small[@]}" --data "$work/text.txt" --steps 7 --json > "$work/a.json"
"$bin/nf-train" "${small[@]}" --data "$work/text.txt" --steps 7 --estimate --json > "$work/b.json"
without_speed='s/,"peak_flops_per_second".*//' # measured anew each time
diff <(sed "$without_speed" "$work/a.json") <(sed "$without_speed" "$work/b.json") || fail "nf-train --estimate differs"
[ "$(wc -l < "$work/a.json")" = 1 ] || fail "--json prints more than one line"

# What the run itself reports is what was estimated.
"$bin/nf-train" "${small[@]}" --data "$work/text.txt" --steps 1 --json --out "$work/run" > "$work/run.log"
for key in state arena; do
  estimated=$(grep -o "\"$key\":[0-9]*" "$work/a.json" | cut -d: -f2)
  grep -q "\"${key}_bytes\":$estimated," "$work/run.log" || fail "$key: $estimated bytes estimated, the run says otherwise"
done

# 70 billion parameters, in an address space of 1 GB.
printf '%s' '{"attention_type": "gqa", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
  "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256, "max_position_embeddings": 4096}' \
  > "$work/large.json"
(ulimit -v 1000000 && "$bin/nf-estimate" -m "$work/large.json" --seq-len 4096 --batch-size 1 --steps 10 --threads 1 \
  --json > "$work/large.out") || fail "a model of 70 billion parameters needs too much memory to estimate"
grep -q '"total":70553706496,' "$work/large.out" || fail "70B: other parameters: $(cat "$work/large.out")"

expect() { # PATTERN ARGUMENTS…
  local pattern=$1 status=0
  shift
  "$bin/nf-estimate" "$@" > "$work/out" 2> "$work/err" || status=$?
  [ $status -eq 2 ] || fail "'$*' exited with $status, not 2"
  grep -q -- "$pattern" "$work/err" || fail "'$*' does not say '$pattern': $(cat "$work/err")"
  [ "$(wc -l < "$work/err")" = 1 ] || fail "'$*' does not fail in one line"
}
expect 'none.txt' "${small[@]}" --data "$work/none.txt"
expect 'unknown flag' "${small[@]}" --lerning-rate 1
expect '--vocab-size' "${small[@]}" --tokenizer char
expect 'give a model' --steps 3

"$bin/nf-estimate" --help > "$work/help"
grep -q 'nf-estimate -m gqa' "$work/help" || fail "--help shows no example"
echo "ok"
