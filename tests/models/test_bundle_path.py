from hypothesis import given
from hypothesis import strategies as st

from models.bundle_path import check_contained
from models.errors import PathEscapes


@given(st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=5))
def test_any_accepted_path_stays_inside(parts: list[str]) -> None:
    path = "/".join(parts)
    try:
        check_contained(path)
    except PathEscapes:
        return
    assert ".." not in path.split("/")
    assert not path.startswith("/")
    assert all(part not in ("", ".") for part in path.split("/"))
