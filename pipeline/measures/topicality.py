"""Whether a passage is about a query, by the words they share: the judge's only notion of topic."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final

import Stemmer

_TOKEN: Final = re.compile(r"[^\W_]+(?:['’][a-z]+)?")
_STEMMER: Final = Stemmer.Stemmer("english")

STOPWORDS: Final = frozenset(
    """a about after all also am an and any are aren't as at be because been before being between both but by can can't
    cannot could did didn't do does doesn't doing don't down during each few for from further get gets getting got had
    has have having he her here hers him his how how's i if in into is isn't it it's its itself just let me more most my
    no nor not of off on once one only or other our ours out over own per same she should shouldn't so some such than
    that that's the their theirs them then there there's these they this those through to too u under until up upon us
    use used using very vs was wasn't we were what what's when when's where where's which while who who's whom whose why
    will with within without won't would you your yours
    """.split()
)

# Words that shape a question and seldom stand in its answer; chosen from the query words that MS MARCO's judged
# passages lack most often.
GENERIC: Final = frozenset(
    """achieve actually age amount another answer area average back bad become begin best better big biggest
    called calories cause caused causes change charge cheap cheapest come common compare consider considered contain
    contains convert cost costs county current date day days decide define defined definition describe description
    determine difference differences different does duration earn easy effect effects eat entail example examples explain
    fact facts far fast favorite feel find first give go good google great happen happened happens hard height help high
    highest hours identify important include included instructions keep kind kinds know large largest last latest
    length like list live located location long longest look made main major make makes making many max maximum mean
    meaning means meant members method minimum month months most much name named names need needed new normal number
    occur old online origin paid part pay people percent percentage person phone place play population price prices
    process purpose put quickly rate reason reasons recommended related require required requirements requires run safe
    salary say season see show sign signs similar size small someone start starts stay stop stand stands steps symptom
    symptoms synonym synonyms take takes tall tell term terms thing things time times today top total town turn two type
    types typical typically typically understand usually value wage want way ways weather weigh week weight well went
    wide word words work worth year years zip code much cast mostly used active affect affects anything away
    benefit benefits biology birthday body born came consist consists created daily eaten ever famous following found
    founded four function home involved key kids law laws life math medical medicine microbiology military money movie
    must nationality parts passed physical popular prescribed quicker quizlet recently recorded role sang science
    significance sings soon source started statistics state telephone temp treat twenty usa web wrote
    """.split()
)



@lru_cache(maxsize=65536)
def stem(word: str) -> str:
    """The Snowball stem of a word, lower case and without a possessive."""
    return str(_STEMMER.stemWord(re.sub(r"['’]s?$", "", word.lower())))


def tokens(text: str) -> list[str]:
    """The words of a text, in order, as they stand there."""
    return _TOKEN.findall(text)


def stems(text: str) -> frozenset[str]:
    """The stems of all words of a text."""
    return frozenset(map(stem, _TOKEN.findall(text)))


@lru_cache(maxsize=8192)
def key_terms(query: str) -> tuple[str, ...]:
    """The query's content words, most telling first: no stop words, no generic ones unless there are no others.

    Telling is longer stem first: the longest specific word stands in 89 % of MS MARCO's judged dev passages, the
    first in 87 %, the last in 84 %. Words with one stem count once. Empty only for a query of stop words.
    """
    words = [word.lower() for word in tokens(query)]
    content = [word for word in words if word not in STOPWORDS] or words
    specific = [word for word in content if word not in GENERIC] or content
    by_stem = {stem(word): word for word in reversed(specific)}
    return tuple(sorted(by_stem.values(), key=lambda word: (-len(stem(word)), word)))


def covers(passage_stems: frozenset[str], term: str) -> bool:
    """Whether the passage holds the term: its stem, or for longer words a stem with the same first five letters."""
    root = stem(term)
    return root in passage_stems or (len(root) >= 6 and any(s.startswith(root[:5]) for s in passage_stems))


def covered_terms(query: str, passage: str) -> tuple[str, ...]:
    """Those of the query's key terms that the passage holds, most telling first."""
    found = stems(passage)
    return tuple(term for term in key_terms(query) if covers(found, term))


def on_topic(query: str, passage: str) -> bool:
    """Whether the passage holds the query's most telling term, or any two of its other key terms.

    The leading term alone decides in queries of one or two key terms, so that replacing it moves a query off a
    passage; longer queries have a second chance. On MS MARCO's dev pairs the judged passage passes in 94.9 % and a
    passage of another query in 0.8 %.
    """
    terms = key_terms(query)
    covered = covered_terms(query, passage)
    return bool(covered) and (covered[0] == terms[0] or len(covered) >= 2)
