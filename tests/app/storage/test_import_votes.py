"""Votes made elsewhere become a closed study, and a file with a bad line leaves nothing behind."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest

from app.__main__ import main
from app.schemas.study import StudySettings
from app.storage import import_votes
from app.storage.database import Store
from app.storage.import_votes import import_file, import_upload
from app.storage.vote_file import read_votes
from engine import InputError

HEAD = "item,left,right,winner,annotator\n"
# 8,931 votes of crowd workers (dustalov/evalica), not a part of this project.
LLMFAO = Path(
    os.environ.get("LLMFAO_COMPARISONS", Path(__file__).parents[4] / "shared" / "data" / "llmfao-comparisons.csv")
)


def cast(text: str, name: str = "votes.csv", columns: dict[str, str] | None = None) -> list[tuple]:
    return [
        (vote.item, vote.left, vote.right, vote.choice, vote.annotator)
        for vote in read_votes(name, text.encode(), columns)
    ]


@pytest.mark.parametrize(
    ("winner", "choice"),
    [
        ("left", "left"), ("right", "right"), ("Left", "left"), (" right ", "right"), ("A", "left"), ("B", "right"),
        ("1", "left"), ("2", "right"), ("model_a", "left"), ("model_b", "right"), ("model_x", "left"),
        ("model_y", "right"), ("tie", "tie"), ("Tie", "tie"), ("both_bad", "both_bad"), ("both bad", "both_bad"),
        ("Both Bad", "both_bad"), ("tie (bothbad)", "both_bad"), ("bothbad", "both_bad"), ("gpt", "left"),
        ("llama 2", "right"),
    ],
)  # fmt: skip
def test_the_winner_is_a_side_a_word_or_a_name(winner: str, choice: str) -> None:
    assert cast(f"{HEAD}q,gpt,llama 2,{winner},anna\n") == [("q", "gpt", "llama 2", choice, "anna")]


def test_a_name_that_is_a_word_for_the_same_side_is_clear_and_for_the_other_is_not() -> None:
    assert cast(f"{HEAD}q,A,B,B,anna\n")[0][3] == "right"
    with pytest.raises(InputError, match=r"votes.csv, line 2: winner: 'A' is also the name of the system on the right"):
        cast(f"{HEAD}q,B,A,A,anna\n")


@pytest.mark.parametrize(
    ("columns", "row"),
    [
        ("question_id,model_a,model_b,winner,judge", "q,gpt,llama,model_a,anna"),
        ("item_id,model_left,model_right,choice,worker", "q,gpt,llama,left,anna"),
        ("prompt,model_x,model_y,worker,winner,left,right", "q,1,2,anna,left,gpt,llama"),
        ("Item,LEFT,Right,winner ,Annotator", "q,gpt,llama,left,anna"),
        ("id,item,left,right,winner,annotator,user", "7,q,gpt,llama,left,anna,other"),
    ],
)
def test_columns_are_found_by_their_common_names(columns: str, row: str) -> None:
    assert cast(f"{columns}\n{row}\n") == [("q", "gpt", "llama", "left", "anna")]


def test_columns_may_be_named() -> None:
    text = "text,one,two,better,by\nq,gpt,llama,1,anna\n"
    columns = {"item": "text", "left": "one", "right": "two", "winner": "Better", "annotator": "by"}
    assert cast(text, columns=columns) == [("q", "gpt", "llama", "left", "anna")]
    # And a named one comes before a common one.
    text = "item,id,left,right,winner,annotator\nq,7,gpt,llama,left,anna\n"
    assert cast(text, columns={"item": "id"})[0][0] == "7"


def test_json_lines_parquet_and_tables_with_tabs_hold_the_same_votes(tmp_path: Path) -> None:
    import pandas

    rows = [
        {"item": 1, "left": "gpt", "right": "llama", "winner": 2, "annotator": 58},
        {"item": 2, "left": "llama", "right": "gpt", "winner": "tie", "annotator": 59},
    ]
    expected = [("1", "gpt", "llama", "right", "58"), ("2", "llama", "gpt", "tie", "59")]
    lines = "\n\n".join(json.dumps(row) for row in rows)
    assert cast(lines, "votes.jsonl") == cast(json.dumps(rows), "votes.json") == expected
    table = pandas.DataFrame([{**row, "winner": str(row["winner"])} for row in rows])
    assert cast(table.to_csv(index=False, sep="\t"), "votes.tsv") == expected
    table.to_parquet(tmp_path / "votes.parquet")
    data = (tmp_path / "votes.parquet").read_bytes()
    assert [vote.choice for vote in read_votes("votes.parquet", data)] == ["right", "tie"]
    zipped = gzip.compress(lines.encode())
    assert [vote.annotator for vote in read_votes("votes.jsonl.gz", zipped)] == ["58", "59"]


def test_prompts_may_be_conversations() -> None:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}, {"role": "user", "content": "c"}]
    row = {"item": "i", "prompt": turns, "left": "x", "right": "y", "winner": "left", "annotator": "anna"}
    (vote,) = read_votes("v.jsonl", json.dumps(row).encode())
    assert vote.prompt == turns
    with pytest.raises(InputError, match=r"v.jsonl, line 1: prompt, message 1: the role is 'assistant'"):
        list(read_votes("v.jsonl", json.dumps({**row, "prompt": turns[1:]}).encode()))


GOOD = "q,gpt,llama,left,anna\n"
BAD = [
    ("q,gpt,llama,middle,anna", "line 3: winner: found 'middle'; give left, right, tie, both_bad or the name"),
    ("q,gpt,llama,,anna", "line 3: winner: it is empty"),
    ("q,gpt,llama,left,", "line 3: annotator: it is empty"),
    ("q,gpt,llama,left", "line 3: annotator: it is empty"),
    (",gpt,llama,left,anna", "line 3: item: it is empty"),
    ("q,gpt,gpt,left,anna", "line 3: left and right: both are 'gpt'"),
    (f"q,{'g' * 101},llama,left,anna", "line 3: left: found 'ggg"),
    ("q,gp\x07t,llama,left,anna", "line 3: left: found 'gp\\x07t', expected a name in one line"),
    ('q,"gpt\nfour",llama,left,anna', "line 4: left: found 'gpt\\nfour'"),
]


@pytest.mark.parametrize(("line", "said"), BAD)
def test_a_bad_line_is_refused_and_nothing_is_stored(line: str, said: str, tmp_path: Path, capsys) -> None:
    file, db = tmp_path / "votes.csv", tmp_path / "a.db"
    file.write_text(f"{HEAD}{GOOD}{line}\n{GOOD}")
    assert main(["import", str(file), "--name", "Votes", "--db", str(db)]) == 2
    (message,) = capsys.readouterr().err.splitlines()
    assert message.startswith(f"error: {file}, ") and said in message
    assert not db.exists()
    store = Store(db)
    before = list(store.db.conn.iterdump())
    with pytest.raises(InputError) as error:
        import_upload(store, file)
    assert str(error.value).startswith("votes.csv, ") and said in str(error.value)
    assert list(store.db.conn.iterdump()) == before
    store.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "no column for the item; found none"),
        (HEAD, "it holds no votes"),
        ("item,left,winner,annotator\nq,gpt,left,anna\n", "no column for the left; found item, left, winner"),
        ("left,right,winner,annotator\ngpt,llama,left,anna\n", "no column for the item"),
        ("item,left,right,winner,annotator,seconds\nq,gpt,llama,left,anna,-1\n", "line 2: seconds: found '-1'"),
        ("item,left,right,winner,annotator,seconds\nq,gpt,llama,left,anna,nan\n", "line 2: seconds: found 'nan'"),
        ("item,prompt,left,right,winner,annotator\nq,,gpt,llama,left,anna\n", "line 2: prompt: it is empty"),
        (
            "item,prompt,left,right,winner,annotator\nq,one,gpt,llama,left,anna\nq,two,gpt,llama,left,bert\n",
            "line 3: item 'q' has another prompt than on line 2",
        ),
    ],
)
def test_a_file_without_votes_is_refused(text: str, said: str) -> None:
    with pytest.raises(InputError) as error:
        cast(text)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_json_lines_that_are_none_are_refused() -> None:
    good = json.dumps({"item": "q", "left": "x", "right": "y", "winner": "tie", "annotator": "anna"})
    for line, said in (
        (b"{", "line 2: not JSON"),
        (b"[1]", "line 2: expected an object"),
        (b"\xff", "line 2: not UTF-8"),
    ):
        with pytest.raises(InputError, match=said):
            list(read_votes("v.jsonl", good.encode() + b"\n" + line))
    with pytest.raises(InputError, match="line 1: winner: found 'true'; give a text"):
        cast(good.replace('"tie"', "true"), "v.jsonl")
    with pytest.raises(InputError, match="give a file of votes that ends in"):
        cast(good, "votes.xlsx")


def test_the_study_is_closed_and_has_all_that_the_file_says(store: Store, tmp_path: Path) -> None:
    file = tmp_path / "my votes.csv"
    file.write_text(
        "item,prompt,left,right,winner,annotator,seconds\n"
        "q,Why?,gpt,llama,left,anna,2.5\n"
        "q,Why?,llama,gpt,left,bert,\n"
        "q,Why?,llama,alpaca,both bad,anna,4\n"
        "r,How?,gpt,llama,tie,anna,1\n"
        "q,Why?,llama,gpt,right,anna,1\n"
    )
    imported = import_upload(store, file)
    assert (imported.name, imported.votes, imported.repeats) == ("my votes", 5, 1)
    assert (imported.systems, imported.items, imported.annotators) == (3, 3, 2)
    with store.reading() as db:
        (study,) = db["studies"].rows
        assert study["state"] == "closed" and study["source"] == "my votes.csv" and study["closed_at"]
        settings = StudySettings.model_validate_json(study["settings"])
        assert settings.name == "my votes" and settings.tie and settings.both_bad and settings.wanted == 2
        systems = [(row["place"], row["name"], row["mixture_id"]) for row in db["study_systems"].rows]
        assert systems == [(0, "gpt", None), (1, "llama", None), (2, "alpaca", None)]
        rows = db.query(
            "select i.place, p.text, i.first_system, i.second_system, n.name, a.kind, a.attempt, a.swapped, a.seconds, "
            "w.question, w.choice from study_answers w join study_assignments a on a.id = w.assignment_id "
            "join study_items i on i.id = a.item_id join prompts p on p.id = i.prompt_id "
            "join study_annotators n on n.id = a.annotator_id order by a.rowid"
        )
        assert [tuple(row.values()) for row in rows] == [
            (0, "Why?", 0, 1, "anna", "pair", 0, 0, 2.5, "overall", "left"),
            (0, "Why?", 0, 1, "bert", "pair", 0, 1, None, "overall", "left"),
            (1, "Why?", 1, 2, "anna", "pair", 0, 0, 4.0, "overall", "both_bad"),
            (2, "How?", 0, 1, "anna", "pair", 0, 0, 1.0, "overall", "tie"),
            (0, "Why?", 0, 1, "anna", "repeat", 1, 1, 1.0, "overall", "right"),
        ]
        # Each item has the ratings that it wants.
        assert [row["wanted"] for row in db.query("select wanted from study_items order by place")] == [2, 1, 1]
        assert len({row["prompt_key"] for row in db["study_items"].rows}) == 2
    with pytest.raises(InputError, match="there is a study called 'my votes'"):
        import_upload(store, file)


def test_an_upload_is_bounded(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "votes.csv"
    file.write_text(HEAD + GOOD)
    monkeypatch.setattr(import_votes, "MAX_UPLOAD", len(HEAD + GOOD) - 1)
    with pytest.raises(InputError, match="it is larger than"):
        import_upload(store, file)
    monkeypatch.setattr(import_votes, "MAX_UPLOAD", len(HEAD + GOOD))
    assert import_upload(store, file, " Mine ").name == "Mine"


def test_a_name_without_effect_is_a_name(tmp_path: Path, capsys) -> None:
    file = tmp_path / "votes.csv"
    file.write_text(f"{HEAD}q,=1+1,<b>x</b>,left,anna\n")
    assert main(["import", str(file), "--name", "'; drop table studies --", "--db", str(tmp_path / "a.db")]) == 0
    assert "1 votes by 1 annotators" in capsys.readouterr().out
    assert main(["import", str(file), "--name", "two\nlines", "--db", str(tmp_path / "a.db")]) == 2


@pytest.mark.skipif(not LLMFAO.is_file(), reason="needs the comparisons of LLMFAO")
def test_llmfao(tmp_path: Path) -> None:
    imported = import_file(tmp_path / "a.db", LLMFAO, "LLMFAO")
    assert (imported.votes, imported.repeats, imported.systems) == (8931, 0, 59)
    assert (imported.items, imported.annotators) == (2139, 124)
    store = Store(tmp_path / "a.db")
    # Counted in the file by csv and collections alone.
    with store.reading() as db:
        assert Counter(row["choice"] for row in db["study_answers"].rows) == {"tie": 3471, "left": 2911, "right": 2549}
        wanted = Counter(row["wanted"] for row in db["study_items"].rows)
        assert wanted == {5: 998, 4: 658, 3: 358, 2: 110, 1: 15}
    store.close()
