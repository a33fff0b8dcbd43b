#!/usr/bin/env bash
# Packs what gpu_check.sh needs for a machine that has a GPU but no package access: the programs, and the shared libraries
# that such a machine may lack. The C library is that machine's own, and so are the driver and CUDA's two libraries (NVRTC
# and cuBLASLt), half a gigabyte: any toolkit of the same major version has them, and so has PyTorch. NF_BUNDLE_CUDA=1 packs
# those too.
#
#   bundle.sh BUILD FOLDER
set -euo pipefail
build=${1:?bundle.sh BUILD FOLDER} out=${2:?bundle.sh BUILD FOLDER}
rm -rf "$out/bin" "$out/lib"
mkdir -p "$out/bin" "$out/lib/c++"

# The libraries in lib are for this program alone, not for what calls it: Python has others of the same names. The C++
# library, which goes with the C library of its own system, is taken from here only where that machine's is too old.
launcher() {
  cat <<END
#!/bin/sh
here=\$(dirname "\$(readlink -f "\$0")")
more=\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}
LD_LIBRARY_PATH=\$here/lib\$more
export LD_LIBRARY_PATH
case \$(LD_TRACE_LOADED_OBJECTS=1 LD_WARN=1 "\$here/bin/$1" 2>&1) in
  *"not found"*) LD_LIBRARY_PATH=\$here/lib:\$here/lib/c++\$more ;;
esac
exec "\$here/bin/$1" "\$@"
END
}

for program in "$build"/tests/nf-tests "$build"/nf-{train,bench,eval,generate}; do
  name=$(basename "$program")
  strip -o "$out/bin/$name" "$program"
  launcher "$name" >"$out/$name"
  chmod +x "$out/$name"
  ldd "$program" | awk '$3 ~ "^/" { print $3 }'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libresolv|ld-linux[^/]*)\.so' | xargs -I{} cp -Lu {} "$out/lib/"
mv "$out"/lib/lib{stdc++,gcc_s}.so.* "$out/lib/c++/"

if [ "${NF_BUNDLE_CUDA:-0}" = 1 ]; then
  folder=$(sed -n 's/^CUDA_CUDART:FILEPATH=\(.*\)\/[^/]*$/\1/p' "$build/CMakeCache.txt")
  cp -L "$folder"/libnvrtc.so.[0-9]* "$folder"/libnvrtc-builtins.so.[0-9]* "$folder"/libcublasLt.so.[0-9]* "$out/lib/"
fi

needed=$(objdump -T "$out"/bin/* "$out"/lib/*.so.* 2>/dev/null | grep -oE 'GLIBC_[0-9.]+' | sort -uV | tail -n 1)
echo "$out: $(du -sh "$out" | cut -f1), for machines with glibc ${needed#GLIBC_} or later"
