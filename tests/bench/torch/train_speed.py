"""Training speed of the same models in PyTorch, as fast as its own operators allow on a CPU.

    /usr/bin/python3 train_speed.py step [--variant gqa] [--bf16] [--threads N] ...      tokens/s of a training step
    /usr/bin/python3 train_speed.py chars --text FILE [--bf16] ...                      a small character model, trained
    /usr/bin/python3 train_speed.py check                                               same loss and gradients as models.py

The program restarts itself with the settings that PyTorch's own tuning guide gives (unless --as-is): an allocator that
keeps freed memory (page faults cost more than the arithmetic otherwise), the widest vector kernels of ATen and OpenBLAS,
threads that sleep when they wait.

What is done for speed: q, k, v and gate, up are one product each; grouped heads share their keys without a copy; the
causal mask is added inside the score product (baddbmm); the two maps of differential attention meet before the values;
AdamW's and the clip's loops over parameters run as foreach operations; bf16 is torch.autocast. PyTorch 1.13 has no fused
attention on the CPU and no compiler. `step` times forward, backward, clip and AdamW on a fixed random batch and prints one
JSON line with the median.
"""

import argparse
import contextlib
import json
import math
import os
import statistics
import sys
import time


def tune_environment():
    """Restarts this program with environment variables that have to be there before the libraries load."""
    if "--as-is" in sys.argv or os.environ.get("TRAIN_SPEED_TUNED"):
        return
    threads = sys.argv[sys.argv.index("--threads") + 1] if "--threads" in sys.argv else "1"
    huge = str(8 << 30)
    settings = dict(TRAIN_SPEED_TUNED="1", MALLOC_MMAP_THRESHOLD_=huge, MALLOC_TRIM_THRESHOLD_=huge,
                    MALLOC_TOP_PAD_=str(256 << 20), OPENBLAS_NUM_THREADS=threads, OMP_NUM_THREADS=threads,
                    OMP_WAIT_POLICY="PASSIVE", GLIBC_TUNABLES="glibc.malloc.hugetlb=1")  # fmt: skip
    if "avx512f" in open("/proc/cpuinfo").read():
        settings.update(ATEN_CPU_CAPABILITY="avx512", OPENBLAS_CORETYPE="SkylakeX")
    os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **settings})


if __name__ == "__main__":
    tune_environment()

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402

import models  # noqa: E402

FUSED = {"self_attn.qkv": ("q_proj", "k_proj", "v_proj"), "mlp.gate_up": ("gate_proj", "up_proj")}


def fuse(c, params):
    """The parameters of models.py with q, k, v and gate, up stacked."""
    fused = dict(params)
    for i in range(c.num_hidden_layers):
        for name, parts in FUSED.items():
            block = f"model.layers.{i}.{name.split('.')[0]}."
            fused[f"model.layers.{i}.{name}"] = torch.cat([fused.pop(f"{block}{part}.weight") for part in parts])
    return {name: value.clone().requires_grad_() for name, value in fused.items()}


class FastModel:
    """mha, gqa, diff and ngpt without caps, windows and biases: what the timed configurations use."""

    def __init__(self, c, params, length):
        self.c, self.p = c, fuse(c, params)
        self.groups = c.num_attention_heads // c.num_key_value_heads
        cos, sin = models.rope_tables(c, length, torch.float32)
        self.cos = torch.cat((cos, cos), -1)[None, :, None]  # [1, T, 1, d]
        self.sin = torch.cat((-sin, sin), -1)[None, :, None]
        mask = torch.full((length, length), -math.inf).triu(1)
        self.mask = mask.repeat(self.groups, 1)[None]  # the query heads of a group are stacked along the rows
        self.typed_masks = {}

    def masks(self, dtype):
        return self.typed_masks.setdefault(dtype, self.mask.to(dtype))

    def rms(self, x, gain=None):
        y = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + self.c.rms_norm_eps)
        return y if gain is None else y * gain

    @staticmethod
    def unit(x):
        return F.normalize(x, dim=-1, eps=1e-12)

    def rotate(self, x):
        return x * self.cos + x.roll(x.shape[-1] // 2, -1) * self.sin

    def attention(self, layer, x):
        c, p, (batch, length, _) = self.c, self.p, x.shape
        heads, kv, d = c.num_attention_heads, c.num_key_value_heads, c.head_dim
        # split, not slices: its backward is one concatenation.
        qk, v = F.linear(x, p[layer + "self_attn.qkv"]).view(batch, length, -1, d).split((heads + kv, kv), 2)
        qk = self.rotate(qk)
        if c.attention_type == "ngpt":
            qk = self.unit(qk)
        q, k = qk.split((heads, kv), 2)
        if c.attention_type == "ngpt":
            q = q * (p[layer + "self_attn.sqk"] * math.sqrt(c.hidden_size)).square().view(heads, d)
        q = q.transpose(1, 2).reshape(batch * kv, self.groups * length, d)
        k = k.transpose(1, 2).reshape(batch * kv, length, d)
        mask = self.masks(torch.bfloat16 if torch.is_autocast_cpu_enabled() else torch.float32)
        scores = torch.baddbmm(mask, q.to(mask.dtype), k.to(mask.dtype).transpose(1, 2), alpha=c.score_scale)
        probabilities = scores.softmax(-1)
        if c.attention_type == "diff":
            half, index = heads // 2, int(layer.split(".")[2])
            start = models.lambda_init(index)
            dot = lambda n: (p[layer + "self_attn.lambda_q" + n] * p[layer + "self_attn.lambda_k" + n]).sum()  # noqa: E731
            lam = dot("1").exp() - dot("2").exp() + start
            maps = probabilities.view(batch, heads, length, length)
            maps = maps[:, :half] - lam.to(maps.dtype) * maps[:, half:]
            v = v.transpose(1, 2).repeat_interleave(self.groups, 1)
            v = torch.cat((v[:, :half], v[:, half:]), -1)
            out = (1 - start) * self.rms(torch.matmul(maps, v).float())
        else:
            v = v.transpose(1, 2).reshape(batch * kv, length, d)
            out = torch.bmm(probabilities, v).view(batch, heads, length, d)
        return F.linear(out.transpose(1, 2).reshape(batch, length, heads * d), p[layer + "self_attn.o_proj.weight"])

    def layer(self, layer, h):
        p = self.p
        h = h + self.attention(layer, self.rms(h, p[layer + "input_layernorm.weight"]))
        n = self.rms(h, p[layer + "post_attention_layernorm.weight"])
        gate, up = F.linear(n, p[layer + "mlp.gate_up"]).chunk(2, -1)
        return h + F.linear(F.silu(gate) * up, p[layer + "mlp.down_proj.weight"])

    def normalized_layer(self, layer, h):
        p, root = self.p, math.sqrt(self.c.hidden_size)

        def step(h, branch, rate):
            return self.unit(torch.lerp(h, self.unit(branch.float()), (rate * 0.05 * root).abs()))

        # After the first layer h is of unit length already.
        h = step(self.unit(h), self.attention(layer, h), p[layer + "attn_alpha"])
        gate, up = F.linear(h, p[layer + "mlp.gate_up"]).chunk(2, -1)
        gate, up = p[layer + "mlp.sv"] * root * gate, p[layer + "mlp.su"] * root * up
        return step(h, F.linear(up * F.silu(gate), p[layer + "mlp.down_proj.weight"]), p[layer + "mlp_alpha"])

    def loss(self, inputs, targets):
        c, p = self.c, self.p
        h = F.embedding(inputs, p["model.embed_tokens.weight"])
        run = self.normalized_layer if c.attention_type == "ngpt" else self.layer
        for i in range(c.num_hidden_layers):
            h = run(f"model.layers.{i}.", h)
        head = p["model.embed_tokens.weight" if c.tie_word_embeddings else "lm_head.weight"]
        if c.attention_type == "ngpt":
            logits = F.linear(h, head).float() * (p["sz"] * math.sqrt(c.hidden_size))
        else:
            logits = F.linear(self.rms(h, p["model.norm.weight"]), head).float()
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.reshape(-1))

    def normalize(self):
        """nGPT's step after the optimizer; stacked matrices keep their rows."""
        if self.c.attention_type == "ngpt":
            models.normalize_ngpt(self.p)


class Trainer:
    def __init__(self, c, args, length):
        self.model = FastModel(c, models.init_parameters(c, args.seed), length)
        self.params, self.clip, self.bf16 = list(self.model.p.values()), args.clip, args.bf16
        decay = 0.0 if c.attention_type == "ngpt" else args.weight_decay
        matrix = lambda n, w: w.dim() == 2 and n != "model.embed_tokens.weight"  # noqa: E731
        groups = [
            {"params": [w for n, w in self.model.p.items() if matrix(n, w)], "weight_decay": decay},
            {"params": [w for n, w in self.model.p.items() if not matrix(n, w)], "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, args.beta2), foreach=True)

    def precision(self):
        return torch.autocast("cpu", dtype=torch.bfloat16) if self.bf16 else contextlib.nullcontext()

    def step(self, inputs, targets, lr=None):
        with self.precision():
            loss = self.model.loss(inputs, targets)
        loss.backward()
        grads = [w.grad for w in self.params]
        norm = torch.stack(torch._foreach_norm(grads)).norm()
        torch._foreach_mul_(grads, min(1.0, self.clip / (norm.item() + 1e-6)))
        if lr is not None:
            for group in self.optimizer.param_groups:
                group["lr"] = lr
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.model.normalize()
        return loss.item()


def config_of(args, vocabulary):
    kv = args.heads if args.variant == "mha" else args.kv_heads
    return models.Config(dict(
        attention_type=args.variant, vocab_size=vocabulary, hidden_size=args.hidden, num_hidden_layers=args.layers,
        intermediate_size=args.inner, num_attention_heads=args.heads, num_key_value_heads=kv,
        tie_word_embeddings=args.tie))  # fmt: skip


def describe(args, model, **results):
    count = sum(w.numel() for w in model.p.values())
    print(json.dumps(dict(what=args.command, variant=args.variant, precision="bf16" if args.bf16 else "f32",
                          threads=torch.get_num_threads(), parameters=count, torch=torch.__version__, **results)))  # fmt: skip


def run_step(args):
    c = config_of(args, args.vocab)
    trainer = Trainer(c, args, args.length)
    ids = torch.randint(0, c.vocab_size, (args.batch, args.length + 1), generator=torch.Generator().manual_seed(1))
    inputs, targets = ids[:, :-1].contiguous(), ids[:, 1:].contiguous()
    for _ in range(args.warm_steps):
        trainer.step(inputs, targets)
    times, cpu_times = [], []
    for _ in range(args.steps):
        start, cpu_start = time.perf_counter(), time.process_time()
        loss = trainer.step(inputs, targets)
        times.append(time.perf_counter() - start)
        cpu_times.append(time.process_time() - cpu_start)
    median, best, tokens = statistics.median(times), min(times), args.batch * args.length
    describe(args, trainer.model, tokens_per_second=round(tokens / median), best_tokens_per_second=round(tokens / best),
             milliseconds=round(median * 1e3, 1),
             cpu_milliseconds=round(statistics.median(cpu_times) * 1e3, 1), loss=round(loss, 4))  # fmt: skip


def run_chars(args):
    """nanoGPT's setting for a laptop: 90% of the text trains, 10% validates; cosine to lr/10."""
    text = open(args.text, encoding="utf-8").read()
    alphabet = {ch: i for i, ch in enumerate(sorted(set(text)))}
    data = torch.tensor([alphabet[ch] for ch in text])
    train, valid = data[: len(data) * 9 // 10], data[len(data) * 9 // 10 :]
    trainer = Trainer(config_of(args, len(alphabet)), args, args.length)
    generator = torch.Generator().manual_seed(args.seed)
    offsets = torch.arange(args.length + 1)

    def lr_of(step):
        if step < args.warmup:
            return args.lr * (step + 1) / args.warmup
        done = (step - args.warmup) / (args.iterations - args.warmup)
        return args.min_lr + 0.5 * (1 + math.cos(math.pi * done)) * (args.lr - args.min_lr)

    start, cpu_start = time.perf_counter(), time.process_time()
    for step in range(args.iterations):
        at = torch.randint(len(train) - args.length, (args.batch, 1), generator=generator)
        window = train[at + offsets]
        loss = trainer.step(window[:, :-1], window[:, 1:], lr_of(step))
        if (step + 1) % args.log_every == 0:
            print(f"step {step + 1} loss {loss:.4f} {time.perf_counter() - start:.1f} s", flush=True)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    # Every window of the validation text once.
    windows = valid[: (len(valid) - 1) // args.length * args.length + 1].unfold(0, args.length + 1, args.length)
    with torch.no_grad(), trainer.precision():
        losses = [(trainer.model.loss(w[:, :-1], w[:, 1:]).item(), len(w)) for w in windows.split(64)]
    final = sum(value * count for value, count in losses) / len(windows)
    describe(args, trainer.model, training_seconds=round(seconds, 1), cpu_seconds=round(cpu_seconds, 1), val_loss=round(final, 4),
             tokens_per_second=round(args.iterations * args.batch * args.length / seconds))  # fmt: skip


def run_check(_):
    for variant, kv in (("mha", 4), ("gqa", 2), ("diff", 2), ("diff", 4), ("ngpt", 2)):
        c = models.Config(dict(attention_type=variant, vocab_size=96, hidden_size=48, intermediate_size=64,
                               num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=kv))  # fmt: skip
        params = models.init_parameters(c, 5)
        ids = torch.randint(0, 96, (3, 25))
        leaves = {n: w.clone().requires_grad_() for n, w in params.items()}
        expected = models.loss(c, leaves, ids[:, :-1], ids[:, 1:])["loss"]
        expected.backward()
        fast = FastModel(c, params, 24)
        loss = fast.loss(ids[:, :-1], ids[:, 1:])
        loss.backward()
        truth = fuse(c, {n: w.grad for n, w in leaves.items()})
        worst = max(((fast.p[n].grad - g).norm() / g.norm()).item() for n, g in truth.items())
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = fast.loss(ids[:, :-1], ids[:, 1:])
        print(f"{variant} {kv}: loss {loss.item():.6f} ({(loss - expected).item():+.1e}), bf16 "
              f"({(rounded - expected).item():+.1e}), gradients {worst:.1e}")  # fmt: skip
        assert abs(loss - expected) < 1e-5 and worst < 1e-4 and abs(rounded - expected) < 1e-2


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("step", "chars", "check"))
    parser.add_argument("--variant", choices=("mha", "gqa", "diff", "ngpt"))
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--tie", action="store_true", help="share the embedding with the head")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--as-is", action="store_true", help="leave the environment alone")
    parser.add_argument("--text", help="chars: the text to learn")
    parser.add_argument("--vocab", type=int, default=4096)
    chars = dict(variant="mha", hidden=128, layers=4, heads=4, kv_heads=4, inner=352, length=64, batch=12, lr=1e-3,
                 beta2=0.99)  # fmt: skip
    step = dict(variant="gqa", hidden=256, layers=8, heads=8, kv_heads=2, inner=1024, length=256, batch=8, lr=1e-3,
                beta2=0.95)  # fmt: skip
    for name in ("hidden", "layers", "heads", "kv_heads", "inner", "length", "batch", "lr", "beta2"):
        kind = float if name in ("lr", "beta2") else int
        parser.add_argument("--" + name.replace("_", "-"), type=kind, help=f"step: {step[name]}, chars: {chars[name]}")
    parser.add_argument("--min-lr", type=float, default=1e-4)
    parser.add_argument("--weight-decay", type=float, default=0.1)
    parser.add_argument("--clip", type=float, default=1.0)
    parser.add_argument("--iterations", type=int, default=2000)
    parser.add_argument("--warmup", type=int, default=100)
    parser.add_argument("--log-every", type=int, default=500)
    parser.add_argument("--warm-steps", type=int, default=3)
    parser.add_argument("--steps", type=int, default=7)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    for name, value in (chars if args.command == "chars" else step).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    return args


def main():
    args = parse()
    torch.set_num_threads(args.threads)
    {"step": run_step, "chars": run_chars, "check": run_check}[args.command](args)


if __name__ == "__main__":
    main()
