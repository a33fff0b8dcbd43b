#!/usr/bin/env bash
# Packs what gpu_check.sh needs for a machine that has a GPU but no package access: the programs, and the shared libraries
# that such a machine may lack. The C library itself is that machine's.
#
#   bundle.sh BUILD FOLDER
set -euo pipefail
build=$1 out=$2
mkdir -p "$out/lib"
for program in "$build"/tests/nf-tests "$build"/nf-{train,bench,eval,generate}; do
  strip -o "$out/$(basename "$program")" "$program"
  ldd "$program" | awk '$3 ~ "^/" { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|ld-linux[^/]*)\.so' | xargs -I{} cp -Lu {} "$out/lib/"
du -sh "$out"
