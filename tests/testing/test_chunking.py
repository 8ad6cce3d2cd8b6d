from __future__ import annotations

import importlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

import rejoinder.testing
from rejoinder.errors import WireError
from rejoinder.testing import byte_by_byte, every_cut, outcome, random_cuts, sized_cuts


@given(data=st.binary(max_size=60), seed=st.integers(0, 50), sizes=st.lists(st.integers(0, 9)))
def test_cuts_lose_nothing(data: bytes, seed: int, sizes: list[int]) -> None:
    for pieces in (*every_cut(data), random_cuts(data, seed=seed), sized_cuts(data, sizes)):
        assert b"".join(pieces) == data
    assert all(len(piece) == 1 for piece in byte_by_byte(data))
    assert random_cuts(data, seed=seed) == random_cuts(data, seed=seed)


def test_every_cut_is_there() -> None:
    cuts = list(every_cut(b"abc"))
    assert cuts == [[b"abc"], [b"a", b"b", b"c"], [b"a", b"bc"], [b"ab", b"c"]]


class Careless:
    """A decoder that forgets its error."""

    failure = None

    def feed(self, data: bytes) -> list[int]:
        if data:
            raise WireError("no")
        return []

    def close(self) -> list[int]:
        return []


def test_a_decoder_that_forgets_its_error_is_caught() -> None:
    with pytest.raises(AssertionError, match="accepted more"):
        outcome(Careless, [b"x"])


def test_every_name_can_be_imported_in_any_order() -> None:
    for name in rejoinder.testing.__all__:
        home = rejoinder.testing._HOMES[name]
        module = importlib.import_module(f"rejoinder.testing.{home}")
        assert getattr(rejoinder.testing, name) is getattr(module, name)
    assert sorted(rejoinder.testing.__all__) == sorted(rejoinder.testing._HOMES)
    assert dir(rejoinder.testing) == sorted(rejoinder.testing.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = rejoinder.testing.nonsense  # type: ignore[attr-defined]
