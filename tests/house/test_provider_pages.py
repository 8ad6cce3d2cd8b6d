from __future__ import annotations

import pytest

from house.provider_pages import DOCS, MAKERS, page
from rejoinder.providers.asking.capabilities import CAPABILITIES


@pytest.mark.parametrize("name", MAKERS)
def test_the_tables_of_each_provider_are_those_of_the_code(name: str) -> None:
    text = (DOCS / f"{name}.md").read_text("utf-8")
    assert text == page(name, text), "run PYTHONPATH=src:tests python -m house.provider_pages"


def test_each_provider_has_a_page() -> None:
    assert set(MAKERS) == set(CAPABILITIES)
