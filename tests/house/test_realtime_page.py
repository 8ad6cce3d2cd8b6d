from __future__ import annotations

from house.realtime_page import PAGE, page


def test_the_table_of_realtime_models_is_that_of_the_data() -> None:
    assert PAGE.read_text() == page(PAGE.read_text()), "run python -m house.realtime_page"
