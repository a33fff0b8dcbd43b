#!/usr/bin/env bash
# What nf-train says and how it exits when something is wrong: one line, 2 for bad input, 1 for a failed run.
source "$(dirname "$0")/common.sh"

train=$bin/nf-train
write_text 200
small+=(--seq-len 16 --batch-size 2 --steps 3)

refuse 'give a model' nf-train --data "$work/text.txt"
refuse 'unknown flag' nf-train "${small[@]}" --data "$work/text.txt" --lerning-rate 1
refuse 'none.txt' nf-train "${small[@]}" --data "$work/none.txt"
refuse 'vocab_size is 10' nf-train "${small[@]}" --data "$work/text.txt" --vocab-size 10 --out "$work/a"
refuse "nothing: no such folder" nf-train "${small[@]}" --data "$work/text.txt" --resume "$work/nothing"
refuse "nothing: no such folder" nf-train --resume "$work/nothing"
printf 'not \xff text' > "$work/bad.txt"
refuse 'bad.txt' nf-train "${small[@]}" --data "$work/bad.txt" --out "$work/a"
[ ! -e "$work/a" ] || fail "bad input left a folder behind"

# A learning rate that blows up: the run fails and says where.
expect 1 'the loss is' nf-train "${small[@]}" --data "$work/text.txt" --out "$work/b" --lr 1e30 --clip 0 --steps 50 --json

# So does one whose files may not grow as large as a checkpoint.
(ulimit -f 20; expect 1 "File too large" nf-train "${small[@]}" --data "$work/text.txt" --out "$work/full")

# Folders that cannot be written are found before the text is read.
: > "$work/file"
for out in "$work/file/run" "$work/file" /proc/nowhere/run; do
  refuse "--out: $out: " nf-train "${small[@]}" --data "$work/none.txt" --out "$out"
done
NF_DUMP=/proc/nowhere refuse 'NF_DUMP: /proc/nowhere: ' nf-train "${small[@]}" --data "$work/none.txt" --out "$work/a"

# Neither is memory that is not there: 40 TiB.
refuse 'not enough memory: --batch-size 1048576 needs .*; --batch-size [0-9]* fits' \
  nf-train -m gqa --data "$work/text.txt" --out "$work/a" --batch-size 1048576 --steps 3
[ ! -e "$work/a" ] || fail "bad input left a folder behind"

# Configs that are none.
: > "$work/empty.json"
refuse "$work: no config.json in this folder; .* a shipped config: mha, gqa" nf-train -m "$work" --data "$work/text.txt"
refuse "no file 'nosuch.json', and no shipped config of that name; shipped are" nf-train -m nosuch.json --data "$work/text.txt"
refuse 'empty.json: the file is empty' nf-train -m "$work/empty.json" --data "$work/text.txt"

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

refuse 'has a run already' nf-train "${small[@]}" --data "$work/text.txt" --out "$work/c"
echo "ok"
