"""The whole loop in one flat file: question/answer pairs to a tuned model, and whether it is better than its base.

    python examples/whole_loop.py BASE DATA.jsonl OUT

BASE is a model directory or a hub id; DATA has one {"question": ..., "answer": ...} a line. Read it from top to bottom:
it is what Tunesmith does, without receipts, resume, LoRA and bfloat16; tests/test_whole_loop.py holds both to the same
losses. For byte-level tokenizers (GPT-2, GPT-NeoX, Llama 3, Qwen): Llama 2's would mark each answer as a new text.
"""

import argparse
import hashlib
import json
import math
import re
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

IGNORE = -100  # the label of a token that is not trained; torch's own default
WEIGHT_DECAY, WARMUP_RATIO, GRAD_CLIP = 0.01, 0.05, 1.0
ROWS_A_PASS = 4  # memory and speed only: how a batch is cut does not change its gradient
PROMPT = "### Question:\n{}\n\n### Answer:\n"
CHAT_TEMPLATE = (  # the same prompt in the language of every other tool, saved with the model
    r"{% for m in messages %}{% if m.role == 'assistant' %}{{ '### Answer:\n' + m.content + eos_token + '\n' }}"
    r"{% else %}{{ '### Question:\n' + m.content + '\n\n' }}{% endif %}{% endfor %}"
    r"{% if add_generation_prompt %}{{ '### Answer:\n' }}{% endif %}"
)


# 1. The data ----------------------------------------------------------------------------------------------------------
def split(pairs):
    """80 % train, 10 % valid, 10 % test by the hash of the question.

    A hash and not a shuffle: a row keeps its side when rows are added, and one question never lies on two sides.
    """
    sides = {"train": [], "valid": [], "test": []}
    for question, answer in pairs:
        draw = int(hashlib.sha256(question.encode()).hexdigest(), 16) % 10
        sides["test" if draw == 0 else "valid" if draw == 1 else "train"].append((question, answer))
    return sides


# 2. Text to tokens ----------------------------------------------------------------------------------------------------
def encode(tokenizer, question, answer=None):
    """Ids and labels; without an answer, the prompt that the model is asked with.

    A user who writes </s> means these four characters, so control tokens in the text are not parsed. Prompt and answer
    are tokenized apart: a token across their border would make the trained prompt another one than the asked prompt.
    """
    start = [i for i in tokenizer("").input_ids if i == tokenizer.bos_token_id]  # only some tokenizers write it
    plain = {"add_special_tokens": False, "split_special_tokens": True}
    prompt = start + tokenizer(PROMPT.format(question), **plain).input_ids
    # the end token is trained with the answer: it is how the model learns to stop
    trained = [] if answer is None else [*tokenizer(answer, **plain).input_ids, tokenizer.eos_token_id]
    return prompt + trained, [IGNORE] * len(prompt) + trained


# 3. Training ----------------------------------------------------------------------------------------------------------
def summed_loss(model, examples):
    """The negative log-likelihood (nats) of all trained tokens, summed: the caller divides, once a step."""
    width = max(len(ids) for ids, _ in examples)
    ids = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in examples], device=model.device)
    labels = torch.tensor([labels + [IGNORE] * (width - len(labels)) for _, labels in examples], device=model.device)
    # by length, not by pad id: where the pad token is the end token too, the end of the answer would be masked
    mask = torch.tensor([[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in examples], device=model.device)
    logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float()
    return F.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORE, reduction="sum")


def mean_losses(model, examples):
    """Each pass's share of the mean loss over all trained tokens. A mean of means would favour short answers."""
    total = sum(label != IGNORE for _, labels in examples for label in labels)
    for at in range(0, len(examples), ROWS_A_PASS):
        yield summed_loss(model, examples[at : at + ROWS_A_PASS]) / total


def rate_factor(step, steps):
    """Up in a straight line, then down along a cosine."""
    warmup = int(WARMUP_RATIO * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def train(model, train_examples, valid_examples, *, epochs, learning_rate, batch_size, seed):
    """Tune `model` in place, and leave the weights with the lowest validation loss in it.

    Returns the loss of each step and the validation loss of each epoch, in nats a trained token.
    """
    matrices = {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": WEIGHT_DECAY}
    vectors = {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0}  # norms, biases
    optimizer = torch.optim.AdamW([matrices, vectors], lr=learning_rate, betas=(0.9, 0.95))
    steps = epochs * -(-len(train_examples) // batch_size)
    step_losses, valid_losses, best = [], [], {}
    torch.manual_seed(seed)  # for dropout, where a model has it
    for epoch in range(epochs):
        model.train()
        # the order is a function of (seed, epoch) alone, so a run that is resumed needs to replay nothing
        order = np.random.default_rng([seed, epoch]).permutation(len(train_examples))
        for at in range(0, len(order), batch_size):
            loss = 0.0
            for part in mean_losses(model, [train_examples[i] for i in order[at : at + batch_size]]):
                part.backward()
                loss += part.item()
            torch.nn.utils.clip_grad_norm_(model.parameters(), GRAD_CLIP)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate * rate_factor(len(step_losses), steps)
            optimizer.step()
            optimizer.zero_grad()
            step_losses.append(loss)
        model.eval()
        with torch.no_grad():
            valid_losses.append(sum(part.item() for part in mean_losses(model, valid_examples)))
        print(f"epoch {epoch + 1}: last step's loss {loss:.4f}, validation loss {valid_losses[-1]:.4f}")
        if valid_losses[-1] == min(valid_losses):  # later epochs may only learn the training rows by heart
            best = {name: p.detach().clone() for name, p in model.named_parameters()}
    model.load_state_dict(best, strict=False)  # tied weights stand in it once
    return step_losses, valid_losses


# 4. Is it better? -----------------------------------------------------------------------------------------------------
def greedy(model, tokenizer, questions, limit):
    """One row at a time: no padding, and no row can change another's answer."""
    answers, end = [], tokenizer.eos_token_id
    for question in questions:
        prompt = torch.tensor([encode(tokenizer, question)[0]], device=model.device)
        room = min(limit, model.config.max_position_embeddings - prompt.shape[1])
        how = GenerationConfig(max_new_tokens=room, do_sample=False, eos_token_id=end, pad_token_id=end)
        ids = model.generate(prompt, attention_mask=torch.ones_like(prompt), generation_config=how)
        answers.append(tokenizer.decode(ids[0, prompt.shape[1] :], skip_special_tokens=True))
    return answers


def scores(answers, references):
    """Exact match but for case, spaces and the last full stop; F1 over words, each as often as both have it."""
    exact = f1 = 0.0
    for pair in zip(answers, references, strict=True):
        a, b = (" ".join(unicodedata.normalize("NFKC", t).casefold().split()).rstrip(" .!?") for t in pair)
        said, wanted = Counter(re.findall(r"\w+", a)), Counter(re.findall(r"\w+", b))
        exact += (a == b) / len(answers)
        f1 += 2 * (said & wanted).total() / max(1, said.total() + wanted.total()) / len(answers)
    return {"exact_match": exact, "f1": f1}


# 5. The loop ----------------------------------------------------------------------------------------------------------
def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, kind in {"base": str, "data": Path, "out": Path}.items():
        parser.add_argument(name, metavar=name.upper(), type=kind)
    defaults = {"epochs": 3, "learning_rate": 1e-4, "batch_size": 16, "seed": 0}
    for name, value in defaults.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(value), default=value)
    args = parser.parse_args()
    args.out.mkdir(parents=True)  # an earlier result is never overwritten

    tokenizer = AutoTokenizer.from_pretrained(args.base)
    # float32, because a bfloat16 weight does not move when its update is a thousandth of it
    model = AutoModelForCausalLM.from_pretrained(args.base, dtype=torch.float32)
    model.to("cuda" if torch.cuda.is_available() else "cpu").eval()
    lines = [json.loads(line) for line in args.data.read_text(encoding="utf-8").split("\n") if line.strip()]
    rows = [(line["question"], line["answer"]) for line in lines]
    unique = list(dict.fromkeys(rows))  # a copy would count twice
    # too long rows are left out and counted, never cut: a cut takes the end of the answer and its stop token
    fitting = [pair for pair in unique if len(encode(tokenizer, *pair)[0]) < model.config.max_position_embeddings]
    sides = split(fitting)
    print(f"{len(rows)} rows = {len(rows) - len(unique)} duplicates + {len(unique) - len(fitting)} too long", end="")
    print("".join(f" + {len(pairs)} {side}" for side, pairs in sides.items()))
    if not all(sides.values()):
        raise SystemExit("one side of the split is empty: give more rows")

    data = {side: [encode(tokenizer, *pair) for pair in pairs] for side, pairs in sides.items()}
    questions, references = zip(*sides["test"], strict=True)
    limit = math.ceil(1.5 * max(sum(label != IGNORE for label in labels) for _, labels in data["train"]))
    base = greedy(model, tokenizer, questions, limit)  # without its score, nobody knows what the training did
    settings = {name: getattr(args, name) for name in defaults}
    step_losses, valid_losses = train(model, data["train"], data["valid"], **settings)
    tuned = greedy(model, tokenizer, questions, limit)

    results = {"base": scores(base, references), "tuned": scores(tuned, references)}
    for name, found in results.items():
        print(f"{name:5}", *(f" {metric} {value:.3f}" for metric, value in found.items()), f" n = {len(questions)}")
    # template and end token go with the weights: what serves this model must ask and stop as it was trained
    has_start = tokenizer.bos_token_id in encode(tokenizer, "")[0]
    tokenizer.chat_template = "{{ bos_token }}" * has_start + CHAT_TEMPLATE
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.save_pretrained(args.out / "model")
    tokenizer.save_pretrained(args.out / "model")
    facts = {"settings": settings, "step_losses": step_losses, "valid_losses": valid_losses, **results}
    columns = {"question": questions, "reference": references, "base": base, "tuned": tuned}
    facts["answers"] = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    (args.out / "results.json").write_text(json.dumps(facts, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
