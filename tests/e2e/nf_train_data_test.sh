#!/usr/bin/env bash
# Data as users have them: packed files, the cache of tokens shared by runs that start together and by one that is killed
# at any moment, and a large text in little memory.
source "$(dirname "$0")/common.sh"

train=$bin/nf-train
run=("${small[@]}" --seq-len 32 --batch-size 2 --steps 2 --eval-every 0 --threads 2)
weights() { sha256sum < "$1/checkpoint-2/model.safetensors"; }

# The same text, plain and packed, gives the same weights.
write_text 3000
"$train" "${run[@]}" --data "$work/text.txt" --out "$work/plain" > /dev/null 2>&1
gzip -k "$work/text.txt"
"$train" "${run[@]}" --data "$work/text.txt.gz" --out "$work/packed" > /dev/null 2>&1
[ "$(weights "$work/plain")" = "$(weights "$work/packed")" ] || fail "a packed text gives other weights"
[ "$(ls "$NF_CACHE"/tokens/*.tokens | wc -l)" = 2 ] || fail "not two cached texts: $(ls "$NF_CACHE/tokens")"
head -c 500 "$work/text.txt.gz" > "$work/cut.txt.gz"
refuse 'cut.txt.gz is damaged: it ends before its content does' nf-train "${run[@]}" --data "$work/cut.txt.gz" --out "$work/cut"

# Runs that start together on one cache, while others are killed at any moment: all that live get the same weights.
for i in $(seq 60); do cat "$work/text.txt"; done > "$work/long.txt"
for round in 1 2 3; do
  rm -rf "$NF_CACHE"
  "$train" "${run[@]}" --data "$work/long.txt" --out "$work/killed$round" > /dev/null 2>&1 &
  killed=$!
  "$train" "${run[@]}" --data "$work/long.txt" --out "$work/a$round" > /dev/null 2> "$work/a.err" &
  first=$!
  "$train" "${run[@]}" --data "$work/long.txt" --out "$work/b$round" > /dev/null 2> "$work/b.err" &
  second=$!
  sleep "0.$((round * 7 % 10))"
  kill -9 $killed 2> /dev/null || true
  wait $killed 2> /dev/null || true
  wait $first || fail "the first run of two failed: $(cat "$work/a.err")"
  wait $second || fail "the second run of two failed: $(cat "$work/b.err")"
  [ "$(weights "$work/a$round")" = "$(weights "$work/b$round")" ] || fail "two runs at once have other weights"
  [ "$(weights "$work/a$round")" = "$(weights "$work/a1")" ] || fail "another round has other weights"
  ! compgen -G "$NF_CACHE/tokens/*.partial" > /dev/null || fail "something half written is left"
done

# A damaged cache is made again.
cached=$(ls "$NF_CACHE"/tokens/*.tokens)
printf 'x' | dd of="$cached" bs=1 seek=5000 conv=notrunc status=none
"$train" "${run[@]}" --data "$work/long.txt" --out "$work/mended" > /dev/null 2>&1
[ "$(weights "$work/mended")" = "$(weights "$work/a1")" ] || fail "a damaged cache was used"

# What is neither a file nor a dataset.
export HF_HUB_OFFLINE=1 HF_HOME=$work/hub
refuse 'owner/name is not in the cache' nf-train "${run[@]}" --dataset owner/name --out "$work/none"
refuse 'no.txt does not exist' nf-train "${run[@]}" --data "$work/no.txt" --out "$work/none"

# A text of 200 MB takes no more memory than a small one.
if [ -z "${NF_SANITIZE:-}" ] && [ -x /usr/bin/time ]; then
  peak() { # DATA
    /usr/bin/time -f %M -o "$work/peak" "$bin/nf-estimate" "${small[@]}" --data "$1" > /dev/null 2>&1
    tail -n 1 "$work/peak"
  }
  for i in $(seq 16); do cat "$work/long.txt"; done > "$work/large.txt"
  little=$(peak "$work/text.txt") large=$(peak "$work/large.txt")
  [ "$large" -lt $((little + 100000)) ] || fail "a text of $(stat -c %s "$work/large.txt") bytes takes $large KiB, a small one $little"
else
  echo "skipped: memory is not measured (no /usr/bin/time, or a sanitizer)"
fi
echo "ok"
