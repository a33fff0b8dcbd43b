#!/usr/bin/env bash
# The CUDA backend on this machine's GPU, in one command (make gpu-check): its tests, memory checks, equal bits on equal
# runs, losses beside the CPU's, and speed beside the card's own limits and PyTorch's. Prints a line per check, tables of
# figures last, and ends non-zero when a check fails.
#
#   gpu_check.sh FOLDER     FOLDER holds the programs: a build, or what bundle.sh packed
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$(cd "$1" && pwd)
[ -d "$bin/lib" ] && export LD_LIBRARY_PATH="$bin/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
tests=$bin/nf-tests
[ -x "$tests" ] || tests=$bin/tests/nf-tests
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0

check() { # check NAME COMMAND…: ok or FAILED, with the end of what it said
  local name=$1
  shift
  if "$@" >"$scratch/log" 2>&1; then
    echo "ok      $name"
  else
    echo "FAILED  $name"
    tail -n 25 "$scratch/log" | sed 's/^/        /'
    failed=1
  fi
}

# The losses of a run, one per line.
losses() { grep -o '"loss":[^,}]*' "$1/metrics.jsonl" | cut -d: -f2; }

train() { # train VARIANT OUT STEPS FLAG…
  local variant=$1 out=$2 steps=$3
  shift 3
  "$bin/nf-train" -m "$root/models/configs/$variant.json" --data "$root/README.md" "$root/engine/README.md" "$root/LICENSE" \
    --out "$out" --steps "$steps" --batch-size 8 --seq-len 128 --eval-every 0 --seed 7 "$@"
}

same_bits() {
  train "$1" "$scratch/a" 30 --device cuda && train "$1" "$scratch/b" 30 --device cuda &&
    cmp "$scratch/a/checkpoint-30/model.safetensors" "$scratch/b/checkpoint-30/model.safetensors"
}

same_curve() { # every loss within 2 % of the CPU's
  train "$1" "$scratch/cpu-$1" 200 --device cpu && train "$1" "$scratch/cuda-$1" 200 --device cuda || return 1
  paste <(losses "$scratch/cpu-$1") <(losses "$scratch/cuda-$1") |
    awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > 0.02 * $1) { print "step " NR ": " $1 " and " $2; bad = 1 } }
         END { if (NR < 20) { print "only " NR " losses"; bad = 1 } exit bad }'
}

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
export NF_TEST_GPU=1 NF_TESTS_DIR=$root/tests
on_gpu=("--source-file=*tests/cuda/*" "--test-case-exclude=emulator*")
check "ops, composites and models against the reference" "$tests" "${on_gpu[@]}"
if command -v compute-sanitizer >/dev/null; then
  check "compute-sanitizer: memory" compute-sanitizer --error-exitcode 9 "$tests" "${on_gpu[@]}"
  check "compute-sanitizer: races" compute-sanitizer --tool racecheck --error-exitcode 9 "$tests" "${on_gpu[@]}"
fi
for variant in mha gqa diff ngpt mla; do
  rm -rf "$scratch/a" "$scratch/b"
  check "$variant: equal runs leave equal bits" same_bits "$variant"
  check "$variant: 200 steps lie on the CPU's" same_curve "$variant"
done
[ "${NF_GPU_CHECK_SPEED:-1}" = 0 ] && exit $failed
echo
"$bin/nf-bench" --device cuda || failed=1
if python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo
  python3 "$root/tests/bench/torch/compare_gpu.py" --check || failed=1
  python3 "$root/tests/bench/torch/compare_gpu.py" --bin "$bin" || failed=1
fi
exit $failed
