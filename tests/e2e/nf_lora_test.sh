#!/usr/bin/env bash
# A Llama that another program wrote: it goes through here bit for bit, is fine-tuned whole and by an adapter, and the
# adapter is used, resumed and merged.
source "$(dirname "$0")/common.sh"

if ! command -v node > /dev/null; then
  echo "skipped: node is not installed, and with it nobody to write another program's files"
  echo "ok"
  exit
fi
peers=${NF_TESTS_DIR:?}/peers
node "$peers/write_llama.mjs" "$work/llama"
write_text 60
loss() { "$bin/nf-eval" --threads 1 -m "$1" --data "$work/text.txt" --seq-len 32 --eval-batches 4 | grep -o '"loss":[0-9.]*' | cut -d : -f 2; }
below() { awk -v a="$1" -v b="$2" 'BEGIN { exit !(a != "" && a < b) }'; }
flags=(--data "$work/text.txt" --seq-len 32 --batch-size 4 --val-fraction 0 --threads 1 --json)

# There and back: the same tensors in bf16, byte by byte. The tokenizer is ours, there is none in the folder.
"$bin/nf-train" --init-from "$work/llama" "${flags[@]}" --steps 30 --lr 0.003 --out "$work/tuned" > /dev/null
cp "$work/tuned/tokenizer.json" "$work/llama"
"$bin/nf-export" -m "$work/llama" --to hf --dtype bf16 --out "$work/back" > /dev/null
[ "$(node "$peers/same_tensors.mjs" "$work/llama" "$work/back")" = 20 ] || fail "the weights changed on the way"
base=$(loss "$work/llama")
below "$(loss "$work/tuned")" "$(awk -v b="$base" 'BEGIN { print b - 1 }')" || fail "fine-tuning has not helped: $base, $(loss "$work/tuned")"

# An adapter: small, over a base that stays, resumable, and the same when merged.
lora=(--lora r=4,alpha=8,targets=q_proj,v_proj,up_proj,dropout=0.05 --lr 0.01)
"$bin/nf-train" --init-from "$work/llama" "${flags[@]}" "${lora[@]}" --steps 30 --out "$work/adapter" > "$work/log"
grep -q '"event":"end"' "$work/log" || fail "no end: $(tail -n 1 "$work/log")"
[ -f "$work/adapter/checkpoint-30/adapter_config.json" ] || fail "no adapter_config.json"
[ ! -e "$work/adapter/checkpoint-30/model.safetensors" ] || fail "the base was saved too"
below "$(loss "$work/adapter")" "$base" || fail "the adapter has not helped: $base, $(loss "$work/adapter")"
"$bin/nf-generate" -m "$work/adapter" --prompt 'line 7' --max-tokens 8 --temperature 0 > /dev/null 2>&1 || fail "nf-generate"
"$bin/nf-train" --init-from "$work/llama" "${flags[@]}" "${lora[@]}" --steps 30 --save-every 10 --keep 9 --out "$work/again" > /dev/null
rm -r "$work/again/checkpoint-20" "$work/again/checkpoint-30"
"$bin/nf-train" --resume "$work/again" --threads 2 --json > /dev/null
cmp "$work/again/checkpoint-30/adapter_model.safetensors" "$work/adapter/checkpoint-30/adapter_model.safetensors" ||
  fail "other bits after resuming"
refuse 'is an adapter, in PEFT.s layout already; --merge' nf-export -m "$work/adapter" --to hf --out "$work/x"
refuse '--merge: .* is no adapter' nf-export -m "$work/tuned" --to hf --merge --out "$work/x"
"$bin/nf-export" -m "$work/adapter" --merge --to hf --out "$work/merged" > /dev/null
cp "$work/adapter/tokenizer.json" "$work/merged"
[ "$(loss "$work/adapter")" = "$(loss "$work/merged")" ] || fail "merging changed the loss"

# Less memory, said beforehand; what cannot be is refused.
total() { "$bin/nf-estimate" "$@" --json | grep -o '"total":[0-9]*},"fits' | grep -o '[0-9]*'; }
whole=$(total -m gqa --batch-size 1 --steps 10) adapted=$(total -m gqa --batch-size 1 --steps 10 --lora r=8)
[ "$((3 * adapted))" -lt "$whole" ] || fail "an adapter takes $adapted bytes, the whole model $whole"
refuse 'say which one with --init-from' nf-train -m gqa "${flags[@]}" "${lora[@]}" --out "$work/x"
refuse "gqa has no projection 'query'" nf-train --init-from "$work/llama" "${flags[@]}" --lora targets=query --out "$work/x"
refuse "unknown 'rank'; there are r" nf-train --init-from "$work/llama" "${flags[@]}" --lora rank=3 --out "$work/x"
sed 's/"hidden_act":"silu"/"hidden_act":"tanh"/' "$work/llama/config.json" > "$work/back/config.json"
refuse "'hidden_act' must be one of" nf-train --init-from "$work/back" "${flags[@]}" --out "$work/x"
echo "ok"
