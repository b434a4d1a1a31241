"""The text that every Python install carries: docstrings, comments and help topics of the standard library.

It is what the embedded base is pretrained on and what the demo's tasks are made from: real, on every machine, and
nothing to download. Nothing is imported or run: files are parsed.
"""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# Tests repeat each other, and a few folders hold generated tables or vendored copies rather than prose.
_SKIP = {"site-packages", "test", "tests", "idle_test", "lib2to3", "__pycache__", "encodings", "pydoc_data"}
_COMMENT = re.compile(r"^[ \t]*#[ \t]?(.*)$")


@dataclass(frozen=True, slots=True)
class Entry:
    """One documented function, method or class. `group` is the top-level object that it belongs to."""

    module: str
    name: str
    kind: str  # "function", "method" or "class"
    parameters: tuple[str, ...]  # positional parameters and keyword-only ones, without self and cls
    required: int  # how many of them have no default
    signature: str  # the head of its definition, as a reader sees it
    doc: str
    line: int

    @property
    def group(self) -> str:
        return f"{self.module}.{self.name.split('.')[0]}"

    @property
    def summary(self) -> str:
        """The first sentence of the docstring, on one line."""
        first = self.doc.strip().split("\n\n")[0]
        return re.split(r"(?<=[.!?])\s", " ".join(first.split()))[0]


@dataclass(frozen=True, slots=True)
class Library:
    """What was found: entries, and the documents (group, text) they and their modules make."""

    entries: tuple[Entry, ...]
    documents: tuple[tuple[str, str], ...]

    def texts(self, without: frozenset[str] = frozenset()) -> list[str]:
        """The documents, leaving out those of some groups."""
        return [text for group, text in self.documents if group not in without]


def harvest(root: Path | None = None) -> Library:
    """Parse the standard library (2 to 4 seconds). Files that do not parse are left out: some are meant not to."""
    root = root or Path(sysconfig.get_paths()["stdlib"])
    entries: list[Entry] = []
    documents: list[tuple[str, str]] = []
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        if _SKIP & set(parts[:-1]) or parts[0].startswith("_sysconfigdata"):
            continue
        module = ".".join(parts)[: -len(".py")].removesuffix(".__init__")
        found = _parse(module, path)
        entries += found.entries
        documents += found.documents
    documents += [("topics", text) for text in _topics(root)]
    return Library(tuple(entries), tuple(documents))


def held_out(groups: set[str], share: float = 0.15, salt: str = "held-out") -> frozenset[str]:
    """The groups kept away from training: chosen by hash, so that another Python version moves none of the others."""
    limit = int(share * 2**32)
    return frozenset(g for g in groups if int(hashlib.sha256(f"{salt} {g}".encode()).hexdigest()[:8], 16) < limit)


def _parse(module: str, path: Path) -> Library:
    try:
        source = path.read_text("utf-8")
        tree = ast.parse(source)
    except (SyntaxError, UnicodeDecodeError, ValueError):
        return Library((), ())
    entries = [e for node in tree.body for e in _entries(module, node, "")]
    head = ast.get_docstring(tree)
    documents = [(module, f"{module}\n\n{head}")] if head else []
    by_group: dict[str, list[Entry]] = {}
    for entry in entries:
        by_group.setdefault(entry.group, []).append(entry)
    documents += [(group, "\n\n".join(map(_text, found))) for group, found in by_group.items()]
    documents += [(_owner(module, tree, line), text) for line, text in _comments(source)]
    return Library(tuple(entries), tuple(documents))


def _entries(module: str, node: ast.AST, prefix: str) -> Iterator[Entry]:
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return
    name, doc = prefix + node.name, ast.get_docstring(node)
    args = None if isinstance(node, ast.ClassDef) else node.args
    if doc:
        kind = "class" if args is None else "method" if prefix else "function"
        parameters, required, signature = _signature(args, name, kind)
        yield Entry(module, name, kind, parameters, required, signature, inspect.cleandoc(doc), node.lineno)
    if args is None:
        for child in node.body:
            yield from _entries(module, child, name + ".")


def _signature(args: ast.arguments | None, name: str, kind: str) -> tuple[tuple[str, ...], int, str]:
    """(parameters, how many are required, the head of the definition). Defaults that are long are shown as ...."""
    if args is None:
        return (), 0, f"class {name}"
    positional = [a.arg for a in (*args.posonlyargs, *args.args)]
    defaults: list[ast.expr | None] = [*[None] * (len(positional) - len(args.defaults)), *args.defaults]
    bound = 1 if kind == "method" and positional[:1] in (["self"], ["cls"]) else 0
    named = list(zip(positional, defaults, strict=True))[bound:]
    named += zip((a.arg for a in args.kwonlyargs), args.kw_defaults, strict=True)
    shown = [arg if default is None else f"{arg}={_default(default)}" for arg, default in named]
    required = sum(default is None for _, default in named)
    return tuple(arg for arg, _ in named), required, f"def {name}({', '.join(shown)})"


def _default(node: ast.expr) -> str:
    text = ast.unparse(node)
    return text if len(text) <= 12 else "..."


def _text(entry: Entry) -> str:
    return f"{entry.signature}\n{entry.doc}"


def _comments(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every block of two or more comment lines that reads like prose."""
    block: list[str] = []
    for number, line in enumerate([*source.split("\n"), ""], 1):
        match = _COMMENT.match(line)
        if match and not match[1].startswith("!"):
            block.append(match[1])
            continue
        text = "\n".join(block).strip()
        if len(block) > 1 and sum(c.isalpha() or c == " " for c in text) > 0.8 * len(text):
            yield number - len(block), text
        block = []


def _owner(module: str, tree: ast.Module, line: int) -> str:
    """The group whose body a line lies in, so that a held-out class takes its comments along."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.lineno <= line <= (node.end_lineno or 0):
            return f"{module}.{node.name}"
    return module


def _topics(root: Path) -> list[str]:
    """The help topics (`help("LOOPING")`): the language reference, kept as one dict literal in one file."""
    path = root / "pydoc_data" / "topics.py"
    if not path.is_file():
        return []
    assigned = [n.value for n in ast.parse(path.read_text("utf-8")).body if isinstance(n, ast.Assign)]
    topics: dict[str, str] = ast.literal_eval(assigned[0])
    return [topics[name] for name in sorted(topics)]
