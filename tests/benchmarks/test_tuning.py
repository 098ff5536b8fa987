"""Coordinate search: each setting is tuned with the best values of the settings before it."""

from benchmarks.tuning import Search, best_of, search


def test_each_setting_is_tried_with_the_best_earlier_values_and_no_trial_is_repeated():
    asked = []

    def measure(settings):
        asked.append(dict(settings))
        return 10 * (settings["a"] == 2) + settings["b"], 0.5

    tried = search(Search(begin={"a": 1, "b": 1}, values={"a": (1, 2, 3), "b": (0, 1, 5)}), measure)
    # a = 2 is best with b = 1; (2, 1) is not tried again
    expected = [(1, 1), (2, 1), (3, 1), (2, 0), (2, 5)]
    assert [(settings["a"], settings["b"]) for settings in asked] == expected
    assert [one["validation"] for one in tried] == [1, 11, 1, 10, 15]
    assert best_of(tried) == {"settings": {"a": 2, "b": 5}, "validation": 15, "seconds": 0.5}
