#!/usr/bin/env bash
# nf-export: a folder for transformers loads here again with the same result; llama.cpp reads the GGUF file and writes the
# same text.
source "$(dirname "$0")/common.sh"

train() { # NAME FLAGS…: a run in $work/NAME
  local name=$1
  shift
  "$bin/nf-train" --data "$work/text.txt" --hidden-size 32 --intermediate-size 64 --num-hidden-layers 2 \
    --num-attention-heads 4 --max-position-embeddings 128 --seq-len 32 --batch-size 4 --steps 30 --lr 0.01 \
    --eval-every 0 --threads 1 --out "$work/$name" --json "$@" > /dev/null
}
loss() { "$bin/nf-eval" --threads 1 -m "$1" --data "$work/text.txt" --seq-len 32 --eval-batches 4; }

write_text 60
train gqa --attention-type gqa
train mha --attention-type mha --attention-bias true --mlp-bias true --tie-word-embeddings true --head-dim 12 \
  --tokenizer char
train diff --attention-type diff
train mla --attention-type mla
train window --attention-type gqa --sliding-window 8
train ngpt --attention-type ngpt
train biased --attention-type gqa --attention-bias true --attention-output-bias false
train normed --attention-type gqa --qk-norm true --head-dim 16

for model in gqa mha diff mla window biased normed; do
  "$bin/nf-export" -m "$work/$model" --to hf --out "$work/$model-hf" > "$work/said"
  grep -q "$model-hf written, .* KiB" "$work/said" || fail "nf-export says: $(cat "$work/said")"
  [ "$(ls "$work/$model-hf" | tr '\n' ' ')" = "config.json generation_config.json model.safetensors tokenizer.json \
tokenizer_config.json " ] || fail "$model: other files: $(ls "$work/$model-hf")"
  cp "$work/$model-hf/tokenizer.json" "$work/tokenizer.json"
  cp "$work/$model/tokenizer.json" "$work/$model-hf" # ours
  [ "$(loss "$work/$model")" = "$(loss "$work/$model-hf")" ] || fail "$model: another loss after the way there and back"
done
architecture() { grep -A1 architectures "$work/$1-hf/config.json" | tail -n 1 | tr -d ' "'; }
[ "$(architecture biased) $(architecture normed)" = "Qwen2ForCausalLM Qwen3ForCausalLM" ] || fail "architectures of Qwen"
[ "$(architecture gqa) $(architecture mha) $(architecture diff) $(architecture mla) $(architecture window)" = \
  "LlamaForCausalLM LlamaForCausalLM DiffLlamaForCausalLM DeepseekV3ForCausalLM MistralForCausalLM" ] || fail "architectures"

# Half the bytes; shards with an index.
"$bin/nf-export" -m "$work/gqa" --to hf --dtype bf16 --out "$work/narrow" > /dev/null
[ $((2 * $(stat -c %s "$work/narrow/model.safetensors"))) -lt $(($(stat -c %s "$work/gqa-hf/model.safetensors") + 8000)) ] ||
  fail "bf16 is not smaller"
train wide --attention-type mha --hidden-size 512 --num-hidden-layers 1 --steps 1
"$bin/nf-export" -m "$work/wide" --to hf --out "$work/shards" --shard-mb 2 > /dev/null
[ -f "$work/shards/model.safetensors.index.json" ] || fail "no index of shards"
cp "$work/wide/tokenizer.json" "$work/shards"
[ "$(loss "$work/wide")" = "$(loss "$work/shards")" ] || fail "another loss from shards"

refuse "'attention_type' is ngpt, and no class" nf-export -m "$work/ngpt" --to hf --out "$work/x"
refuse "no word for this model's 'attention_type'" nf-export -m "$work/diff" --to gguf --out "$work/x.gguf"
refuse "no word for this model's 'sliding_window'" nf-export -m "$work/window" --to gguf --out "$work/x.gguf"
refuse 'is not empty; nothing is overwritten' nf-export -m "$work/gqa" --to hf --out "$work/shards"
refuse 'is there already; nothing is overwritten' nf-export -m "$work/gqa" --to gguf --out "$work/shards/config.json"
refuse 'is there already; nothing is overwritten' nf-tokenize train --vocab-size 300 --data "$work/text.txt" --out "$work/text.txt"
refuse '--out: .*: is a folder' nf-export -m "$work/gqa" --to gguf --out "$work/shards"
refuse '--to must be one of hf, gguf' nf-export -m "$work/gqa" --to onnx --out "$work/x"
refuse 'say what for' nf-export -m "$work/gqa" --out "$work/x"
refuse 'needs an end-of-text token' nf-export -m "$work/mha" --to gguf --out "$work/x.gguf"
[ ! -e "$work/x" ] && [ ! -e "$work/x.gguf" ] || fail "a refused export has left something"

# llama.cpp, where `make peers` has installed it.
printf 'line one of é and 漢\n' > "$work/other.txt"
"$bin/nf-tokenize" train --vocab-size 300 --data "$work/text.txt" --out "$work/words.json" > /dev/null 2>&1
train words --attention-type gqa --tokenizer "$work/words.json"
train letters --attention-type mha --tokenizer char --data "$work/other.txt" --attention-bias true \
  --tie-word-embeddings true --head-dim 12 \
  --rope-scaling '{"rope_type": "llama3", "factor": 4, "original_max_position_embeddings": 32}'
train linear --attention-type gqa --rope-scaling '{"rope_type": "linear", "factor": 2}'
for model in gqa letters words linear biased normed; do
  "$bin/nf-export" -m "$work/$model" --to gguf --out "$work/$model.gguf" > /dev/null
done
peer() { node "${NF_TESTS_DIR:?}/peers/llama_cpp.mjs" "$@"; }
agree() { # MODEL PROMPT…, all of as many tokens: the same 64 greedy tokens, with the same logits
  local model=$1 status=0
  shift
  peer generate "$bin/peers" "$work/$model.gguf" "$work/theirs.json" "$@" 2> "$work/notice" || status=$?
  if [ $status = 77 ] || [ $status = 127 ]; then
    echo "skipped: llama.cpp does not read the GGUF files; make peers installs it ($(head -c 200 "$work/notice"))"
    echo "ok"
    exit
  fi
  [ $status = 0 ] || fail "llama.cpp and $model: $(cat "$work/notice")"
  sed 's/.*"ids":\(\[\[[^]]*\(\],\[[^]]*\)*\]\]\).*/\1/' "$work/theirs.json" > "$work/ids.json"
  "$bin/nf-eval" -m "$work/$model" --ids-file "$work/ids.json" --logits "$work/logits.safetensors" > /dev/null
  peer compare "$work/theirs.json" "$work/logits.safetensors" 1e-3 || fail "llama.cpp and $model disagree"
}
agree gqa 'line 7 of the ' 'text, which is' '漢字 über a'
agree linear 'line 7 of the ' 'text, which is' '漢字 über a'
agree biased 'line 7 of the '
agree normed 'line 7 of the '
agree words 'line 7 of the '
agree letters 'line 7 of é 漢' 'something 漢 é'
for dtype in bf16 f16; do # its products round otherwise than ours, so that only the reading is tried
  "$bin/nf-export" -m "$work/gqa" --to gguf --dtype $dtype --out "$work/$dtype.gguf" > /dev/null
  peer generate "$bin/peers" "$work/$dtype.gguf" "$work/theirs.json" 'line 7 of the ' || fail "llama.cpp does not read $dtype"
done
echo "ok"
