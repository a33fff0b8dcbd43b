#!/usr/bin/env bash
# nf-estimate: figures, JSON, errors; nf-train --estimate is the same; huge models are only looked at.
source "$(dirname "$0")/common.sh"

write_text 200
cd "$work" # where a run would be written
small+=(--seq-len 16 --batch-size 2)

"$bin/nf-estimate" "${small[@]}" --data "$work/text.txt" --out "$work/run" > "$work/text.out"
for word in parameters 'training tokens' 'forward, per token' activations peak 'compute-optimal tokens'; do
  grep -q "$word" "$work/text.out" || fail "the estimate does not say '$word'"
done
[ ! -e "$work/run" ] || fail "an estimate writes a run's folder"

grep -q "steps, by the text's length" "$work/text.out" || fail "it does not say where the steps come from"
"$bin/nf-estimate" -m gqa | grep -q 'steps, as the settings say  *800' || fail "nor that they are the config's"

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

# 70 billion parameters, in an address space of 1 GB, of which a sanitizer alone would take more.
printf '%s' '{"attention_type": "gqa", "hidden_size": 8192, "num_hidden_layers": 80, "num_attention_heads": 64,
  "num_key_value_heads": 8, "intermediate_size": 28672, "vocab_size": 128256, "max_position_embeddings": 4096}' \
  > "$work/large.json"
([ -n "${NF_SANITIZE:-}" ] || ulimit -v 1000000; "$bin/nf-estimate" -m "$work/large.json" --seq-len 4096 --batch-size 1 --steps 10 --threads 1 \
  --json > "$work/large.out") || fail "a model of 70 billion parameters needs too much memory to estimate"
grep -q '"total":70553706496,' "$work/large.out" || fail "70B: other parameters: $(cat "$work/large.out")"

# What does not fit into any machine is told.
"$bin/nf-estimate" -m gqa --batch-size 1048576 > "$work/text.out"
tr -s '\n ' ' ' < "$work/text.out" | grep -q 'not enough memory: --batch-size 1048576 needs .*--batch-size [0-9]* fits' ||
  fail "40 TiB are not warned of: $(cat "$work/text.out")"
"$bin/nf-estimate" -m gqa --batch-size 1048576 --json | grep -q '"fits_in_memory":false' || fail "fits_in_memory"
grep -q '"fits_in_memory":true' "$work/a.json" || fail "a small run does not fit"

NF_DUMP=/proc/nowhere refuse 'NF_DUMP: /proc/nowhere: ' nf-estimate "${small[@]}" --data "$work/none.txt"
refuse 'none.txt' nf-estimate "${small[@]}" --data "$work/none.txt"
refuse 'unknown flag' nf-estimate "${small[@]}" --lerning-rate 1
refuse '--vocab-size' nf-estimate "${small[@]}" --tokenizer char
refuse 'give a model' nf-estimate --steps 3

"$bin/nf-estimate" --help > "$work/help"
grep -q 'nf-estimate -m gqa' "$work/help" || fail "--help shows no example"
echo "ok"
