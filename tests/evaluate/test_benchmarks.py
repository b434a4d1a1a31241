"""Benchmarks: prompts and rules held against what lm-eval made of the same questions; formats, shots, and what is
said of two models."""

import csv
import hashlib
import importlib.util
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tunesmith.core.errors import DataError, ModelError, UsageError
from tunesmith.engine.base import Score
from tunesmith.evaluate import benchmark_table, questions
from tunesmith.evaluate.benchmarks import Arm, BenchmarkConfig, Sheet, ask, chosen, measure, sheet
from tunesmith.evaluate.tasks import METRICS, TASKS, Question, Task, acc, acc_norm, mc2
from tunesmith.text.tokenizer import Tokenizer, train_bpe

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT.parent / "shared" / "data"
OWN = Path(__file__).with_name("questions")
GOLDEN = json.loads(Path(__file__).with_name("lm_eval_golden.json").read_text("utf-8"))
NAMES = list(GOLDEN["own"])
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="no ../shared/data: the public files are not there")


def task_of(name: str) -> Task:
    return TASKS["mmlu"] if name.startswith("mmlu") else TASKS[name]


def files_of(name: str, folder: Path) -> Callable[[Task, str], list[Path]]:
    """The task's files in the folder of lm-eval's columns (`bench/lm_eval_files.py`)."""
    stem = "truthfulqa" if name.startswith("truthfulqa") else name
    parts = {"test": ("_test", "_val", ""), "train": ("_train", "_dev")}

    def find(task: Task, part: str) -> list[Path]:
        paths = [folder / f"{stem}{ending}.jsonl" for ending in parts[part]]
        return [path for path in paths if path.is_file()][:1]

    return find


def texts(one: Sheet) -> list[list[list[str]]]:
    pairs = zip(one.questions, one.before, strict=True)
    return [[[before + asked.prompt, f" {choice}"] for choice in asked.choices] for asked, before in pairs]


def of_lm_eval(item: dict[str, Any], metric: str) -> float:
    """Its name for a metric: TruthfulQA's are both called acc."""
    return float(item["acc" if metric.startswith("mc") else metric])


def made_up(context: str, continuation: str) -> float:
    """The log-likelihoods of the golden values: those of bench/lm_eval_side.py."""
    digest = hashlib.sha256(f"{context}\0{continuation}".encode()).hexdigest()
    return -20 * int(digest[:8], 16) / 2**32


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_bpe(["Which of these rusts? an iron nail"], 300)


class TextEngine:
    """Reads the ids back, and says of each continuation what a function of the two texts says."""

    def __init__(
        self, tokenizer: Tokenizer, say: Callable[[str, str], float] = made_up, context: int = 100_000
    ) -> None:
        self.tokenizer, self.say, self.context = tokenizer, say, context
        self.calls: list[list[tuple[Sequence[int], Sequence[int]]]] = []

    def score(self, requests: Iterable[tuple[Sequence[int], Sequence[int]]]) -> list[Score]:
        self.calls.append(list(requests))
        read = self.tokenizer.decode
        return [Score((self.say(read(prompt), read(end)), *[0.0] * (len(end) - 1))) for prompt, end in self.calls[-1]]


def arm(tokenizer: Tokenizer, say: Callable[[str, str], float] = made_up, context: int = 100_000) -> Any:
    return Arm(TextEngine(tokenizer, say, context), tokenizer)  # type: ignore[arg-type]  # generate is not asked for


# Against lm-eval


@pytest.mark.parametrize("name", NAMES)
def test_prompts_choices_and_metrics_are_lm_evals_to_the_byte(name: str, tokenizer: Tokenizer) -> None:
    golden = GOLDEN["own"][name]
    config = BenchmarkConfig(fewshot="per-item", shots=golden["shots"])
    one = sheet(task_of(name), config, files_of(name, OWN))
    assert texts(one) == [item["texts"] for item in golden["items"]]
    answers = ask(one, arm(tokenizer))
    assert answers.lls == [pytest.approx(item["lls"], abs=1e-12) for item in golden["items"]]
    for metric in one.task.metrics:
        mine = [METRICS[metric](lls, asked) for lls, asked in zip(answers.lls, one.questions, strict=True)]
        assert mine == [pytest.approx(of_lm_eval(item["metrics"], metric), abs=1e-9) for item in golden["items"]]


@needs_data
@pytest.mark.parametrize("name", NAMES)
def test_the_public_files_give_lm_evals_prompts_and_metrics(name: str) -> None:
    """200 of ARC-Challenge and HellaSwag, 100 of TruthfulQA and of a subject of MMLU; the texts by their hash."""
    golden = GOLDEN["public"][name]
    files = questions.below(DATA)
    config = BenchmarkConfig(fewshot="per-item")
    if name == "hellaswag":  # the data folder has no training file: its last rows stand in for one
        every = questions.read(TASKS[name], questions.find(TASKS[name], files))
        one = shown(TASKS[name], every[:8000], every[8000:])
    else:
        one = sheet(task_of(name), config, lambda task, part: questions.find(task, files, part))
    pairs = list(zip(one.questions, one.before, strict=True))
    pairs = [pair for pair in pairs if not name.startswith("mmlu") or pair[0].subject == "anatomy"]
    count = len(next(iter(golden["metrics"].values())))
    made = texts(Sheet(one.task, *map(list, zip(*pairs[:count], strict=True)), 0, "", ()))  # type: ignore[arg-type]
    assert hashlib.sha256(json.dumps(made).encode()).hexdigest() == golden["sha256"]
    for metric in one.task.metrics:
        mine = [
            METRICS[metric]([made_up(*pair) for pair in item], asked)
            for item, (asked, _) in zip(made, pairs, strict=False)
        ]
        assert mine == pytest.approx(golden["metrics"]["acc" if metric.startswith("mc") else metric], abs=1e-9)


def shown(task: Task, asked: list[Question], pool: list[Question]) -> Sheet:
    from random import Random

    random = Random(1234)
    drawn = [random.sample(pool, task.shots + task.spare)[: task.shots] for _ in asked]
    before = ["".join(f"{q.prompt} {q.answer}\n\n" for q in shots) for shots in drawn]
    return Sheet(task, asked, before, task.shots, "", ())


def lm_eval_python() -> str | None:
    """A Python that has lm-eval: this one, or the one that LM_EVAL_PYTHON names."""
    return sys.executable if importlib.util.find_spec("lm_eval") else os.environ.get("LM_EVAL_PYTHON")


def loaded(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@needs_data
@pytest.mark.timeout(3600)
@pytest.mark.skipif(lm_eval_python() is None, reason="lm-eval is not installed, and LM_EVAL_PYTHON names no Python")
def test_a_model_scores_as_under_lm_eval_item_by_item(tmp_path: Path) -> None:
    """The acceptance: 200 ARC-Challenge at 25 shots, 200 HellaSwag at 10, 100 TruthfulQA, in float32."""
    from tunesmith.bases import load_engine

    files = loaded("lm_eval_files")
    files.write(DATA, tmp_path / "files")
    model = small_model(tmp_path / "model")
    jobs = files.jobs(tmp_path / "files", (200, 200, 100, 100))
    job = {"model": str(model), "dtype": "float32", "batch_size": 8, "tasks": jobs}
    (tmp_path / "job.json").write_text(json.dumps(job))
    words = [str(lm_eval_python()), str(ROOT / "bench" / "lm_eval_side.py")]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    subprocess.run([*words, str(tmp_path / "job.json"), str(tmp_path / "out.json")], check=True, env=environment)
    engine, renderer = load_engine(model)
    for row, theirs in zip(jobs, json.loads((tmp_path / "out.json").read_text())["tasks"], strict=True):
        name = row["task"]
        config = BenchmarkConfig(fewshot="per-item", limit=row["limit"])
        one = sheet(task_of(name), config, files_of(name, tmp_path / "files"))
        lls = ask(one, Arm(engine, renderer.tokenizer)).lls
        assert len(lls) == len(theirs["items"]) == row["limit"]
        assert lls == [pytest.approx(item["lls"], abs=1e-3) for item in theirs["items"]]
        for metric in one.task.metrics:
            mine = [METRICS[metric](each, asked) for each, asked in zip(lls, one.questions, strict=True)]
            assert mine == [pytest.approx(of_lm_eval(i["metrics"], metric), abs=1e-5) for i in theirs["items"]]


def small_model(folder: Path) -> Path:
    """A Llama of two layers with random weights, and a tokenizer that has read ARC's training questions."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    lines = (DATA / "normalised" / "arc_challenge_train.jsonl").read_text("utf-8").splitlines()
    tokenizer = train_bpe((json.loads(line)["question"] for line in lines), 4000)
    ids = dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"), tokenizer.eos_id)
    shape = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
    shape |= {"vocab_size": tokenizer.vocab_size, "max_position_embeddings": 4096}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(LlamaConfig(**shape, **ids, initializer_range=0.15)).save_pretrained(folder)
    tokenizer.save(folder)
    return folder


# Shots


def test_fixed_shots_are_lm_evals_first_draw_and_the_same_text_for_every_question() -> None:
    find = files_of("arc_challenge", OWN)
    fixed = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=3), find)
    drawn = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=3, fewshot="per-item"), find)
    assert {id(text) for text in fixed.before} == {id(fixed.before[0])}
    assert fixed.before[0] == drawn.before[0]
    assert len(set(drawn.before)) > 1
    assert (fixed.recipe, drawn.recipe) == (
        "lm-eval-0.4.13 3-shot fixed seed 1234",
        "lm-eval-0.4.13 3-shot per-item seed 1234",
    )
    other = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=3, seed=1), find)
    assert other.before[0] != fixed.before[0]


def test_mmlus_shots_are_the_first_of_each_subject_under_its_name(tmp_path: Path) -> None:
    for part, count in (("dev", 3), ("test", 2)):
        (tmp_path / part).mkdir()
        for subject in ("high_school_art", "law"):
            rows = [[f"{subject} {part} {n}?", "a", "b", "c", "d", "ABCD"[n]] for n in range(count)]
            with (tmp_path / part / f"{subject}_{part}.csv").open("w", newline="") as file:
                csv.writer(file).writerows(rows)
    files = questions.below(tmp_path)
    one = sheet(TASKS["mmlu"], BenchmarkConfig(shots=2), lambda task, part: questions.find(task, files, part))
    assert [asked.subject for asked in one.questions] == ["high_school_art"] * 2 + ["law"] * 2
    opening = "The following are multiple choice questions (with answers) about high school art.\n\n"
    assert one.before[0] == one.before[1]
    assert one.before[0].startswith(opening + "high_school_art dev 0?\nA. a\nB. b\nC. c\nD. d\nAnswer: A\n\n")
    assert one.before[2].count("Answer: ") == 2


def test_without_a_training_file_the_shots_come_from_the_questions_which_are_then_not_asked() -> None:
    find = files_of("arc_challenge", OWN)
    every = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=0), find).questions

    def alone(task: Task, part: str) -> list[Path]:
        return find(task, part) if part == "test" else []

    one = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=2), alone)
    assert one.recipe.endswith("2-shot fixed seed 1234 from the test file")
    taken = [asked for asked in every if asked not in one.questions]
    assert len(taken) == 2
    assert all(f"{asked.prompt} {asked.answer}\n\n" in one.before[0] for asked in taken)
    with pytest.raises(UsageError, match="no file to draw shots from"):
        sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=2, fewshot="per-item"), alone)
    with pytest.raises(UsageError, match="5 questions, and 5 of them are to be shots"):
        sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=5), alone)
    with pytest.raises(UsageError, match="6 questions to take 9 shots from"):
        sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=9), find)


def test_the_limit_takes_the_first_questions_and_stands_in_the_recipe() -> None:
    one = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=0, limit=2), files_of("arc_challenge", OWN))
    assert len(one.questions) == 2
    assert one.recipe == "lm-eval-0.4.13 0-shot limit 2"


def test_shots_do_not_apply_to_a_task_that_has_none() -> None:
    one = sheet(TASKS["truthfulqa_mc1"], BenchmarkConfig(shots=7), files_of("truthfulqa_mc1", OWN))
    assert one.shots == 0
    assert one.before[0].count("Q: ") == 6


# Files


def read(task: str, path: Path) -> list[Question]:
    return questions.read(TASKS[task], [path])


def test_arc_is_read_as_ai2_wrote_it_as_the_hub_has_it_and_as_a_plain_list(tmp_path: Path) -> None:
    texts, labels = ["a stone", "a cat", "a pen"], ["A", "B", "C"]
    forms: list[dict[str, Any]] = [
        {
            "id": "x",
            "question": {
                "stem": "Alive?",
                "choices": [{"text": t, "label": n} for t, n in zip(texts, labels, strict=True)],
            },
            "answerKey": "B",
        },
        {"id": "x", "question": "Alive?", "choices": {"text": texts, "label": ["1", "2", "3"]}, "answerKey": "2"},
        {"id": "x", "question": "Alive?", "choices": texts, "label": 1},
    ]
    path = tmp_path / "arc.jsonl"
    path.write_text("\n".join(map(json.dumps, forms)))
    assert read("arc_easy", path) == [Question("Question: Alive?\nAnswer:", tuple(texts), (False, True, False))] * 3


def test_hellaswag_is_read_from_its_lines_and_from_six_lines_a_question(tmp_path: Path) -> None:
    row = {"activity_label": "Canoeing", "ctx_a": "Two men paddle.", "ctx_b": "the child", "label": 1}
    row |= {"endings": ["sings.", "waves.", "[step] eats.", "runs."]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    lines = ["Canoeing: Two men paddle. the child", "1", "sings.", "waves.", "[step] eats.", "runs."]
    (tmp_path / "a.txt").write_text("\n".join(lines) + "\n")
    (asked,) = read("hellaswag", tmp_path / "a.jsonl")
    assert asked.prompt == "Canoeing: Two men paddle. The child"
    assert asked.choices == ("sings.", "waves.", " eats.", "runs.")
    assert read("hellaswag", tmp_path / "a.txt") == [asked]


def test_mmlu_is_read_with_and_without_a_head_with_letters_and_numbers(tmp_path: Path) -> None:
    (tmp_path / "law_test.csv").write_text("Why?,a,b,c,d,C\n")
    (tmp_path / "art_test.csv").write_text("question,choice0,choice1,choice2,choice3,answer\nWhy?,a,b,c,d,2\n")
    (tmp_path / "fun_test.csv").write_text("question,A,B,C,D,answer\nWhy?,a,b,c,d,C\n")
    found = [read("mmlu", tmp_path / f"{subject}_test.csv")[0] for subject in ("law", "art", "fun")]
    assert [asked.subject for asked in found] == ["law", "art", "fun"]
    assert {(asked.prompt, asked.right) for asked in found} == {
        ("Why?\nA. a\nB. b\nC. c\nD. d\nAnswer:", (False, False, True, False))
    }


def test_truthfulqa_is_read_from_its_table_its_lists_and_the_hubs_columns(tmp_path: Path) -> None:
    head = "Type,Category,Question,Best Answer,Correct Answers,Incorrect Answers,Source"
    (tmp_path / "TruthfulQA.csv").write_text(f"{head}\nA,B,Fly?,No,No; They swim ,Yes; Far,x\n")
    lists = {"question": "Fly?", "mc1_targets": {"No": 1, "Yes": 0, "Far": 0}}
    lists |= {"mc2_targets": {"No": 1, "They swim": 1, "Yes": 0, "Far": 0}}
    (tmp_path / "mc_task.json").write_text(json.dumps([lists]))
    columns: dict[str, Any] = {"question": "Fly?"}
    columns |= {k: {"choices": list(lists[k]), "labels": list(lists[k].values())} for k in lists if k != "question"}  # type: ignore[attr-defined]
    (tmp_path / "hub.jsonl").write_text(json.dumps(columns))
    paths = [tmp_path / name for name in ("TruthfulQA.csv", "mc_task.json", "hub.jsonl")]
    one = Question("Q: Fly?\nA:", ("No", "Yes", "Far"), (True, False, False))
    all_ = Question("Q: Fly?\nA:", ("No", "They swim", "Yes", "Far"), (True, True, False, False))
    assert [read("truthfulqa_mc1", path) for path in paths] == [[one]] * 3
    assert [read("truthfulqa_mc2", path) for path in paths] == [[all_]] * 3


def test_the_hubs_parquet_gives_the_same_questions(tmp_path: Path) -> None:
    duckdb = pytest.importorskip("duckdb", reason="the parquet extra is not installed")
    source, made = OWN / "arc_challenge_test.jsonl", tmp_path / "test-00000-of-00001.parquet"
    duckdb.sql(f"COPY (SELECT * FROM read_json('{source}')) TO '{made}' (FORMAT parquet)")
    assert read("arc_challenge", made) == read("arc_challenge", source)


@pytest.mark.parametrize(
    ("task", "name", "text", "complaint"),
    [
        ("arc_easy", "a.jsonl", '{"question": "x"}', "not a question of arc_easy: KeyError: 'choices'"),
        ("arc_easy", "a.jsonl", '{"question": "x", "choices": ["a"], "label": 1}', "1 is not in list"),
        ("mmlu", "law_test.csv", "Why?,a,b,c,d,Z\n", "not a question of mmlu"),
        ("mmlu", "law_test.csv", "question,A,B,answer\nWhy?,a,b,3\n", "the right answer is number 3 of 2"),
        ("hellaswag", "a.txt", "a\nb\n", "2 lines, which six do not divide"),
        ("hellaswag", "a.jsonl", "", "no questions"),
        ("arc_easy", "a.jsonl", "{", "cannot be read"),
        ("arc_easy", "a.jsonl.gz", "no gzip", "cannot be read"),
    ],
)
def test_a_question_that_cannot_be_read_is_named_with_its_place(
    tmp_path: Path, task: str, name: str, text: str, complaint: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match="(?s)" + complaint.replace("(", r"\(")) as raised:
        read(task, tmp_path / name)
    assert name in raised.value.where


def test_files_are_found_by_name_at_any_depth_and_never_guessed(tmp_path: Path) -> None:
    names = [
        "ARC-V1/ARC-Challenge/ARC-Challenge-Test.jsonl",
        "ARC-V1/ARC-Challenge/ARC-Challenge-Test.csv",
        "ARC-V1/ARC-Challenge/ARC-Challenge-Train.jsonl",
        "ARC-V1/ARC-Easy/ARC-Easy-Test.jsonl",
        "hub/ARC-Other/test-00000-of-00002.parquet",
        "data/test/law_test.csv",
        "data/test/art_test.csv",
        "data/dev/law_dev.csv",
        "x/hellaswag_val_full.txt.bz2",
        "cais/mmlu_all/test-00000-of-00001.parquet",
    ]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    files = questions.below(tmp_path)

    def found(task: str, part: str = "test") -> list[str]:
        return [path.relative_to(tmp_path).as_posix() for path in questions.find(TASKS[task], files, part)]

    assert found("arc_challenge") == [names[0]]
    assert found("arc_challenge", "train") == [names[2]]
    assert found("arc_easy") == [names[3]]
    assert found("hellaswag") == [names[8]]
    assert sorted(found("mmlu")) == sorted(names[5:7])
    assert found("mmlu", "train") == [names[7]]
    assert found("truthfulqa_mc1") == []
    (tmp_path / "arc_challenge_test.jsonl").touch()
    with pytest.raises(UsageError, match="several files could be meant"):
        questions.find(TASKS["arc_challenge"], questions.below(tmp_path))
    with pytest.raises(UsageError, match="is not a folder"):
        questions.below(tmp_path / "nowhere")


def test_tasks_are_those_named_or_what_of_the_leaderboard_there_are_files_for() -> None:
    def names(*tasks: str, having: tuple[str, ...] = tuple(TASKS)) -> list[str]:
        return [one.name for one in chosen(BenchmarkConfig(tasks=tasks), lambda task: task.name in having)]

    assert names() == ["arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2"]
    assert names(having=("mmlu", "arc_easy")) == ["mmlu"]
    assert names("arc", "arc_easy") == ["arc_easy", "arc_challenge"]
    assert names("truthfulqa") == ["truthfulqa_mc1", "truthfulqa_mc2"]
    with pytest.raises(UsageError, match="did you mean 'hellaswag'"):
        names("helaswag")
    with pytest.raises(UsageError, match="no files of mmlu"):
        names("mmlu", having=())
    with pytest.raises(UsageError, match="no files of arc_challenge"):
        names(having=())


# Scores

lls_of_four = st.lists(st.floats(-500, 0), min_size=4, max_size=4)


@given(lls=lls_of_four, shift=st.floats(-100, 100), right=st.integers(0, 3))
def test_a_metric_does_not_change_when_all_choices_get_likelier_alike(
    lls: list[float], shift: float, right: int
) -> None:
    asked = Question("", ("aa", "bb", "cc", "dd"), tuple(place == right for place in range(4)))
    moved = [ll + shift for ll in lls]
    if sorted(lls)[-1] - sorted(lls)[-2] > 1e-6:
        assert acc(lls, asked) == acc(moved, asked) == acc_norm(lls, asked)
    assert mc2(lls, asked) == pytest.approx(mc2(moved, asked), abs=1e-6)
    assert 0 <= mc2(lls, asked) <= 1


def test_the_share_of_right_answers_is_there_for_texts_so_long_that_their_probability_is_zero() -> None:
    asked = Question("", ("a", "b"), (True, False))
    assert mc2([-2000.0, -2000.0 - math.log(3)], asked) == pytest.approx(0.75)


def test_acc_norm_divides_by_characters_and_a_tie_goes_to_the_first() -> None:
    asked = Question("", ("short", "a much longer one"), (False, True))
    assert (acc([-2.0, -3.0], asked), acc_norm([-2.0, -3.0], asked)) == (0.0, 1.0)
    assert acc([-1.0, -1.0], asked) == 0.0


def test_what_does_not_fit_is_cut_on_the_left_and_counted(tokenizer: Tokenizer) -> None:
    one = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=3), files_of("arc_challenge", OWN))
    whole = ask(one, arm(tokenizer))
    assert whole.cut == 0
    small = arm(tokenizer, context=60)
    assert ask(one, small).cut == sum(len(asked.choices) for asked in one.questions)
    for prompt, end in small.engine.calls[0]:
        assert len(prompt) + len(end) - 1 == 60
    with pytest.raises(ModelError, match="a choice of"):
        ask(one, arm(tokenizer, context=5))


def test_all_questions_of_a_task_reach_the_engine_together(tokenizer: Tokenizer) -> None:
    """So that an engine can see that they begin alike, and compute that once."""
    one = sheet(TASKS["arc_challenge"], BenchmarkConfig(shots=3), files_of("arc_challenge", OWN))
    model = arm(tokenizer)
    ask(one, model)
    (call,) = model.engine.calls
    assert len(call) == sum(len(asked.choices) for asked in one.questions)


def knowing(share: float, seed: str = "") -> Callable[[str, str], float]:
    """A model that knows a share of the questions: the choice "right" is likeliest there, elsewhere least likely."""

    def say(prompt: str, end: str) -> float:
        asked = prompt.split("\n\n")[-1]
        number = int(hashlib.sha256((seed + asked).encode()).hexdigest()[:8], 16) / 2**32
        return (-1.0 if number < share else -9.0) if "right" in end else -5.0

    return say


def sheets_of(*counts: int) -> list[Sheet]:
    names = ("arc_challenge", "hellaswag", "mmlu", "truthfulqa_mc2")
    out = []
    for name, count in zip(names, counts, strict=False):
        subjects = ("law", "art", "art") if name == "mmlu" else ("",)
        asked = [
            Question(
                f"{name} {n}?",
                ("right", "wrong", "other", "bad"),
                (True, False, False, False),
                subjects[n % len(subjects)],
            )
            for n in range(count)
        ]
        out.append(Sheet(TASKS[name], asked, [""] * count, TASKS[name].shots, "a recipe", ()))
    return out


def test_one_model_gets_values_with_intervals_and_the_plain_average(tokenizer: Tokenizer) -> None:
    report, items = measure(sheets_of(60, 60, 60, 60), {"model": arm(tokenizer, knowing(0.6))})
    values = [task["value"] for task in report["tasks"]]
    assert report["average"] == pytest.approx(sum(values) / 4)
    assert report["average_low"] < report["average"] < report["average_high"]
    assert report["leaderboard"]
    assert report["forgotten"] == []
    for task in report["tasks"]:
        assert {"task", "recipe", "shots", "n", "metric", "value", "low", "high"} <= task.keys()
        assert task["n"] == 60
        assert task["low"] < task["value"] < task["high"]
        assert task["chance"] == 0.25
        assert "base" not in task
    arc = report["tasks"][0]
    assert arc["metric"] == "acc_norm"
    assert arc["stderr"] == pytest.approx(math.sqrt(arc["value"] * (1 - arc["value"]) / 59))
    assert len(items) == 240


def test_mmlu_has_the_mean_of_questions_and_the_mean_of_subjects(tokenizer: Tokenizer) -> None:
    report, items = measure(sheets_of(0, 0, 90)[2:], {"model": arm(tokenizer, knowing(0.5))})
    (task,) = report["tasks"]
    parts = {name: [i["metrics"]["acc"]["model"] for i in items if i["subject"] == name] for name in ("law", "art")}
    means = {name: sum(part) / len(part) for name, part in parts.items()}
    assert task["subjects"] == {name: {"n": len(parts[name]), "value": means[name]} for name in parts}
    assert task["macro"]["value"] == pytest.approx((means["law"] + means["art"]) / 2)
    assert task["value"] == pytest.approx((30 * means["law"] + 60 * means["art"]) / 90)
    assert task["value"] != pytest.approx(task["macro"]["value"])
    assert task["macro"]["low"] < task["macro"]["value"] < task["macro"]["high"]
    assert not report["leaderboard"]


def test_what_the_tuned_model_has_forgotten_is_found_pair_by_pair_and_warned_of(tokenizer: Tokenizer) -> None:
    arms = {"base": arm(tokenizer, knowing(0.8)), "tuned": arm(tokenizer, knowing(0.6))}
    report, _ = measure(sheets_of(120, 120), arms)
    for task in report["tasks"]:
        assert task["difference"] == pytest.approx(task["value"] - task["base"])
        assert task["difference_low"] <= task["difference"] <= task["difference_high"] < 0
        assert task["verdict"] == "worse"
    assert report["forgotten"] == ["arc_challenge", "hellaswag"]
    said = benchmark_table.warnings(report)
    assert len(said) == 2
    assert said[0].startswith("forgotten: the tuned model is worse than its base on arc_challenge: -")
    same, _ = measure(sheets_of(120), {"base": arms["base"], "tuned": arm(tokenizer, knowing(0.8))})
    assert same["forgotten"] == []
    assert same["tasks"][0]["verdict"] == "cannot tell"


def test_the_table_says_value_interval_recipe_and_what_others_published(tokenizer: Tokenizer) -> None:
    arms = {"base": arm(tokenizer, knowing(0.8)), "tuned": arm(tokenizer, knowing(0.6), context=8)}
    sheets = sheets_of(40, 40, 40)
    report, _ = measure(sheets, arms)
    text = benchmark_table.table(report)
    assert "difference [95 %]" in text
    assert "average of 3: " in text
    assert "Llama-2-70b 67.3" in text
    assert "mean of 2 subjects" in text
    assert "a recipe; acc " in text
    assert any("were cut on the left" in line for line in benchmark_table.warnings(report))
    alone = benchmark_table.table(measure(sheets, {"model": arms["base"]})[0])
    assert "difference" not in alone
