"""Whole training steps on one GPU beside PyTorch 2's, compiled and fused, in turns in one run.

    python3 compare_gpu.py [--bin ../../../build] [--rounds 3] [--only large|small] [--check]

PyTorch runs as its own documents advise: torch.compile, scaled_dot_product_attention (grouped heads without a copy), AdamW
with fused=True, bf16 autocast over f32 weights, foreach clipping. Ours is `nf-bench steps --device cuda` on the same model.
Prints tokens/s, the ratio, and the share of the dense peak that a large product reaches on this card; writes the medians
with the card's name to ../results/gpu_steps.json. --check: losses and gradients of the PyTorch models against models.py.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time

import torch
import torch.nn.functional as F

import models
import train_speed

HERE = os.path.dirname(os.path.abspath(__file__))
RESULTS = os.path.join(HERE, "..", "results")

LARGE = dict(vocab=50304, hidden=768, layers=12, heads=12, kv_heads=12, inner=2048, length=1024, batch=16)
SMALL = dict(vocab=50304, hidden=256, layers=8, heads=8, kv_heads=2, inner=1024, length=512, batch=32)
MODELS = [("large", variant, LARGE) for variant in ("mha", "diff", "ngpt")]
MODELS += [("small", variant, SMALL) for variant in ("gqa", "mha", "diff", "ngpt")]
MODELS += [("small, long", "gqa", dict(SMALL, length=2048, batch=8))]


class GpuModel(train_speed.FastModel):
    """FastModel with PyTorch's fused attention."""

    def __init__(self, c, params, length):
        super().__init__(c, params, length)
        self.p = {name: value.detach().cuda().requires_grad_() for name, value in self.p.items()}
        self.cos, self.sin = self.cos.cuda(), self.sin.cuda()

    def attention(self, layer, x):
        c, p, (batch, length, _) = self.c, self.p, x.shape
        heads, kv, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        qk, v = F.linear(x, p[layer + "self_attn.qkv"]).view(batch, length, -1, d).split((heads + kv, kv), 2)
        qk = self.rotate(qk)
        if c.attention_type == "ngpt":
            qk = self.unit(qk)
        q, k = qk.split((heads, kv), 2)
        if c.attention_type == "ngpt":
            q = q * (p[layer + "self_attn.sqk"] * math.sqrt(c.hidden_size)).square().view(heads, d)
        q, k, v = (t.transpose(1, 2).to(v.dtype) for t in (q, k, v))

        def attend(q, k, v):
            return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=c.score_scale,
                                                  enable_gqa=q.shape[1] != k.shape[1])  # fmt: skip

        if c.attention_type == "diff":
            half, half_kv, start = heads // 2, max(1, kv // 2), models.lambda_init(int(layer.split(".")[2]))
            dot = lambda n: (p[layer + "self_attn.lambda_q" + n] * p[layer + "self_attn.lambda_k" + n]).sum()  # noqa: E731
            lam = dot("1").exp() - dot("2").exp() + start
            v = torch.cat((v[:, :half_kv], v[:, -half_kv:]), -1)
            out = attend(q[:, :half], k[:, :half_kv], v) - lam * attend(q[:, half:], k[:, -half_kv:], v)
            out = (1 - start) * self.rms(out.float())
        else:
            out = attend(q, k, v)
        return F.linear(out.transpose(1, 2).reshape(batch, length, heads * d), p[layer + "self_attn.o_proj.weight"])


def config_of(variant, m):
    kv = m["heads"] if variant == "mha" else m["kv_heads"]
    return models.Config(dict(
        attention_type=variant, vocab_size=m["vocab"], hidden_size=m["hidden"], num_hidden_layers=m["layers"],
        intermediate_size=m["inner"], num_attention_heads=m["heads"], num_key_value_heads=kv))  # fmt: skip


def torch_tokens_per_second(variant, m, steps=20):
    c = config_of(variant, m)
    model = GpuModel(c, models.init_parameters(c, 1), m["length"])
    params = list(model.p.values())
    optimizer = torch.optim.AdamW(params, lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1, fused=True)
    ids = torch.randint(0, c.vocab_size, (m["batch"], m["length"] + 1)).cuda()
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    compiled = torch.compile(model.loss)

    def step():
        with torch.autocast("cuda", dtype=torch.bfloat16):
            loss = compiled(inputs, targets)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0, foreach=True)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        model.normalize()

    for _ in range(5):
        step()
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(steps):
        step()
    torch.cuda.synchronize()
    return steps * m["batch"] * m["length"] / (time.perf_counter() - start)


def our_row(args, variant, m):
    config = dict(attention_type=variant, vocab_size=m["vocab"], hidden_size=m["hidden"], intermediate_size=m["inner"],
                  num_hidden_layers=m["layers"], num_attention_heads=m["heads"],
                  num_key_value_heads=config_of(variant, m).num_key_value_heads, max_position_embeddings=m["length"],
                  training=dict(seq_len=m["length"], batch_size=m["batch"]))  # fmt: skip
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(config, file)
        file.flush()
        command = [os.path.join(args.bin, "nf-bench"), "steps", "-m", file.name, "--device", "cuda", "--json"]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"nf-bench: {done.stderr.strip()}")
    return json.loads(done.stdout)["steps"][0]


def peak():
    """FLOP/s of a large bf16 product."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    torch.cuda.synchronize()
    return 10 * 2 * 8192**3 / (time.perf_counter() - start)


def check():
    for variant, kv in (("mha", 4), ("gqa", 2), ("diff", 2), ("diff", 4), ("ngpt", 2)):
        c = models.Config(dict(attention_type=variant, vocab_size=96, hidden_size=64, intermediate_size=64,
                               num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=kv))  # fmt: skip
        params = models.init_parameters(c, 5)
        ids = torch.randint(0, 96, (3, 25))
        leaves = {n: w.clone().requires_grad_() for n, w in params.items()}
        expected = models.loss(c, leaves, ids[:, :-1], ids[:, 1:])["loss"]
        expected.backward()
        model = GpuModel(c, params, 24)
        loss = model.loss(ids[:, :-1].cuda(), ids[:, 1:].cuda())
        loss.backward()
        truth = train_speed.fuse(c, {n: w.grad for n, w in leaves.items()})
        worst = max(((model.p[n].grad.cpu() - g).norm() / g.norm()).item() for n, g in truth.items())
        print(f"{variant} {kv}: loss {loss.item():.6f} ({loss.item() - expected.item():+.1e}), gradients {worst:.1e}")
        assert abs(loss.item() - expected.item()) < 1e-4 and worst < 1e-3


def save(card, rows):
    with open(os.path.join(RESULTS, "gpu_steps.json"), "w") as file:
        json.dump(dict(card=card, torch=torch.__version__, rows=rows), file, indent=1)
        file.write("\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "..", "..", "build"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", help="the beginning of a model's name")
    parser.add_argument("--check", action="store_true")
    args = parser.parse_args()
    if args.check:
        return check()
    card, rows = torch.cuda.get_device_name(), []
    print(f"{card}, PyTorch {torch.__version__}")
    print(f"{'model':12s} {'variant':8s} {'ours':>10s} {'PyTorch':>10s} {'ratio':>6s} {'ours, % of peak':>15s}")
    for size, variant, m in MODELS:
        if args.only and not size.startswith(args.only):
            continue
        ours, theirs, shares = [], [], []
        for _ in range(args.rounds):
            row = our_row(args, variant, m)
            ours.append(row["tokens_per_second"])
            shares.append(row["gflops"] * 1e9 / peak())
            torch.compiler.reset()
            theirs.append(torch_tokens_per_second(variant, m))
            torch.cuda.empty_cache()
        result = dict(size=size, variant=variant, ours=statistics.median(ours), torch=statistics.median(theirs),
                      share_of_peak=statistics.median(shares))  # fmt: skip
        rows.append(result)
        print(f"{size:12s} {variant:8s} {result['ours']:10.0f} {result['torch']:10.0f} "
              f"{result['ours'] / result['torch']:6.2f} {100 * result['share_of_peak']:14.1f}%")  # fmt: skip
        save(card, rows)  # a run that is cut short leaves what it has measured


if __name__ == "__main__":
    main()
