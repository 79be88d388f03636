"""Question files of the four formats: contents, formats told apart, faults told by place."""

import bz2
import csv
import gzip
import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragbook.corpus import Question, load_questions
from ragbook.errors import InputError

NQ = (
    '{"question": "where does the rhine rise", "answer": ["Swiss Alps", "the Alps"], '
    '"gold_passage": "7"}\n{"question": "who wrote faust", "answer": ["Goethe"]}\n'
)
PARSED = [
    Question("where does the rhine rise", ("Swiss Alps", "the Alps"), "7"),
    Question("who wrote faust", ("Goethe",), None),
]
WITHOUT_GOLD = [Question(q.text, q.answers) for q in PARSED]
DPR = [
    {
        "question": "where does the rhine rise",
        "answers": ["Swiss Alps", "the Alps"],
        "positive_ctxs": [
            {"title": "Rhine", "text": "It rises there.", "passage_id": "7"},
            {"title": "Alps", "text": "They are high.", "passage_id": "8"},
        ],
        "negative_ctxs": [],
    },
    {"question": "who wrote faust", "answers": ["Goethe"], "positive_ctxs": []},
]
SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "Rhine",
            "paragraphs": [
                {
                    "context": "The Rhine rises in the Swiss Alps.",
                    "qas": [
                        {
                            "id": "a",
                            "question": "where does the rhine rise",
                            "answers": [
                                {"text": "Swiss Alps", "answer_start": 23},
                                {"text": "the Alps", "answer_start": 0},
                                {"text": "Swiss Alps", "answer_start": 23},
                            ],
                        },
                        {"id": "b", "question": "who drank it", "answers": []},
                        {
                            "id": "c",
                            "question": "who moved it",
                            "answers": [],
                            "is_impossible": True,
                            "plausible_answers": [{"text": "Swiss", "answer_start": 23}],
                        },
                    ],
                },
                {
                    "context": "Goethe wrote Faust.",
                    "qas": [
                        {
                            "id": "d",
                            "question": "who wrote faust",
                            "is_impossible": False,
                            "answers": [{"text": "Goethe", "answer_start": 0}],
                        }
                    ],
                },
            ],
        }
    ],
}
CSV = "where does the rhine rise\t['Swiss Alps', 'the Alps']\nwho wrote faust\t['Goethe']\n"


def put(folder, name, content):
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("nq.jsonl", NQ, PARSED),
        ("nq.json", NQ, PARSED),  # JSON lines under another name
        ("nq.json", NQ.splitlines()[0], PARSED[:1]),
        ("nq", NQ, PARSED),
        ("nq.jsonl", NQ.replace('"answer"', '"answers"'), PARSED),
        ("nq.json", json.dumps(DPR), PARSED),
        ("nq.json", json.dumps(DPR, indent=4).replace("passage_id", "psg_id"), PARSED),
        ("nq.txt", json.dumps(DPR), PARSED),
        ("nq.json", json.dumps(SQUAD), WITHOUT_GOLD),
        ("nq.json", json.dumps(SQUAD, indent=1), WITHOUT_GOLD),
        ("nq.csv", CSV, WITHOUT_GOLD),
        ("nq.tsv", CSV.replace("\n", "\r\n"), WITHOUT_GOLD),
        ("nq.txt", CSV, WITHOUT_GOLD),
    ],
)
def test_every_format_gives_the_same_questions(tmp_path, name, content, expected, zipped):
    data = content.encode()
    path = put(tmp_path, name + ".gz" * zipped, gzip.compress(data) if zipped else data)
    found = load_questions(str(path))
    assert list(found) == expected
    assert (found.name, found.split) == ("nq", "all")
    assert load_questions(path, "dev").split == "dev"


def test_unanswerable_squad_questions_are_left_out_and_counted(tmp_path):
    assert load_questions(put(tmp_path, "squad.json", json.dumps(SQUAD))).skipped == 2
    assert load_questions(put(tmp_path, "nq.jsonl", NQ)).skipped == 0


def test_dpr_passage_ids_may_be_numbers_or_missing(tmp_path):
    entries = [
        {"question": "a", "answers": ["b"], "positive_ctxs": [{"psg_id": 7}]},
        {"question": "a", "answers": ["b"], "positive_ctxs": [{"title": "no id"}]},
        {"question": "a", "answers": ["b"]},
    ]
    found = load_questions(put(tmp_path, "dpr.json", json.dumps(entries)))
    assert [question.gold_passage for question in found] == ["7", None, None]


texts = st.text(st.characters(exclude_categories=["Cs"])) | st.text("\"\t\n\r, a'\\[]")
words = texts.filter(str.strip)
question_lists = st.lists(
    st.builds(
        Question, words, st.lists(words, min_size=1, unique=True).map(tuple), st.none() | words
    ),
    min_size=1,
)


@given(question_lists, st.booleans())
def test_jsonl_round_trip(tmp_path_factory, expected, ascii_only):
    lines = [
        json.dumps(
            {"question": q.text, "answer": q.answers, "gold_passage": q.gold_passage},
            ensure_ascii=ascii_only,
        )
        for q in expected
    ]
    path = put(tmp_path_factory.mktemp("nq"), "nq.jsonl", "\n".join(lines))
    assert list(load_questions(path)) == expected


@given(question_lists)
def test_dpr_csv_round_trip(tmp_path_factory, expected):
    table = io.StringIO()
    csv.writer(table, delimiter="\t").writerows([q.text, str(list(q.answers))] for q in expected)
    path = put(tmp_path_factory.mktemp("dpr"), "q.csv", table.getvalue())
    try:
        found = list(load_questions(path))
    except InputError as error:  # a column that may hold whole rows
        if "joined" not in str(error) or not any(
            "\n" in q.text and "\t" in q.text for q in expected
        ):
            raise
    else:
        assert found == [Question(q.text, q.answers) for q in expected]


@given(question_lists)
def test_json_round_trips(tmp_path_factory, expected):
    folder = tmp_path_factory.mktemp("json")
    dpr = [
        {"question": q.text, "answers": q.answers}
        | ({"positive_ctxs": [{"passage_id": q.gold_passage}]} if q.gold_passage else {})
        for q in expected
    ]
    assert list(load_questions(put(folder, "dpr.json", json.dumps(dpr)))) == expected
    qas = [{"question": q.text, "answers": [{"text": a} for a in q.answers]} for q in expected]
    squad = {"data": [{"paragraphs": [{"context": "", "qas": qas}]}]}
    found = load_questions(put(folder, "squad.json", json.dumps(squad)))
    assert list(found) == [Question(q.text, q.answers) for q in expected]


def squad_of(qa):
    return json.dumps({"data": [{"paragraphs": [{"qas": [SQUAD_QA]}, {"qas": [SQUAD_QA, qa]}]}]})


DPR_GOLD = '[{{"question": "a", "answers": ["b"], "positive_ctxs": [{{"psg_id": {}}}]}}]'
SQUAD_QA = {"question": "who wrote faust", "answers": [{"text": "Goethe"}]}
PLACE = "article 1, paragraph 2, question 2"


@pytest.mark.parametrize(
    ("name", "content", "place", "said"),
    [
        ("q.jsonl", NQ + '{"question": "a", "answer": {"b": "c"}}', "line 3", "list of answers"),
        ("q.jsonl", NQ + '{"question": "a", "answer": 7}', "line 3", "list of answers"),
        ("q.jsonl", NQ + '{"question": "a", "answer": [1]}', "line 3", "must be a string"),
        ("q.jsonl", NQ + '\n{"question": "a", "answer": [" "]}', "line 4", "answer is empty"),
        ("q.jsonl", '{"question": "", "answer": ["b"]}', "line 1", '"question" is empty'),
        ("q.jsonl", '{"question": 5, "answer": ["b"]}', "line 1", "must be a string"),
        ("q.jsonl", '{"answer": ["b"]}', "line 1", '"question" is missing'),
        (
            "q.jsonl",
            '{"question": "a", "answer": ["b"], "gold_passage": [{}]}',
            "line 1",
            "must be a string or a number",
        ),
        ("q.jsonl", NQ + "nonsense", "line 3", "JSON"),
        ("q.jsonl", b'{"question": "\xe9"}', "line 1", "UTF-8"),
        ("q.csv", CSV + "who wrote faust\n", "line 3", "1 columns"),
        ("q.csv", CSV + "who\t['a']\t['b']\n", "line 3", "3 columns"),
        ("q.csv", CSV + "who wrote faust\tGoethe\n", "line 3", "list such as"),
        ("q.csv", CSV + "who wrote faust\t['Goethe'\n", "line 3", "list such as"),
        ("q.csv", CSV + "who wrote faust\t('Goethe',)\n", "line 3", "list such as"),
        ("q.csv", CSV + "who wrote faust\t[print()]\n", "line 3", "list such as"),
        ("q.csv", CSV + " \t['Goethe']\n", "line 3", "question is empty"),
        ("q.csv", CSV + "\"who\" wrote\t['Goethe']\n", "line 3", "quotes"),
        ("q.csv", "\"who\t['a']\nwhat\"\t['b']\n", "line 1", "joined"),
        ("q.csv", CSV + f"who\t['a', {'1' * 5_000}]\n", "line 3", "list such as"),
        ("q.csv", CSV.replace("\n", "\r"), "line 1", "carriage returns"),
        ("q.json", NQ.replace("\n", "\r"), "line 1", "carriage returns"),
        ("q.jsonl", '{"question": "a", "x": ' + "1" * 5_000 + "}", "line 1", "digits"),
        ("q.json", DPR_GOLD.format('{"a": 1}'), "entry 1", "a string or a number"),
        ("q.json", DPR_GOLD.format("1.5"), "entry 1", "a string or a number"),
        ("q.json", DPR_GOLD.format("true"), "entry 1", "a string or a number"),
        ("q.json", DPR_GOLD.format('"\\ud800"'), "entry 1", "surrogate"),
        ("q.json", '[\n{"question": "a",\n}]', "line 3", "JSON"),
        ("q.json", json.dumps([*DPR, "a"]), "entry 3", "object"),
        ("q.json", json.dumps([*DPR, {"answers": ["a"]}]), "entry 3", '"question" is missing'),
        ("q.json", json.dumps([{"question": "", "answers": ["b"]}]), "entry 1", "is empty"),
        (
            "q.json",
            json.dumps([{"question": "a", "answers": ["b"], "positive_ctxs": ["c"]}]),
            "entry 1",
            "positive_ctxs",
        ),
        ("q.json", squad_of({"question": "a"}), PLACE, '"answers" is missing'),
        ("q.json", squad_of({"answers": [{"text": "a"}]}), PLACE, '"question" is missing'),
        ("q.json", squad_of({"question": " ", "answers": [{"text": "a"}]}), PLACE, "is empty"),
        ("q.json", squad_of({"question": "a", "answers": ["b"]}), PLACE, "must be a string"),
        ("q.json", '{"data": [{"title": "a"}]}', "article 1", '"paragraphs" is missing'),
    ],
)
def test_a_malformed_entry_is_told_by_file_and_place(tmp_path, name, content, place, said):
    path = put(tmp_path, name, content)
    with pytest.raises(InputError) as caught:
        load_questions(path)
    assert str(caught.value).startswith(f"{path}, {place}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("q.jsonl", "", "holds no question"),
        ("q.json", "", "is empty"),
        ("q.csv", "\n", "holds no question"),
        ("q.json", "[]", "holds no question"),
        ("q.json", '{"data": []}', "holds no question"),
        ("q.json", '{"who": []}', '"question" is missing'),
        ("q.json", "5", "not known"),
        ("q.json", "[" * 100_000, "JSON"),
        ("q.json", "[" + "1" * 5_000 + "]", "digits"),
        ("q.json", DPR_GOLD.format("1" * 5_000), "digits"),
        ("q.csv.bz2", bz2.compress(CSV.encode())[:-9], "cannot be read"),
        ("q.md", "who wrote faust", "not known"),
        ("q.json.gz", gzip.compress(b"[" + b" " * 99, mtime=0)[:-9], "cannot be read"),
    ],
)
def test_a_file_that_is_no_question_set_is_refused_by_name(tmp_path, name, content, said):
    path = put(tmp_path, name, content)
    with pytest.raises(InputError, match=said) as caught:
        load_questions(path)
    assert str(path) in str(caught.value)


def test_missing_files_and_folders_are_refused_by_name(tmp_path):
    with pytest.raises(InputError, match=r"no file .*missing\.jsonl"):
        load_questions(tmp_path / "missing.jsonl")
    with pytest.raises(InputError, match="folder"):
        load_questions(tmp_path)
    with pytest.raises(InputError, match="train, dev, test"):
        load_questions("miniwiki", "heldout")
