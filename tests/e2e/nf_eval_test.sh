#!/usr/bin/env bash
# nf-eval on golden models and on a trained run: figures, files, errors.
set -euo pipefail

bin=${NF_BIN_DIR:?}
golden=${NF_TESTS_DIR:?}/golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
  echo "FAIL: $*" >&2
  exit 1
}
number() { # KEY FILE
  grep -o "\"$1\": *[-0-9.e+]*" "$2" | head -n 1 | sed 's/.*: *//'
}
near() { # A B RELATIVE
  awk -v a="$1" -v b="$2" -v e="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; if (b < 0) b = -b; exit !(a != "" && d <= e * b) }'
}

for model in mha gqa diff ngpt mla; do
  "$bin/nf-eval" -m "$golden/$model" --ids-file "$golden/$model/ids.json" --dtype f32 --threads 2 > "$work/line"
  loss=$(number loss "$work/line") expected=$(number loss "$golden/$model/expected.json")
  near "$loss" "$expected" 1e-5 || fail "$model: loss $loss, expected $expected"
  [ "$(number tokens "$work/line")" = 22 ] || fail "$model: not 22 tokens"
  near "$(number perplexity "$work/line")" "$(awk -v x="$expected" 'BEGIN { print exp(x) }')" 1e-4 || fail "$model: perplexity"
done
[ "$(wc -l < "$work/line")" = 1 ] || fail "more than one line of JSON"

# Documents and targets from files.
d=$golden/diff_documents
"$bin/nf-eval" -m "$d" --ids-file "$d/ids.json" --targets-file "$d/targets.json" --documents-file "$d/documents.json" > "$work/line"
near "$(number loss "$work/line")" "$(number loss "$d/expected.json")" 1e-5 || fail "documents: loss"

# The reference device agrees; logits and gradients are written.
"$bin/nf-eval" -m "$golden/gqa" --ids-file "$golden/gqa/ids.json" --device reference > "$work/line"
near "$(number loss "$work/line")" "$(number loss "$golden/gqa/expected.json")" 1e-6 || fail "reference: loss"
"$bin/nf-eval" -m "$golden/gqa" --ids-file "$golden/gqa/ids.json" --logits "$work/l.safetensors" \
  --grads "$work/g.safetensors" > /dev/null
grep -aq '"logits"' "$work/l.safetensors" || fail "no logits"
grep -aq '"model.embed_tokens.weight"' "$work/g.safetensors" || fail "no gradients"

# Text, with a run of nf-train.
for i in $(seq 1 100); do echo "line $i of a text to train on"; done > "$work/text.txt"
"$bin/nf-train" --attention-type gqa --hidden-size 32 --intermediate-size 64 --num-hidden-layers 1 \
  --num-attention-heads 4 --max-position-embeddings 64 --seq-len 32 --batch-size 4 --steps 5 --data "$work/text.txt" \
  --out "$work/run" --json > /dev/null
"$bin/nf-eval" -m "$work/run" --data "$work/text.txt" --seq-len 32 --threads 1 > "$work/one"
"$bin/nf-eval" -m "$work/run" --data "$work/text.txt" --seq-len 32 --threads 2 > "$work/two"
cmp "$work/one" "$work/two" || fail "the loss depends on the number of threads"
near "$(number loss "$work/one")" 5.5 0.2 || fail "loss of a model that has hardly learned: $(cat "$work/one")"

expect() { # PATTERN ARGUMENTS…
  local pattern=$1 status=0
  shift
  "$bin/nf-eval" "$@" > "$work/out" 2> "$work/err" || status=$?
  [ $status -eq 2 ] || fail "'$*' exited with $status, not 2"
  grep -q -- "$pattern" "$work/err" || fail "'$*' does not say '$pattern': $(cat "$work/err")"
  [ "$(wc -l < "$work/err")" = 1 ] || fail "'$*' does not fail in one line"
}
expect 'either --data or --ids-file' -m "$golden/gqa"
expect 'no such folder' -m "$work/nowhere" --ids-file "$golden/gqa/ids.json"
expect 'need --ids-file' -m "$work/run" --data "$work/text.txt" --logits "$work/x"
echo '[[1, 2, 48]]' > "$work/ids.json"
expect 'id 48 in row 0' -m "$golden/gqa" --ids-file "$work/ids.json"
echo '[[1, 2, 3], [1, 2]]' > "$work/ids.json"
expect 'row 1 has 2 ids' -m "$golden/gqa" --ids-file "$work/ids.json"
echo 'nonsense' > "$work/ids.json"
expect 'list of lists' -m "$golden/gqa" --ids-file "$work/ids.json"
mkdir "$work/cut"
cp "$golden/gqa/config.json" "$work/cut"
head -c 3000 "$golden/gqa/model.safetensors" > "$work/cut/model.safetensors"
expect 'model.safetensors' -m "$work/cut" --ids-file "$golden/gqa/ids.json"
"$bin/nf-eval" --help > "$work/help"
grep -q -- '--ids-file' "$work/help" || fail "--help"
echo "ok"
