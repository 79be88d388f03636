"""What a chapter shows of a function: the signature and the body."""

from experiments.source import shown

from ragbook.methods.knn_lm import interpolate


def _documented(
    a: int,
    b: int = 2,
) -> int:
    """Says one thing,

    and another: "quoted".
    """
    text = """no docstring"""
    return a + b + len(text)


def _plain(a: int) -> int:
    return a


def test_the_signature_and_the_body_are_shown_and_the_docstring_is_not():
    assert shown(_documented) == (
        "def _documented(\n    a: int,\n    b: int = 2,\n) -> int:\n"
        '    text = """no docstring"""\n    return a + b + len(text)'
    )


def test_a_function_without_docstring_is_shown_whole():
    assert shown(_plain) == "def _plain(a: int) -> int:\n    return a"


def test_what_is_shown_computes_the_same():
    import torch

    names = {"torch": torch, "Tensor": torch.Tensor}
    exec(shown(interpolate), names)
    given = torch.tensor([0.2, 0.8]).log(), torch.tensor([1.0, 0.0]).log(), 0.25
    assert torch.equal(names["interpolate"](*given), interpolate(*given))
