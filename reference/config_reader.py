"""Reads a JSON object key by key, and knows which keys nobody has read."""

import difflib
from collections.abc import Mapping
from typing import TypeVar

from reference.errors import ConfigError

T = TypeVar("T")


class ConfigReader:
    """Typed access to one JSON object; `finish` rejects what was neither read nor ignored.

    Args:
        raw: the decoded object.
        source: what to call it in messages.
    """

    def __init__(self, raw: Mapping[str, object], *, source: str) -> None:
        self._raw = raw
        self._seen: set[str] = set()
        self.source = source

    def integer(self, key: str, *, default: int | None = None) -> int:
        """A whole number above zero; required unless `default` is given."""
        value = self._take(key)
        if value is None:
            value = self._required(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self._wrong(key, value, "a whole number above zero")
        return value

    def optional_integer(self, key: str) -> int | None:
        """A whole number, or None where the key is absent or null."""
        value = self._take(key)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
            raise self._wrong(key, value, "a whole number")
        return value

    def number(self, key: str, *, default: float) -> float:
        """A finite number above zero."""
        value = self._take(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
            raise self._wrong(key, value, "a number above zero")
        return float(value)

    def integers(self, key: str, *, default: tuple[int, ...] | None = None) -> tuple[int, ...]:
        """A list of whole numbers above zero."""
        value = self._take(key)
        if value is None:
            return tuple(self._required(key, default))
        if not isinstance(value, list | tuple) or not all(
            isinstance(item, int) and not isinstance(item, bool) and item > 0 for item in value
        ):
            raise self._wrong(key, value, "a list of whole numbers above zero")
        return tuple(value)

    def string(self, key: str) -> str:
        """A required string."""
        value = self._take(key)
        if value is None:
            value = self._required(key, None)
        if not isinstance(value, str):
            raise self._wrong(key, value, "a string")
        return value

    def choice(self, key: str, known: tuple[str, ...], *, default: str | None = None) -> str:
        """A string that must be one of `known`."""
        value = self._take(key)
        if value is None:
            value = self._required(key, default)
        if value not in known:
            raise ConfigError(
                f"{self.source}: {key} is {value!r}, which FastVLM does not have",
                hint=f"known: {', '.join(known)}",
            )
        return str(value)

    def optional_boolean(self, key: str) -> bool | None:
        """true, false, or None where the key is absent or null."""
        value = self._take(key)
        if value is not None and not isinstance(value, bool):
            raise self._wrong(key, value, "true or false")
        return value

    def fixed(self, key: str, *, expected: bool | int) -> None:
        """Accept the key only with the one value that this architecture computes."""
        value = self._take(key)
        if value is not None and (
            value != expected or isinstance(value, bool) != isinstance(expected, bool)
        ):
            raise self._wrong(key, value, f"{expected!r}, the only value this architecture has")

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them; empty where the key is absent."""
        value = self._take(key)
        if value is None:
            return ()
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in ids):
            raise self._wrong(key, value, "a token id or a list of token ids")
        return tuple(ids)

    def rope_theta(self) -> float:
        """The rotary base, flat or inside `rope_parameters`; any scaling is refused."""
        if self._take("rope_scaling") is not None:
            raise ConfigError(f"{self.source}: rope_scaling is set, FastVLM's Qwen2 has none")
        parameters = self.optional_section("rope_parameters")
        flat = self.number("rope_theta", default=1e6)
        if parameters is None:
            return flat
        parameters.choice("rope_type", ("default",), default="default")
        theta = parameters.number("rope_theta", default=flat)
        parameters.finish()
        return theta

    def section(self, key: str) -> "ConfigReader":
        """A required nested object."""
        nested = self.optional_section(key)
        if nested is None:
            self._required(key, None)
            raise AssertionError("unreachable: a missing section is an error")
        return nested

    def optional_section(self, key: str) -> "ConfigReader | None":
        """A nested object, or None where the key is absent or null."""
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise self._wrong(key, value, "an object")
        return ConfigReader(value, source=f"{self.source}: {key}")

    def ignore(self, *keys: str) -> None:
        """Accept these keys, whatever they say."""
        self._seen.update(keys)

    def finish(self) -> None:
        """Raise for a key that nobody read or ignored."""
        unknown = sorted(set(self._raw) - self._seen)
        if not unknown:
            return
        near = difflib.get_close_matches(unknown[0], sorted(self._seen), n=1)
        raise ConfigError(
            f"{self.source}: unknown key {', '.join(map(repr, unknown))}",
            hint=f"did you mean {near[0]!r}?"
            if near
            else "it may change the computation; remove it from the config if it does not",
        )

    def _take(self, key: str) -> object:
        self._seen.add(key)
        return self._raw.get(key)

    def _required(self, key: str, default: T | None) -> T:
        if default is None:
            raise ConfigError(f"{self.source}: the key {key!r} is missing")
        return default

    def _wrong(self, key: str, value: object, expected: str) -> ConfigError:
        return ConfigError(f"{self.source}: {key} is {value!r}, expected {expected}")
