#!/usr/bin/env bash
# nf-bench: tables and JSON of what is measured, errors. Nothing here depends on how fast the machine is.
source "$(dirname "$0")/common.sh"

# A model small enough for a step to take no time.
printf '%s' '{"attention_type": "gqa", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
  "intermediate_size": 64, "max_position_embeddings": 64, "training": {"seq_len": 16, "batch_size": 2, "grad_accum": 2}}' \
  > "$work/small.json"

"$bin/nf-bench" machine steps -m "$work/small.json" --seconds 0.001 --threads 1 > "$work/table"
for word in 'alone, nothing fused' '^1 thread$' '^machine: ' 'peak of matrix products .*f32' 'copy  *[0-9]' '^steps: ' 'small, 4 x 16 tokens' '% of peak'; do
  grep -q "$word" "$work/table" || fail "the tables do not say '$word': $(cat "$work/table")"
done
! grep -q '^matmul: ' "$work/table" || fail "a section that was not asked for"

"$bin/nf-bench" steps machine -m "$work/small.json" --seconds 0.001 --threads 1 --json > "$work/json"
[ "$(wc -l < "$work/json")" = 1 ] || fail "--json prints more than one line"
number='[0-9.e+-]+'
row() { grep -Eq "$1" "$work/json" || fail "no '$1' in $(cat "$work/json")"; }
row '^\{"threads":1,"seconds_per_measurement":0.001,"machine":\['
row "\{\"what\":\"peak of matrix products\",\"dtype\":\"f32\",\"gflops\":$number\}"
row "\{\"what\":\"copy\",\"gb_per_second\":$number\}"
row "\"steps\":\[\{\"what\":\"small, 4 x 16 tokens\",\"dtype\":\"bf16\",\"ms\":$number,\"tokens_per_second\":$number,\"gflops\":$number,\"share_of_peak\":$number\},"

refuse "unknown section 'atention'; did you mean 'attention'?" nf-bench atention
refuse "unknown section 'everything'; there are machine, matmul" nf-bench machine everything
refuse 'sections come before all flags' nf-bench --json machine
refuse '--seconds must be above 0' nf-bench machine --seconds 0
refuse 'nothing.json' nf-bench steps machine -m nothing.json
[ ! -s "$work/out" ] || fail "measured before a wrong config was told: $(cat "$work/out")"

"$bin/nf-bench" --help > "$work/help"
grep -q 'nf-bench matmul attention --threads 1' "$work/help" || fail "--help shows no example"
echo "ok"
