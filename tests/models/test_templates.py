"""Prompts as data: what a file may say, how demonstrations are drawn, what an encoder reads."""

import json

import pytest

from ragbook.corpus import Passage, Question
from ragbook.errors import InputError
from ragbook.models.templates import (
    TEMPLATES,
    Demonstration,
    Template,
    TemplateLayout,
    draw_demonstrations,
    fill,
    load_template,
)
from tests.checkpoints import tokenizer_of

PASSAGE = Passage("a", "Lake Velm", "It lies in {text} Ordania.")


def test_slots_are_filled_and_other_braces_stay():
    text = fill("{title}: {text} {other}", title="T {text}", text="words")
    assert text == "T {text}: words {other}"  # what a passage says is no slot
    assert fill("{question}", question="{title}?") == "{title}?"


@pytest.mark.parametrize("suffix", [".toml", ".json"])
def test_a_file_gives_fields_and_the_others_keep_their_defaults(tmp_path, suffix):
    path = tmp_path / f"prompt{suffix}"
    given = {"passage": "<{text}>\n", "demonstrations": 2}
    if suffix == ".json":
        path.write_text(json.dumps(given))
    else:
        path.write_text('passage = "<{text}>\\n"\ndemonstrations = 2\n')
    assert load_template(str(path)) == Template(passage="<{text}>\n", demonstrations=2)
    assert load_template("t5") is TEMPLATES["t5"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("passage = ", "not valid TOML"),
        ('passages = "{text}"', "has the unknown field 'passages'"),
        ("demonstrations = true", "must be a whole number"),
        ("demonstrations = -1", "must be a whole number"),
        ("chat = 1", "must be true or false"),
        ("answer = 3", "must be a text"),
        ('passage = "{title}"', r"must contain \{text\}"),
        ('question = "Why?"', r"must contain \{question\}"),
    ],
)
def test_a_wrong_file_is_said_in_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "prompt.toml"
    path.write_text(text)
    with pytest.raises(InputError, match=sentence) as refused:
        load_template(str(path))
    assert str(path) in str(refused.value)
    with pytest.raises(InputError, match="no prompt 'nowhere'; choose base, few-shot, chat, t5"):
        load_template("nowhere")


def test_demonstrations_are_drawn_by_seed_and_never_asked():
    questions = [Question(f"Q {i}?", (f"A {i}",), f"p{i}" if i % 3 else None) for i in range(30)]
    passages = [Passage(f"p{i}", "", "text") for i in range(30)]
    asked = [Question(" q 4? ", ()), *questions[5:20]]
    drawn = {seed: draw_demonstrations(questions, passages, 4, seed, asked) for seed in range(20)}
    assert drawn[0] == draw_demonstrations(questions, passages, 4, 0, asked)
    assert len(set(drawn.values())) > 15
    hidden = {"Q 4?", *(q.text for q in questions[5:20])}
    shown = {one.question for some in drawn.values() for one in some}
    assert not shown & hidden
    assert len(shown) > 8
    assert all(one.passage is not None for some in drawn.values() for one in some)
    assert all(one.answer == f"A {one.question[2:-1]}" for one in drawn[3])
    with pytest.raises(InputError, match="there are 14 questions"):
        draw_demonstrations(questions, passages, 15, 0, asked)


def test_an_encoder_reads_the_same_prompt_and_the_question_stays():
    tokenizer = tokenizer_of("t5")
    shown = (Demonstration("Who?", "Oda", Passage("b", "B", "Oda was here.")),)
    template = Template("Read.\n", "{title} | {text}\n", "{question}\n", demonstrations=1)
    layout = TemplateLayout(template, shown)
    inputs = layout(tokenizer, ["Where is it?"], [PASSAGE])
    ids = inputs.tensors["input_ids"][0].tolist()
    whole = (
        "Read.\nB | Oda was here.\nWho?\nAnswer: Oda\n"
        f"Lake Velm | {PASSAGE.text}\nWhere is it?\nAnswer:"
    )
    assert ids == tokenizer(whole)["input_ids"]
    long = Passage("l", "Long", "word " * 900)
    inputs = layout(tokenizer, ["Where is it?"], [long])
    assert inputs.mask.sum() == layout.max_input
    read = "".join(tokenizer.decode(inputs.tensors["input_ids"][0]))
    assert read.startswith("Read.\nB ")
    assert read.endswith("\nWhere is it<unk>\nAnswer:</s>")  # the small vocabulary has no "?"
    assert inputs.passage_mask[0].sum() > 200
