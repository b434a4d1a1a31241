"""Where an answer differs from its reference, for people who read both side by side."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from itertools import groupby

_WORD = re.compile(r"\w+")


def pieces(text: str, reference: str) -> list[tuple[str, bool]]:
    """The whole text in pieces, each with whether its words differ from the reference.

    Words (letters, digits and underscores, whatever their case) are aligned in order as by `difflib`; what stands
    between two words that differ goes with them. Without a reference there is nothing to differ from.
    """
    said = list(_WORD.finditer(text))
    if not reference or not said:
        return [(text, False)] if text else []
    wanted = [word.casefold() for word in _WORD.findall(reference)]
    same = SequenceMatcher(None, wanted, [word.group().casefold() for word in said], autojunk=False)
    shared = {place for block in same.get_matching_blocks() for place in range(block.b, block.b + block.size)}
    runs = [list(run) for _, run in groupby(range(len(said)), key=shared.__contains__)]
    out: list[tuple[str, bool]] = []
    at = 0
    for run in runs:
        differs, start, end = run[0] not in shared, said[run[0]].start(), said[run[-1]].end()
        out += [(text[at:start], False)] if at < start else []
        out.append((text[start:end], differs))
        at = end
    return [*out, (text[at:], False)] if at < len(text) else out
