"""Learn a byte-level BPE vocabulary: a small deterministic trainer for a few hundred words.

Source: Sennrich et al., arXiv 1508.07909, over the byte alphabet of GPT-2.
"""

import itertools
from collections import Counter
from collections.abc import Mapping

Pair = tuple[str, str]


def byte_alphabet() -> tuple[str, ...]:
    """GPT-2's printable character for each byte, which BPE files spell tokens with.

    Bytes that print stand for themselves, the other 68 for U+0100 and on.
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    hidden = [byte for byte in range(256) if byte not in printable]
    return tuple(
        chr(byte if byte in printable else 256 + hidden.index(byte)) for byte in range(256)
    )


def learn_merges(words: Mapping[str, int], *, max_merges: int) -> list[Pair]:
    """The merges that BPE finds in `words`, the most frequent pair first, ties by spelling.

    Args:
        words: word in the byte alphabet -> how often it occurs.
        max_merges: stop here, or earlier when every word is one token.
    """
    spellings = {word: list(word) for word in words}
    merges: list[Pair] = []
    while len(merges) < max_merges:
        counts: Counter[Pair] = Counter()
        for word, parts in spellings.items():
            for pair in itertools.pairwise(parts):
                counts[pair] += words[word]
        if not counts:
            break
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        spellings = {word: _merged(parts, best) for word, parts in spellings.items()}
    return merges


def _merged(parts: list[str], pair: Pair) -> list[str]:
    merged: list[str] = []
    for part in parts:
        if merged and (merged[-1], part) == pair:
            merged[-1] += part
        else:
            merged.append(part)
    return merged
