from training.datasets.reading import Reading, Skipped


def test_a_reading_tells_counts_by_reason_and_the_first_places() -> None:
    skipped = [Skipped("line 99", "is not JSON"), *(Skipped(f"line {n}", "is empty") for n in range(12))]
    reading = Reading(50, tuple(skipped), duplicates=3, conflicting=2, straddling=1)
    assert reading.lines() == [
        "50 examples read, 13 skipped",
        "12 skipped: is empty (line 0, line 1, line 2, line 3, line 4, line 5, line 6, line 7, line 8, line 9 "
        "and 2 more)",
        "1 skipped: is not JSON (line 99)",
        "3 dropped: the same as an example before them",
        "1 dropped: the same input is in test or validation too",
        "2 kept, but the same input has more than one label",
    ]


def test_a_reading_without_trouble_is_one_line() -> None:
    assert Reading(7, ()).lines() == ["7 examples read, 0 skipped"]


def test_a_reading_tells_what_to_do_about_the_encoding() -> None:
    reading = Reading(7, (Skipped("line 2", "is not UTF-8"),), notes=("a note",))
    assert reading.lines()[1:] == ["1 skipped: is not UTF-8 (line 2); save the file as UTF-8", "a note"]


def test_a_reading_with_many_reasons_stays_short() -> None:
    reading = Reading(20, tuple(Skipped(f"line {n}", f"has {n} fields") for n in range(15)))
    assert len(reading.lines()) == 12
    assert reading.lines()[-1] == "5 skipped for other reasons"
