"""Compares nf-eval with the PyTorch oracle on every case of oracle.py and prints a table; exits 1 on a miss.

    /usr/bin/python3 compare.py [--nf-eval build/nf-eval] [--cases FOLDER] [--only NAME,...] [--modes f32,bf16,reference]

Without --cases the cases are written to a temporary folder first. Errors are against float64:
  f32, reference   loss 1e-5 relative, logits and each parameter's gradient ||difference|| / ||truth|| <= 1e-4
  bf16             loss 2e-2 relative, logits and gradients 2e-2; or, for a gradient whose terms cancel, twice what
                   PyTorch's own bf16 arithmetic loses of it on that model and its neighbours (oracle.py)
A case with targets.json or documents.json runs only if nf-eval --help lists --targets-file and --documents-file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

import safetensors_io

MODES = {"f32": ("f32", "cpu"), "bf16": ("bf16", "cpu"), "reference": ("f32", "reference")}


def load(path):
    with open(path) as file:
        return json.load(file)


def relative(got, truth, floor=0.0):
    got, truth = np.asarray(got, np.float64), np.asarray(truth, np.float64)
    if got.shape != truth.shape:
        return float("inf")
    error = np.linalg.norm(got - truth) / max(np.linalg.norm(truth), floor, 1e-300)
    return error if np.isfinite(error) else float("inf")  # comparisons with NaN would pass


def evaluate(program, folder, dtype, device, scratch):
    """Runs nf-eval: (its JSON line, logits, {name: gradient}), or raises RuntimeError with what it said."""
    logits, grads = os.path.join(scratch, "logits.safetensors"), os.path.join(scratch, "grads.safetensors")
    for old in (logits, grads):
        if os.path.exists(old):
            os.remove(old)
    command = [program, "-m", folder, "--ids-file", os.path.join(folder, "ids.json"), "--logits", logits,
               "--grads", grads, "--dtype", dtype, "--device", device]  # fmt: skip
    for name in ("targets", "documents"):
        path = os.path.join(folder, name + ".json")
        if os.path.exists(path):
            command += [f"--{name}-file", path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    if done.returncode != 0:
        raise RuntimeError(f"exit {done.returncode}: {(done.stderr or done.stdout).strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]), safetensors_io.read(logits)["logits"], safetensors_io.read(grads)


def compare(program, folder, mode, scratch):
    """(worst row of the table, list of misses) of one case in one mode."""
    expected = load(os.path.join(folder, "expected.json"))
    tensors = safetensors_io.read(os.path.join(folder, "expected.safetensors"))
    result, logits, grads = evaluate(program, folder, *MODES[mode], scratch)
    loss_limit, limit, lost = 1e-5, 1e-4, {}
    if mode == "bf16":
        loss_limit, limit, lost = 2e-2, 2e-2, expected["gradient_errors_bf16"]
    loss_error = abs(result["loss"] - expected["loss"]) / abs(expected["loss"])
    misses = []
    if not loss_error <= loss_limit:
        misses.append(f"loss {result['loss']} instead of {expected['loss']}")
    if result["tokens"] != expected["tokens"]:
        misses.append(f"tokens {result['tokens']} instead of {expected['tokens']}")
    logit_error = relative(logits, tensors.pop("logits"))
    if not logit_error <= limit:
        misses.append(f"logits {logit_error:.1e}")
    truth = {name[len("grad.") :]: value for name, value in tensors.items()}
    missing, extra = sorted(set(truth) - set(grads)), sorted(set(grads) - set(truth))
    if missing or extra:
        misses.append(f"gradients missing: {missing}, unknown: {extra}")
    # A gradient far smaller than the others is measured against them: it is rounding noise by itself.
    floor = 1e-6 * max(np.linalg.norm(v) for v in truth.values())
    errors = {name: relative(grads[name], value, floor) for name, value in truth.items() if name in grads}
    worst = max(errors, key=errors.get)
    misses += [f"{name} {error:.1e}" for name, error in errors.items()
               if not error <= max(limit, 2 * lost.get(name, 0))]  # fmt: skip
    return (loss_error, logit_error, errors[worst], worst), misses


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nf-eval", default=os.path.join(here, "..", "..", "..", "build", "nf-eval"))
    parser.add_argument("--cases", help="a folder of cases, such as tests/golden")
    parser.add_argument("--only", help="comma-separated names")
    parser.add_argument("--modes", default="f32,bf16,reference")
    args = parser.parse_args()
    help_text = subprocess.run([args.nf_eval, "--help"], capture_output=True, text=True)
    takes_inputs = "--targets-file" in help_text.stdout + help_text.stderr
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as scratch:
        cases = args.cases
        if not cases:
            cases = os.path.join(scratch, "cases")
            subprocess.run([sys.executable, os.path.join(here, "oracle.py"), cases], check=True, stdout=subprocess.DEVNULL)
        names = args.only.split(",") if args.only else sorted(
            name for name in os.listdir(cases) if os.path.exists(os.path.join(cases, name, "expected.json")))  # fmt: skip
        print(f"{'case':20s} {'mode':9s}  {'loss':>7s}  {'logits':>7s}  {'gradients':>9s}  worst")
        for name in names:
            folder = os.path.join(cases, name)
            special = any(os.path.exists(os.path.join(folder, f + ".json")) for f in ("targets", "documents"))
            for mode in args.modes.split(","):
                if special and not takes_inputs:
                    skipped += 1
                    continue
                try:
                    (loss, logits, gradient, worst), misses = compare(args.nf_eval, folder, mode, scratch)
                except (RuntimeError, OSError, ValueError, KeyError, subprocess.TimeoutExpired) as error:
                    print(f"{name:20s} {mode:9s}  MISS {error}")
                    failed += 1
                    continue
                print(f"{name:20s} {mode:9s}  {loss:7.1e}  {logits:7.1e}  {gradient:9.1e}  {worst}")
                for miss in misses:
                    print(f"{'':30s}  MISS {miss}")
                passed, failed = passed + (not misses), failed + bool(misses)
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or not passed else 0)


if __name__ == "__main__":
    main()
