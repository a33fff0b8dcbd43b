"""Whole training steps beside PyTorch's, in turns on one machine, and a picture of the result.

    /usr/bin/python3 compare_steps.py [--bin ../../../build] [--rounds 3] [--threads 2] [--as-is] [--only small]

Runs `nf-bench steps` and `train_speed.py step` on the same models, bf16, one after the other, --rounds times, and writes
the medians to ../results/steps.json and ../results/steps.svg. --as-is: PyTorch with the environment that a user has, not
the tuned one. Without rounds (0) it only draws the picture again.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "..", "results")

SMALL = dict(vocab=4096, hidden=256, layers=8, heads=8, kv_heads=2, inner=1024, length=256, batch=8)
MEDIUM = dict(SMALL, vocab=50304, length=512, batch=4)
LARGE = dict(vocab=50304, hidden=768, layers=12, heads=12, kv_heads=12, inner=2048, length=256, batch=4)
MODELS = [("small", variant, SMALL) for variant in ("gqa", "mha", "diff", "ngpt")]
MODELS += [("medium", variant, MEDIUM) for variant in ("gqa", "ngpt")]
MODELS += [("large", "mha", LARGE)]


def config(variant, m):
    heads = dict(num_key_value_heads=m["kv_heads"]) if variant in ("gqa", "diff") else {}
    return dict(attention_type=variant, vocab_size=m["vocab"], hidden_size=m["hidden"], intermediate_size=m["inner"],
                num_hidden_layers=m["layers"], num_attention_heads=m["heads"], max_position_embeddings=m["length"],
                training=dict(seq_len=m["length"], batch_size=m["batch"]), **heads)  # fmt: skip


def run_ours(args, variant, m):
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config(variant, m), file)
        file.flush()
        command = [os.path.join(args.bin, "nf-bench"), "steps", "-m", file.name, "--threads", str(args.threads),
                   "--seconds", "3", "--json"]  # fmt: skip
        row = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)["steps"][0]
    return row["tokens_per_second"], row["share_of_peak"]


def run_torch(args, variant, m):
    command = [sys.executable, os.path.join(HERE, "train_speed.py"), "step", "--bf16", "--variant", variant, "--threads",
               str(args.threads), "--steps", "3", "--warm-steps", "2"]  # fmt: skip
    for name, value in m.items():
        command += ["--" + name.replace("_", "-"), str(value)]
    if args.as_is:
        command.append("--as-is")
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])["tokens_per_second"]


def measure(args):
    rows = []
    for size, variant, m in MODELS:
        if args.only and size != args.only:
            continue
        ours, shares, theirs = [], [], []
        for _ in range(args.rounds):
            speed, share = run_ours(args, variant, m)
            ours.append(speed)
            shares.append(share)
            theirs.append(run_torch(args, variant, m))
        row = dict(size=size, variant=variant, nanoformer=round(statistics.median(ours)),
                   share_of_peak=round(statistics.median(shares), 3), pytorch=round(statistics.median(theirs)))  # fmt: skip
        print(json.dumps(row), flush=True)
        rows.append(row)
    return rows


STYLE = """text{font:13px system-ui,sans-serif;fill:#1f2328}.dim{fill:#656d76}.ours{fill:#2f6fdd}.theirs{fill:#b8bfc7}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.dim{fill:#8b949e}.ours{fill:#5b93f5}.theirs{fill:#4b535d}}"""


def draw(rows):
    left, width, step = 130, 420, 46
    most = max(max(row["nanoformer"] / row["pytorch"] for row in rows), 1)
    parts = []
    for i, row in enumerate(rows):
        y, ratio = 44 + i * step, row["nanoformer"] / row["pytorch"]
        ours, theirs = width * ratio / most, width / most
        parts += [f'<text x="{left - 10}" y="{y + 21}" text-anchor="end">{row["size"]}, {row["variant"]}</text>',
                  f'<rect class="ours" x="{left}" y="{y}" width="{ours:.1f}" height="16" rx="2"/>',
                  f'<rect class="theirs" x="{left}" y="{y + 18}" width="{theirs:.1f}" height="12" rx="2"/>',
                  f'<text x="{left + ours + 6:.1f}" y="{y + 13}">{row["nanoformer"]:,} tokens/s, {ratio:.1f}x</text>',
                  f'<text class="dim" x="{left + theirs + 6:.1f}" y="{y + 29}">{row["pytorch"]:,}</text>']  # fmt: skip
    height = 52 + len(rows) * step
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{left + width + 190}" height="{height}" role="img" '
            f'aria-label="Training speed beside PyTorch"><style>{STYLE}</style>'
            f'<text x="{left}" y="24" font-weight="600">Training, tokens per second</text>'
            f'<rect class="ours" x="{left + 210}" y="13" width="12" height="12"/><text x="{left + 228}" y="24">NanoFormer</text>'
            f'<rect class="theirs" x="{left + 330}" y="13" width="12" height="12"/><text x="{left + 348}" y="24">PyTorch</text>'
            + "".join(parts) + "</svg>\n")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "..", "..", "build"), help="where nf-bench is")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--as-is", action="store_true", help="PyTorch without tuned settings")
    parser.add_argument("--only", choices=("small", "medium", "large"))
    args = parser.parse_args()
    results = os.path.join(RESULTS, "steps.json")
    if args.rounds > 0:
        rows = measure(args)
        if args.as_is or args.only:
            return
        with open(results, "w") as file:
            json.dump(rows, file, indent=1)
            file.write("\n")
    with open(results) as file:
        picture = draw(json.load(file))
    with open(os.path.join(RESULTS, "steps.svg"), "w") as file:
        file.write(picture)


if __name__ == "__main__":
    main()
