#!/usr/bin/env bash
# The CUDA backend on this machine's GPU, in one command (make gpu-check): its tests, memory checks, equal bits on equal
# runs, losses beside the CPU's, and speed beside the card's own limits and PyTorch's. Prints a line per check, tables of
# figures last, and ends non-zero when a check fails.
#
#   gpu_check.sh FOLDER [PART…]     FOLDER holds the programs: a build, or what bundle.sh packed. Parts: tests memory races
#                                   runs speed torch; none means all. NF_GPU_CHECK_SECONDS: how long a check may take, 1800
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
bin=$(cd "${1:?gpu_check.sh FOLDER [PART…]}" && pwd) || exit 2
shift
parts=("$@")
tests=$bin/nf-tests
[ -x "$tests" ] || tests=$bin/tests/nf-tests
for program in "$tests" "$bin/nf-train" "$bin/nf-bench"; do
  [ -x "$program" ] || { echo "gpu-check: there is no $program: build it, or unpack the bundle there" >&2; exit 2; }
done
for part in "${parts[@]}"; do
  case $part in tests | memory | races | runs | speed | torch) ;; *)
    echo "gpu-check: unknown part '$part'; there are tests memory races runs speed torch" >&2
    exit 2 ;;
  esac
done
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failed=0
seconds=${NF_GPU_CHECK_SECONDS:-1800}
PATH=$PATH:/usr/local/cuda/bin
export NF_TEST_GPU=1 NF_TESTS_DIR=$root/tests PYTHONUNBUFFERED=1

wanted() { # wanted PART
  [ ${#parts[@]} = 0 ] || [[ " ${parts[*]} " == *" $1 "* ]]
}

# A kernel whose threads wait for each other forever ends with its check.
check() { # check NAME COMMAND…: ok or FAILED, with the end of what it said
  local name=$1 start=$SECONDS
  shift
  if "$@" >"$scratch/log" 2>&1; then
    echo "ok      $name ($((SECONDS - start)) s)"
  else
    echo "FAILED  $name ($((SECONDS - start)) s)"
    tail -n 25 "$scratch/log" | sed 's/^/        /'
    failed=1
  fi
}

limited() { # limited COMMAND…
  timeout -k 10 "$seconds" "$@"
  local status=$?
  [ $status = 124 ] || [ $status = 137 ] && echo "it did not end within $seconds seconds"
  return $status
}

# The losses of a run, one per line.
losses() { grep -o '"loss":[^,}]*' "$1/metrics.jsonl" | cut -d: -f2; }

train() { # train VARIANT OUT STEPS FLAG…
  local variant=$1 out=$2 steps=$3
  shift 3
  limited "$bin/nf-train" -m "$root/models/configs/$variant.json" \
    --data "$root/README.md" "$root/engine/README.md" "$root/LICENSE" \
    --out "$out" --steps "$steps" --batch-size 8 --seq-len 128 --eval-every 0 --seed 7 "$@"
}

same_bits() {
  train "$1" "$scratch/a" 30 --device cuda && train "$1" "$scratch/b" 30 --device cuda &&
    cmp "$scratch/a/checkpoint-30/model.safetensors" "$scratch/b/checkpoint-30/model.safetensors"
}

# The first ten losses within 0.5 % of the CPU's, then means of ten within 2 %: by then a spike of the loss differs by as
# much between two runs on the CPU that round differently.
same_curve() {
  train "$1" "$scratch/cpu-$1" 200 --device cpu && train "$1" "$scratch/cuda-$1" 200 --device cuda || return 1
  paste <(losses "$scratch/cpu-$1") <(losses "$scratch/cuda-$1") |
    awk 'function differ(a, b, most) { d = a - b; if (d < 0) d = -d; return !(NF == 2 && d <= most * a) }
         { cpu += $1; cuda += $2 }
         NR <= 10 && differ($1, $2, 0.005) { print "step " NR ": " $1 " and " $2; bad = 1 }
         NR % 10 == 0 { if (differ(cpu, cuda, 0.02)) { print "to step " NR ": " cpu / 10 " and " cuda / 10; bad = 1 }
                        cpu = cuda = 0 }
         END { if (NR < 200) { print "only " NR " losses"; bad = 1 } exit bad }'
}

# PyTorch brings CUDA's libraries along; the programs look there last.
if command -v python3 >/dev/null; then
  NF_CUDA_LIBRARIES=${NF_CUDA_LIBRARIES:+$NF_CUDA_LIBRARIES:}$(python3 - 2>/dev/null <<'END'
import glob, importlib.util
spec = importlib.util.find_spec("nvidia")
print(":".join(folder for place in spec.submodule_search_locations for folder in glob.glob(place + "/*/lib")))
END
  )
  export NF_CUDA_LIBRARIES
fi

command -v nvidia-smi >/dev/null && nvidia-smi --query-gpu=name,driver_version,memory.total --format=csv,noheader
# What everything else needs: a GPU, its driver, NVRTC and cuBLASLt. What is missing is said once.
check "a GPU, and what CUDA needs for it" limited "$bin/nf-bench" machine --device cuda --seconds 0.01
grep -qE 'use --device cpu|cannot be loaded' "$scratch/log" && exit 1

on_gpu=("--source-file=*tests/cuda/*" "--test-case-exclude=emulator*,cuda loop*")
wanted tests && check "ops, composites and models against the reference" limited "$tests" "${on_gpu[@]}"
small=("${on_gpu[0]}" "${on_gpu[1]},cuda: a run takes*") # a sanitizer makes hours of large models
sanitize=(limited compute-sanitizer --target-processes all --error-exitcode 9)
if { wanted memory || wanted races; } && command -v compute-sanitizer >/dev/null; then
  "${sanitize[@]}" "$tests" "--source-file=*tests/cuda/gpu_real_test*" >"$scratch/log" 2>&1
  if grep -q 'Device not supported' "$scratch/log"; then
    echo "skipped compute-sanitizer, which cannot look into this machine's GPU"
  else
    # What calls of CUDA return is checked by who makes them; cuBLASLt asks for things that are not there and goes on.
    wanted memory && check "compute-sanitizer: memory" "${sanitize[@]}" --report-api-errors no "$tests" "${small[@]}"
    wanted races && check "compute-sanitizer: races" "${sanitize[@]}" --tool racecheck "$tests" "${small[@]}"
  fi
fi
if wanted runs; then
  for variant in mha gqa diff ngpt mla; do
    rm -rf "$scratch/a" "$scratch/b"
    check "$variant: equal runs leave equal bits" same_bits "$variant"
    check "$variant: 200 steps lie on the CPU's" same_curve "$variant"
  done
fi
if wanted speed; then
  echo
  limited "$bin/nf-bench" --device cuda || failed=1
fi
if wanted torch && python3 -c 'import torch, sys; sys.exit(not torch.cuda.is_available())' 2>/dev/null; then
  echo
  limited python3 "$root/tests/bench/torch/compare_gpu.py" --check || failed=1
  limited python3 "$root/tests/bench/torch/compare_gpu.py" --bin "$bin" || failed=1
fi
exit $failed
