"""Decodings whose rows are all known beforehand, kept until somebody asks for them.

A decoder in many packages is run package by package where it can be, each opened once for all
sequences, instead of through all packages for every token.
"""

from collections.abc import Callable, Sequence

from reference.decoding import Ids, Logits, Session
from validation.runtimes.base import Floats

Key = tuple[tuple[int, ...], bytes]


class ForeseenLogits:
    """Logits [pieces, V] by the rows that led to them, bit for bit."""

    def __init__(self) -> None:
        self._found: dict[tuple[Key, ...], Floats] = {}

    def add(self, pieces: Sequence[Floats], logits: Floats) -> None:
        """Keep what came of `pieces`, [L, H] each."""
        self._found[tuple(map(_key, pieces))] = logits

    def after(self, pieces: Sequence[Floats]) -> Floats | None:
        """What came of exactly these pieces, [pieces, V]."""
        return self._found.get(tuple(map(_key, pieces)))

    def beginning(self, prompt: Floats) -> "Foreseen | None":
        """What is known of a decoding of the prompt [L, H]."""
        begun = [keys for keys in self._found if keys[0] == _key(prompt)]
        if not begun:
            return None
        keys = max(begun, key=len)
        return Foreseen(keys[1:], self._found[keys])


class Foreseen:
    """One decoding: what comes of its prompt, and of further rows as long as they are as foreseen.

    Args:
        keys: of the rows behind the prompt.
        logits: [1 + rows, V].
    """

    def __init__(self, keys: Sequence[Key], logits: Floats) -> None:
        self._keys = keys
        self._logits = logits

    def at(self, position: int, row: Floats) -> Logits | None:
        """Logits [V] after a row [H] at a position behind the prompt; None if it is another row."""
        if position >= len(self._keys) or self._keys[position] != _key(row[None]):
            return None
        logits: Logits = self._logits[position + 1]
        return logits

    def first(self) -> Logits:
        """Logits [V] after the prompt."""
        logits: Logits = self._logits[0]
        return logits


class ForeseenSession:
    """A `Session` that answers from what is foreseen, and decodes from the first other token on.

    Args:
        foreseen: of this prompt.
        embed: token ids [B] -> embeddings [B, H].
        open_session: begins the decoding that is run if need be.
    """

    def __init__(
        self,
        foreseen: Foreseen,
        embed: Callable[[Ids], Floats],
        open_session: Callable[[], Session],
    ) -> None:
        self._foreseen = foreseen
        self._embed = embed
        self._open_session = open_session
        self._taken: list[Ids] = []
        self._session: Session | None = None

    def start(self) -> Logits:
        """Logits after the prompt, float32 [1, V]."""
        return self._foreseen.first()[None]

    def step(self, token_ids: Ids) -> Logits:
        """Appends one token per row, [B]; the next logits, float32 [B, V]."""
        if self._session is None and len(token_ids) == 1:
            logits = self._foreseen.at(len(self._taken), self._embed(token_ids)[0])
            if logits is not None:
                self._taken.append(token_ids)
                return logits[None]
        return self._decoding().step(token_ids)

    def select(self, rows: Ids) -> None:
        """Row i becomes row `rows[i]`."""
        self._decoding().select(rows)

    def _decoding(self) -> Session:
        """Caught up with what was taken."""
        if self._session is None:
            self._session = self._open_session()
            self._session.start()
            for token_ids in self._taken:
                self._session.step(token_ids)
        return self._session


def _key(rows: Floats) -> Key:
    return rows.shape, rows.tobytes()
