#!/usr/bin/env bash
# nf-eval on golden models and on a trained run: figures, files, errors.
source "$(dirname "$0")/common.sh"

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
for flag in --logits --grads; do
  (ulimit -f 1; expect 1 "File too large" nf-eval -m "$golden/gqa" --ids-file "$golden/gqa/ids.json" $flag "$work/full")
done

# Text, with a run of nf-train.
write_text 100
"$bin/nf-train" "${small[@]}" --seq-len 32 --batch-size 4 --steps 5 --data "$work/text.txt" --out "$work/run" --json > /dev/null
"$bin/nf-eval" -m "$work/run" --data "$work/text.txt" --seq-len 32 --threads 1 > "$work/one"
"$bin/nf-eval" -m "$work/run" --data "$work/text.txt" --seq-len 32 --threads 2 > "$work/two"
cmp "$work/one" "$work/two" || fail "the loss depends on the number of threads"
near "$(number loss "$work/one")" 5.5 0.2 || fail "loss of a model that has hardly learned: $(cat "$work/one")"

# At most so many batches; a terminal shows how far it is, anything else nothing.
"$bin/nf-eval" -m "$work/run" --data "$work/text.txt" --seq_len 32 --batch-size 4 --eval-batches 3 > "$work/line" 2> "$work/err"
[ "$(number tokens "$work/line")" = $((3 * 4 * 32)) ] || fail "--eval-batches: $(cat "$work/line")"
[ ! -s "$work/err" ] || fail "standard error is no terminal: $(cat "$work/err")"
if command -v script > /dev/null; then
  on_terminal "$bin/nf-eval" -m "$work/run" --data "$work/text.txt" --seq-len 2 --batch-size 1 > "$work/screen"
  grep -q 'batch  *1/[0-9]*  .*loss' "$work/screen" || fail "no progress: $(cat "$work/screen")"
  grep -q '100%  loss .* tok/s' "$work/screen" || fail "no speed: $(cat "$work/screen")"
  grep -q '"perplexity"' "$work/out" || fail "no result beside the progress"
fi

printf '{"title": "one", "body": "line one of the text"}\n' > "$work/records.jsonl"
refuse 'name one with --text-field: title, body' nf-eval -m "$work/run" --data "$work/records.jsonl" --seq-len 8
"$bin/nf-eval" -m "$work/run" --data "$work/records.jsonl" --text-field body --seq-len 8 | grep -q '"tokens":' || fail "--text-field"
[ "$("$bin/nf-tokenize" encode -t byte --data "$work/records.jsonl" --text-field title)" != "" ] || fail "nf-tokenize --text-field"
"$bin/nf-tokenize" encode 2> "$work/err" && fail "no tokenizer is refused"
grep -q '^nf-tokenize encode: give a tokenizer' "$work/err" || fail "the command is not named once: $(cat "$work/err")"

refuse '--seq-len is 100, .* allows at most 64' nf-eval -m "$work/run" --data "$work/text.txt" --seq-len 100
refuse "unknown flag '--batchsize'; did you mean '--batch-size'" nf-eval -m "$work/run" --batchsize 3
refuse '--grads: /proc/nowhere: ' nf-eval -m "$golden/gqa" --ids-file "$golden/gqa/ids.json" --grads /proc/nowhere/x
NF_DUMP=/proc/nowhere refuse 'NF_DUMP: /proc/nowhere: ' nf-eval -m "$golden/gqa" --ids-file "$golden/gqa/ids.json"
refuse 'either --data or --ids-file' nf-eval -m "$golden/gqa"
refuse 'no such folder' nf-eval -m "$work/nowhere" --ids-file "$golden/gqa/ids.json"
refuse '--logits needs --ids-file' nf-eval -m "$work/run" --data "$work/text.txt" --logits "$work/x"
echo '[[1, 2, 48]]' > "$work/ids.json"
refuse 'id 48 in row 0' nf-eval -m "$golden/gqa" --ids-file "$work/ids.json"
echo '[[1, 2, 3], [1, 2]]' > "$work/ids.json"
refuse 'row 1 has 2 ids' nf-eval -m "$golden/gqa" --ids-file "$work/ids.json"
echo 'nonsense' > "$work/ids.json"
refuse 'list of lists' nf-eval -m "$golden/gqa" --ids-file "$work/ids.json"
mkdir "$work/cut"
cp "$golden/gqa/config.json" "$work/cut"
head -c 3000 "$golden/gqa/model.safetensors" > "$work/cut/model.safetensors"
refuse 'model.safetensors' nf-eval -m "$work/cut" --ids-file "$golden/gqa/ids.json"
"$bin/nf-eval" --help > "$work/help"
grep -q -- '--ids-file' "$work/help" || fail "--help"
echo "ok"
