from training.datasets import cmudict


def test_the_dictionary_is_split_by_word_and_keeps_every_way_to_say_one() -> None:
    parts = cmudict.load()
    assert {part: len(pairs) for part, pairs in parts.items()} == {
        "train": 112_372, "validation": 6_306, "test": 6_222,
    }  # fmt: skip
    targets = {pair.source: pair.targets for pairs in parts.values() for pair in pairs}
    assert len(targets) == 124_900
    assert targets["read"] == ("R EH1 D", "R IY1 D")
    assert cmudict.without_stress("R EH1 D AH0") == "R EH D AH"
