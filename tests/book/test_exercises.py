"""The checks of the exercises: what is right passes, what is wrong or missing is told apart."""

from exercises import exercise


@exercise
def _two(answer):
    if answer() != 2:
        raise AssertionError("one and one")


def test_a_verdict_is_printed_and_nothing_raised(capsys):
    def unwritten():
        raise NotImplementedError

    for answer in (lambda: 2, lambda: 3, unwritten):
        _two(answer)
    assert capsys.readouterr().out.splitlines() == [
        "Right.",
        "Not right yet: one and one",
        "Not written yet.",
    ]
