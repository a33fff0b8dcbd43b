#!/usr/bin/env bash
# What nf-train says and how it exits when something is wrong: one line, 2 for bad input, 1 for a failed run.
set -euo pipefail

train=${NF_BIN_DIR:?}/nf-train
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAIL: $*" >&2
  exit 1
}

for i in $(seq 1 200); do echo "line $i of a text to train on"; done > "$work/text.txt"
small=(--attention-type gqa --hidden-size 32 --intermediate-size 64 --num-hidden-layers 1
  --num-attention-heads 4 --max-position-embeddings 64 --seq-len 16 --batch-size 2 --steps 3)

expect() { # STATUS PATTERN ARGUMENTS…
  local wanted=$1 pattern=$2 status=0
  shift 2
  "$train" "$@" > "$work/out" 2> "$work/err" || status=$?
  [ $status -eq "$wanted" ] || fail "'$*' exited with $status, not $wanted: $(cat "$work/err")"
  grep -q -- "$pattern" "$work/err" || fail "'$*' does not say '$pattern': $(cat "$work/err")"
  [ "$(grep -c '^nf-train: ' "$work/err")" = 1 ] || fail "'$*' does not fail in one line: $(cat "$work/err")"
}

expect 2 'give a model' --data "$work/text.txt"
expect 2 'unknown flag' "${small[@]}" --data "$work/text.txt" --lerning-rate 1
expect 2 'none.txt' "${small[@]}" --data "$work/none.txt"
expect 2 'vocab_size is 10' "${small[@]}" --data "$work/text.txt" --vocab-size 10 --out "$work/a"
expect 2 'nothing' "${small[@]}" --data "$work/text.txt" --resume "$work/nothing"
printf 'not \xff text' > "$work/bad.txt"
expect 2 'bad.txt' "${small[@]}" --data "$work/bad.txt" --out "$work/a"
[ ! -e "$work/a" ] || fail "bad input left a folder behind"

# A learning rate that blows up: the run fails and says where.
expect 1 'the loss is' "${small[@]}" --data "$work/text.txt" --out "$work/b" --lr 1e30 --clip 0 --steps 50 --json

# A folder that cannot be written.
: > "$work/file"
expect 1 'file' "${small[@]}" --data "$work/text.txt" --out "$work/file/run"

"$train" --help > "$work/help"
grep -q -- '--data' "$work/help" || fail "--help does not explain --data"

# What --json prints is JSON, line by line, and nothing else.
"$train" "${small[@]}" --data "$work/text.txt" --out "$work/c" --eval-every 1 --json > "$work/lines" 2> "$work/err"
[ ! -s "$work/err" ] || fail "--json prints to standard error: $(cat "$work/err")"
if command -v python3 > /dev/null; then
  python3 -c 'import json,sys; [json.loads(line) for line in open(sys.argv[1])]' "$work/lines" || fail "not JSON"
fi
for event in start step eval checkpoint end; do
  grep -q "\"event\":\"$event\"" "$work/lines" || fail "no event $event"
done

expect 2 'has a run already' "${small[@]}" --data "$work/text.txt" --out "$work/c"
echo "ok"
