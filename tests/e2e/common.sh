# What the shell tests share; each begins with: source "$(dirname "$0")/common.sh"
# $bin: the programs; $golden: golden models; $work: a folder of this test's own, removed at its end, where caches are too.
set -euo pipefail

bin=${NF_BIN_DIR:?}
golden=${NF_TESTS_DIR:?}/golden
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export NF_CACHE=$work/cache

fail() {
  echo "FAIL: $*" >&2
  exit 1
}

# write_text LINES: a text to train on, in $work/text.txt
write_text() {
  for i in $(seq 1 "$1"); do echo "line $i of the text, which is long enough to learn something from it"; done > "$work/text.txt"
}

# The flags of a model of a few thousand parameters.
small=(--attention-type gqa --hidden-size 32 --intermediate-size 64 --num-hidden-layers 1 --num-attention-heads 4
  --max-position-embeddings 64)

# expect STATUS PATTERN PROGRAM ARGUMENTS…: the program ends with that exit status, and the one line "PROGRAM: …" that it
# prints to standard error holds the pattern.
expect() {
  local wanted=$1 pattern=$2 program=$3 status=0
  shift 3
  "$bin/$program" "$@" > "$work/out" 2> "$work/err" || status=$?
  [ $status -eq "$wanted" ] || fail "'$program $*' exited with $status, not $wanted: $(cat "$work/err")"
  grep -q -- "$pattern" "$work/err" || fail "'$program $*' does not say '$pattern': $(cat "$work/err")"
  [ "$(grep -c "^$program: " "$work/err")" = 1 ] || fail "'$program $*' does not fail in one line: $(cat "$work/err")"
}
refuse() { expect 2 "$@"; } # bad input: PATTERN PROGRAM ARGUMENTS…

# on_terminal COMMAND…: runs it with a terminal of 110 columns as standard error, and prints what appears there. Standard
# output goes to $work/out.
on_terminal() {
  local line
  printf -v line '%q ' "$@"
  script -qec "stty cols 110; $line > $(printf '%q' "$work/out")" /dev/null | tr '\r' '\n'
}
