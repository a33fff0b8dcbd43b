#!/usr/bin/env bash
# nf-generate on a run of nf-train that has learned a few words: text, seeds, stop strings, errors.
source "$(dirname "$0")/common.sh"

for _ in $(seq 1 300); do echo "abcdefgh"; done > "$work/text.txt"
"$bin/nf-train" --attention-type gqa --hidden-size 32 --intermediate-size 64 --num-hidden-layers 2 \
  --num-attention-heads 4 --max-position-embeddings 64 --seq-len 32 --batch-size 8 --steps 80 --lr 0.01 \
  --data "$work/text.txt" --out "$work/run" --json > /dev/null
generate=("$bin/nf-generate" -m "$work/run")

# What it has learned by heart.
"${generate[@]}" --prompt abc --max-tokens 20 --temperature 0 > "$work/greedy" 2> "$work/speed"
grep -q '^abcdefgh$' "$work/greedy" || fail "not learned: $(cat "$work/greedy")"
grep -q 'tokens/s' "$work/speed" || fail "no speed on standard error"
"${generate[@]}" --prompt abc --max-tokens 20 --temperature 0 --dtype f32 2> /dev/null | cmp - "$work/greedy" || fail "f32 differs"
"${generate[@]}" --prompt abc --max-tokens 20 --temperature 0 --threads 1 2> /dev/null | cmp - "$work/greedy" || fail "threads"
echo abc | "${generate[@]}" --prompts - --max-tokens 20 --temperature 0 2> /dev/null | cmp - "$work/greedy" || fail "prompts from standard input"
printf "\xef\xbb\xbfabc\n" | "${generate[@]}" --prompts - --max-tokens 20 --temperature 0 2> /dev/null | cmp - "$work/greedy" || fail "a byte order mark before the prompts"

# Sampling: the same seed, the same text; top-k 1 is greedy.
for seed in 1 1 2 3 4; do "${generate[@]}" --prompt abc -n 40 --temperature 3 --seed $seed 2> /dev/null; echo "="; done > "$work/samples"
awk 'BEGIN { RS = "\n=\n" } { text[NR] = $0 } END { exit !(text[1] == text[2] && (text[1] != text[3] || text[1] != text[4])) }' \
  "$work/samples" || fail "seeds do not decide the text"
"${generate[@]}" --prompt abc --max-tokens 20 --temperature 3 --top-k 1 2> /dev/null | cmp - "$work/greedy" || fail "top-k 1"

# A stop string ends the text before it; --json tells why.
"${generate[@]}" --prompt abc --max-tokens 20 --temperature 0 --stop gh --json > "$work/json"
grep -q '"text":"def"' "$work/json" || fail "stop: $(cat "$work/json")"
grep -q '"finish_reason":"stop"' "$work/json" || fail "finish_reason"
"${generate[@]}" --prompt $'abcdefgh\nabc' --max-tokens 20 --temperature 0 --stop gh 2> /dev/null > "$work/text"
[ "$(cat "$work/text")" = $'abcdefgh\nabcdef' ] || fail "a stop string in the prompt: $(cat "$work/text")"
"${generate[@]}" --prompt abc --max-tokens 3 --temperature 0 --json | grep -q '"tokens":3,"finish_reason":"length"' || fail "max-tokens"
# The model's length ends it too.
"${generate[@]}" --prompt abc --max-tokens 1000 --temperature 0 --json | grep -q '"tokens":61,"finish_reason":"context"' || fail "context"
"${generate[@]}" --prompt abc --max_tokens=1000 --temperature 0 2> "$work/err" > /dev/null
grep -q "^61 tokens, .*end of the model's context of 64 tokens" "$work/err" || fail "the end of the context is not told"
"${generate[@]}" --prompt abc --max-tokens 61 --temperature 0 2> "$work/err" > /dev/null
grep -q 'context' "$work/err" && fail "all that was asked for, and a note still"

refuse 'no such folder' nf-generate -m "$work/nowhere" -p x
refuse 'temperature' nf-generate -m "$work/run" -p x --temperature -1
refuse 'top-p' nf-generate -m "$work/run" -p x --top-p 0
refuse "the model's context 64: there is no room" nf-generate -m "$work/run" -p "$(printf 'x%.0s' $(seq 1 70))"
refuse "unknown flag '--max-tokns'; did you mean '--max-tokens'" nf-generate -m "$work/run" --max_tokns 3
refuse "unexpected 'hello'; the text to continue is given with --prompt" nf-generate hello -m "$work/run"
NF_DUMP=/proc/nowhere refuse 'NF_DUMP: /proc/nowhere: ' nf-generate -m "$work/run" -p x
refuse 'give a model: -m DIR' nf-generate -p x
refuse 'train it with nf-train -m gqa' nf-generate -m gqa
refuse 'max-tokens must be a whole number of at least 1' nf-generate -m "$work/run" -p x --max-tokens 0
"$bin/nf-generate" --help > "$work/help"
grep -q -- '--top-k' "$work/help" || fail "--help"
echo "ok"
