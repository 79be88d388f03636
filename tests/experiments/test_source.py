"""What a chapter shows of a function: what runs, and its signature."""

from experiments.source import source


def plain(values: list[int]) -> int:
    """The greatest of some
    values."""
    # A comment stays.
    return max(values)


def bare(text: str) -> str:
    return f"""{text}"""


def test_the_docstring_is_left_out_and_the_signature_kept():
    assert source(plain).splitlines() == [
        "def plain(values: list[int]) -> int:",
        "    # A comment stays.",
        "    return max(values)",
    ]


def test_a_function_without_a_docstring_keeps_its_strings():
    assert source(bare) == 'def bare(text: str) -> str:\n    return f"""{text}"""'


def test_what_is_shown_still_runs():
    names = {}
    exec(source(plain), names)
    assert names["plain"]([1, 3, 2]) == 3
