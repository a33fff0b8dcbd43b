#!/usr/bin/env bash
# What all programs have in common.
source "$(dirname "$0")/common.sh"

for path in "$bin"/nf-*; do
  [ -f "$path" ] && [ -x "$path" ] || continue
  program=$(basename "$path")
  "$path" --version > "$work/version" || fail "$program --version exits with $?"
  grep -qxE "$program [0-9]+\.[0-9]+\.[0-9]+, cpu \(portable[a-z0-9_, ]*\)(, cuda [0-9]+)?" "$work/version" ||
    fail "$program --version says: $(cat "$work/version")"
  "$path" --help > "$work/help" || fail "$program --help exits with $?"
  for word in --help "$program "; do
    grep -q -- "$word" "$work/help" || fail "$program --help does not say '$word'"
  done
  [ "$(wc -L < "$work/help")" -le 112 ] || fail "$program --help has lines too long to read"
  refuse 'nosuchflag\|see --help' "$program" --nosuchflag
done
echo "ok"
