"""Whether the tests notice: the training engine is broken on purpose, a line at a time, and a test must fail.

    python bench/mutations.py [WORD ...]

A row of MUTATIONS is an invariant, a file, what stands there, what is put in its place (in a copy of src/), and the
tests that are to fail. With words, only rows whose invariant has one of them. Exit code 1 where a break went unnoticed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ATTENTION = "tests/model/test_attention.py tests/model/test_bucketed.py"
OBJECTIVE = "tests/train/test_objective.py"
LOOP = "tests/train/test_loop.py"
BATCHES = "tests/train/test_plan_batches.py"
STAGE = "tests/train/test_stage.py"
MEMORY = "tests/model/test_memory.py"
PLAN = "tests/train/test_plan_memory.py"
DEVICE = "tests/model/test_device.py"
MUTATIONS = (
    (
        "packing: a document sees the one before",
        "model/attention.py",
        "pairwise(bounds)",
        "[(0, bounds[-1])]",
        ATTENTION,
    ),
    (
        "packing: positions do not begin anew",
        "model/attention.py",
        "torch.cat([torch.arange(n) for n in lengths])",
        "torch.arange(sum(lengths))",
        ATTENTION,
    ),
    ("packing: a token sees the next one", "model/bucketed.py", "(gap >= 0) &", "(gap >= -1) &", ATTENTION),
    ("packing: padding of a bucket gets a gradient", "model/bucketed.py", " & real\n", "\n", ATTENTION),
    ("packing: the window is off by one", "model/bucketed.py", "(gap < window)", "(gap <= window)", ATTENTION),
    (
        "packing: a document's first token is predicted from another",
        "train/plan_batches.py",
        "    trained[np.cumsum(lengths) - lengths] = False\n",
        "",
        BATCHES,
    ),
    (
        "splitting: each micro-batch is a mean of its own",
        "train/loop.py",
        "(nll / total).backward()",
        "(nll / max(1, micro.trained_tokens) / len(micros)).backward()",
        LOOP,
    ),
    (
        "splitting: a half loses its last row",
        "train/plan_batches.py",
        "slice(rows // 2, rows)",
        "slice(rows // 2, rows - 1)",
        BATCHES,
    ),
    (
        "loss: the token after the one that is due",
        "train/objective.py",
        "labels = torch.from_numpy(micro.labels[0, 1:])",
        "labels = torch.from_numpy(micro.labels[0, :-1])",
        OBJECTIVE,
    ),
    ("loss: half precision is summed as it is", "train/objective.py", "logits.float()", "logits", OBJECTIVE),
    (
        "loss: logged as the sum",
        "train/loop.py",
        "float(torch.stack(sums).sum()) / total,",
        "float(torch.stack(sums).sum()),",
        LOOP,
    ),
    (
        "head: the gradient of a chunk is of another",
        "model/head.py",
        "for_hidden[first : first + rows] = gradient @ weight",
        "for_hidden[: len(part)] = gradient @ weight",
        "tests/model/test_head.py",
    ),
    (
        "head: only the last chunk reaches the weight",
        "model/head.py",
        "for_weight.float().add_(product)",
        "product",
        "tests/model/test_head.py",
    ),
    (
        "head: the largest logit is not taken off",
        "model/head.py",
        "highest = wide.amax(-1, keepdim=True)",
        "highest = torch.zeros_like(wide.amax(-1, keepdim=True))",
        "tests/model/test_head.py",
    ),
    (
        "head: the gradient's probabilities do not add up to one",
        "model/head.py",
        "logits.copy_(torch.exp(wide - highest) / total)",
        "logits.copy_(torch.exp(wide - highest))",
        "tests/model/test_head.py",
    ),
    (
        "padding: the pad token is not trained, be it the stop token",
        "train/plan_batches.py",
        "labels[row, : lengths[row]] = np.where(example.mask, example.ids, IGNORE)",
        "labels[row, : lengths[row]] = np.where(example.mask & (np.array(example.ids) != pad_id), example.ids, IGNORE)",
        f"{LOOP} {BATCHES}",
    ),
    (
        "padding: told by the pad id",
        "train/plan_batches.py",
        "return (steps[None, :] < self.lengths[:, None]).astype(np.int64)",
        "return (self.input_ids != self.input_ids[-1, -1]).astype(np.int64)",
        f"{LOOP} {BATCHES}",
    ),
    (
        "stop token: not trained",
        "text/render.py",
        "            end += len(text)\n            if control is not None:",
        "            if control is not None:",
        "tests/text/test_render.py",
    ),
    (
        "stop token: a row that lacks it is let through",
        "text/render.py",
        "    if example.ids[last] not in (*renderer.stop_ids, tokenizer.eos_id):",
        "    if False:",
        "tests/text/test_render.py",
    ),
    (
        "masters: a step is taken on the rounded copy",
        "model/optim.py",
        "                    [master],\n",
        "                    [self.copies[p].to(master.dtype)],\n",
        "tests/model/test_compute.py tests/model/test_optim.py",
    ),
    (
        "masters: copies are not renewed",
        "model/optim.py",
        "                    self.copies[p].copy_(master)\n",
        "                    pass\n",
        "tests/model/test_compute.py tests/model/test_optim.py",
    ),
    (
        "masters: what is saved are the copies",
        "model/optim.py",
        "            p.data = master\n        try:",
        "            pass\n        try:",
        "tests/model/test_compute.py tests/train/test_checkpoint.py",
    ),
    (
        "frozen weights: stay rounded",
        "model/compute.py",
        "if not self.copies or not frozen or stored == self.copies:",
        "if True:",
        "tests/model/test_compute.py",
    ),
    (
        "checkpointing: not switched on",
        "model/compute.py",
        "            checkpoint(self.model)\n",
        "            pass\n",
        "tests/model/test_compute.py tests/train/test_session.py",
    ),
    ("adapter: a run that changed nothing is sealed", "train/export.py", "if change == 0.0:", "if False:", STAGE),
    (
        "parity: a model that speaks differently is sealed",
        "train/export.py",
        "if not (same_prompts and same_outputs):",
        "if False:",
        STAGE,
    ),
    (
        "adapter: does not begin as the base",
        "model/adapter.py",
        "        lora_dropout=dropout,\n",
        "        lora_dropout=dropout,\n        init_lora_weights=False,\n",
        "tests/model/test_adapter.py",
    ),
    (
        "merge: not rounded to the base's format",
        "model/adapter.py",
        "            weight.data = weight.data.to(dtype)\n",
        "",
        "tests/model/test_adapter.py",
    ),
    (
        "merge: any divergence will do",
        "train/merge.py",
        'if not facts["kl_mean"] <= tolerance:',
        "if False:",
        "tests/train/test_merge.py",
    ),
    (
        "tokens: of another template",
        "train/tokens.py",
        "renderer.hash, renderer.train_on)",
        "renderer.train_on)",
        "tests/train/test_tokens.py",
    ),
    (
        "tokens: damaged ones are used",
        "train/tokens.py",
        'found = _load(open_artifact(place, "tokens"), rows)',
        'found = _load(Artifact(place, "tokens", {}), rows)',
        "tests/train/test_tokens.py",
    ),
    (
        "data: the next batch in place of this one",
        "train/plan_batches.py",
        "self._pool.submit(self.source.step, n + 1)",
        "self._pool.submit(self.source.step, n + 2)",
        BATCHES,
    ),
    (
        "memory: gradients of an earlier micro-batch are not there",
        "model/memory.py",
        "gradients if several",
        "0 if several",
        MEMORY,
    ),
    (
        "memory: a further layer takes what the first one took",
        "model/memory.py",
        "* (two[name] - value)",
        "* value",
        MEMORY,
    ),
    (
        "memory: moments are not there",
        "model/memory.py",
        'found["moments"] = alive.now - held',
        'found["moments"] = 0',
        MEMORY,
    ),
    ("memory: kernels take none", "model/memory.py", "KERNELS * KERNEL if", "0.0 if", MEMORY),
    ("memory: each kernel is kept", "model/device.py", "str(KERNELS)", "str(1024)", DEVICE),
    ("memory: nothing is made again", "model/compute.py", "        if self.checkpointed:", "        if False:", MEMORY),
    ("memory: everything fits", "train/plan_memory.py", "plan.gb <= self.before.held", "0 <= self.before.held", PLAN),
    (
        "memory: a resumed run decides anew",
        "train/plan_memory.py",
        'update=found["decided"]) if same else',
        "update={}) if same else",
        PLAN,
    ),
    (
        "memory: the first micro-batch for the largest",
        "train/plan_memory.py",
        "max(micros, key=lambda micro: micro.input_ids.size)",
        "micros[0]",
        PLAN,
    ),
    (
        "memory: the error has the other sign",
        "train/plan_memory.py",
        "predicted / measured_gb",
        "measured_gb / predicted",
        PLAN,
    ),
    (
        "memory: a length is offered that does not fit",
        "train/plan_memory.py",
        "return not shorter.fits",
        "return shorter.fits",
        PLAN,
    ),
    (
        "memory: freed memory is kept",
        "model/device.py",
        "held_memory_gb(device) > limit_gb",
        "held_memory_gb(device) > 1e9",
        DEVICE,
    ),
    ("memory: the peak of what came before counts", "model/device.py", '.write_text("5")', '.write_text("1")', DEVICE),
)


def noticed(file: str, old: str, new: str, tests: str) -> bool:
    """Whether a test fails when `old` in a file is `new`."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch, "src")
        shutil.copytree(ROOT / "src", copy)
        path = copy / "tunesmith" / file
        text = path.read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise SystemExit(f"{file} has {text.count(old)} times: {old}")
        path.write_text(text.replace(old, new), encoding="utf-8")
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests.split()]
        environment = os.environ | {"PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"}
        return subprocess.run(command, cwd=ROOT, capture_output=True, env=environment, check=False).returncode == 1


def main() -> int:
    words, missed = sys.argv[1:], 0
    chosen = [row for row in MUTATIONS if not words or any(word in row[0] for word in words)]
    for what, *how in chosen:
        found = noticed(*how)
        missed += not found
        print(f"{'noticed' if found else 'NOT NOTICED':12} {what}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} breaks were noticed")
    return int(bool(missed))


if __name__ == "__main__":
    sys.exit(main())
