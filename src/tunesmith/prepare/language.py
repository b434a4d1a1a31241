"""Which language a text is in, as far as its script and its commonest words tell.

It knows the scripts below, and ten languages in Latin script by words that are frequent in one of them. It cannot tell
other languages of one script apart, and says nothing of short texts; a loan word or a title never decides.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tunesmith.prepare.corpus import Corpus, Side

# About 25 frequent words a language; those that several of them share count for each and so decide nothing.
STOPWORDS = {
    "en": "the of and to in is that for it with as was on are this be by from or have not you which can what how",
    "de": "der die und das ist nicht ein eine den von zu mit sich auf für im dem des auch wie werden wird sie bei oder",
    "fr": "le la les des et est une dans que pour qui sur pas plus par avec ce sont au du vous cette être ont je",
    "es": "el la los las de que en un una es por con para del se al como más pero su sus está son lo qué",
    "it": "il di che la un una per è con non sono del della dei gli si le nel alla anche come più questo essere ha",
    "pt": "o a os as de que um uma para com não é em do da dos das por mais como foi ao ser são você",
    "nl": "de het een en van is dat niet op te zijn met voor die aan er ook als maar door bij naar wordt kan hoe",
    "sv": "och att det som en är på av för med den till inte om har de ett jag var kan från hur eller när vid",
    "pl": "i w na z się nie jest do to że o jak za od po ale czy przez dla tym są może jego co oraz",
    "tr": "ve bir bu için ile da de ne çok daha gibi olarak olan en mi var her kadar ama nasıl değil veya o şu",
}
LEAST_HITS, LEAST_SHARE, TIMES = 4, 0.12, 2.5  # of a text's words in one language; times as many as in the main one
LEAST_LETTERS, MOST = 10, 0.5  # letters of other scripts than Latin; their share
MAIN = 0.5  # share of the texts that could be told which must agree on the main language
_FOREIGN = re.compile("[\u0370-\u1cff\u2c00-\ua6ff\ua720-\ud7ff\uf900-\ufaff\ufe70-\ufeff\U00020000-\U0003ffff]")


def languages(corpus: Corpus, side: Side) -> list[str]:
    """A language or a script a text, or '' where it cannot be told."""
    hits = _hits(corpus, side)
    best = np.argmax(hits, axis=1)
    rows = np.arange(len(side))
    most = hits[rows, best]
    others = hits.copy()
    others[rows, best] = 0
    words = np.maximum(side.lengths, 1)
    sure = (most >= LEAST_HITS) & (most >= LEAST_SHARE * words) & (most >= 1.3 * others.max(axis=1))
    names = list(STOPWORDS)
    out = [names[b] if ok else "" for b, ok in zip(best.tolist(), sure.tolist(), strict=True)]
    for i, text in enumerate(side.raw):
        if not text.isascii() and (script := _script(text)):
            out[i] = script
    return out


def strangers(corpus: Corpus, side: Side) -> list[tuple[int, str, str]]:
    """(text, its language, the main one) where the two differ; none where there is no main language."""
    told = languages(corpus, side)
    counts = Counter(filter(None, told))
    if not counts:
        return []
    main, most = counts.most_common(1)[0]
    if most < MAIN * counts.total():
        return []
    names = list(STOPWORDS)
    hits = _hits(corpus, side) if main in names else None
    found = []
    for i, language in enumerate(told):
        if language in ("", main):
            continue
        mine = 0 if hits is None else hits[i, names.index(main)]
        if language not in names or hits is None or hits[i, names.index(language)] >= TIMES * mine:
            found.append((i, language, main))
    return found


def main_language(corpus: Corpus) -> str:
    """The language or script that most of what could be told is in; '' where none is."""
    counts = Counter(name for side in corpus.sides for name in languages(corpus, side) if name)
    name, most = counts.most_common(1)[0] if counts else ("", 0)
    return name if most > MAIN * counts.total() else ""


def _hits(corpus: Corpus, side: Side) -> NDArray[np.int64]:
    """How many words of each text are frequent in each language, shape (texts, languages)."""
    marks = np.zeros((len(STOPWORDS), len(corpus.index)), dtype=bool)
    for language, words in zip(marks, STOPWORDS.values(), strict=True):
        language[[corpus.index[word] for word in words.split() if word in corpus.index]] = True
    known = np.logical_or.reduce(marks)[side.ids]
    ids, owner = side.ids[known], side.owner[known]
    return np.stack([np.bincount(owner[language[ids]], minlength=len(side)) for language in marks], axis=1)


def _script(text: str) -> str:
    """The script of most letters where that is not Latin, else ''."""
    foreign = _FOREIGN.findall(text)
    if len(foreign) < LEAST_LETTERS or len(foreign) < MOST * sum(map(str.isalpha, text)):
        return ""
    names = Counter(unicodedata.name(c, "unknown").split(" ")[0] for c in foreign[:200] if c.isalpha())
    return names.most_common(1)[0][0].title() if names else ""
