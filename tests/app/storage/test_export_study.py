"""What is exported of a study: every vote with what made its responses, pseudonyms, TRL's formats, and a dataset."""

from __future__ import annotations

import base64
import csv
import io
import json
import zipfile
from pathlib import Path

import pytest
import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.__main__ import main
from app.storage.database import Store
from app.storage.dataset_folder import COLUMNS, push_folder
from app.storage.export_study import FORMATS, export_study, study_download
from app.storage.import_votes import import_upload
from engine import InputError
from tests.app.storage.studies import SETTINGS, TIME, TURNS, VOTES, write_study
from tests.browser.serving import running

HEAD = "item,left,right,winner,annotator\n"


@pytest.fixture
def study(store: Store) -> str:
    return write_study(store)


def exported(store: Store, form: str, tmp_path: Path, study: str = SETTINGS.name, **settings) -> list[dict]:
    out = tmp_path / f"out.{form}"
    export_study(store.path, study, form, out, **settings)
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def test_jsonl_has_every_vote_as_it_was_seen(store: Store, study: str, tmp_path: Path) -> None:
    rows = exported(store, "jsonl", tmp_path)
    assert len(rows) == 2 * len(VOTES)
    first, second = rows[0], rows[2]
    assert (first["question"], first["choice"], rows[1]["question"], rows[1]["choice"]) == (
        "overall", "left", "terse", "right",
    )  # fmt: skip
    assert (first["left"], first["left_response"], first["right"], first["right_response"]) == (
        "=one", "good 0", "two", "bad dog 0",
    )  # fmt: skip
    assert (second["left"], second["left_response"], second["right"], second["right_response"]) == (
        "two", "bad dog 0", "=one", "good 0",
    )  # fmt: skip
    assert (first["swapped"], second["swapped"]) == (False, True)
    # What is needed to generate the response again.
    assert second["left_weights"] == {"helpful": 0.25, "terse": 0.75}
    assert [second[f"left_{key}"] for key in ("rule", "gain", "exponent", "seed")] == ["power", 1.5, -0.5, 0]
    sampling = {"max_new_tokens": 40, "temperature": 0.35, "top_k": 3, "top_p": 0.9, "min_p": 0.01}
    assert {key: second[f"left_{key}"] for key in sampling} == sampling
    assert second["right_weights"] == {"helpful": 1.0} and second["right_rewards"] == {"helpful": 1.25, "concise": -3.0}
    assert (first["seconds"], first["comment"], first["flagged"], second["flagged"]) == (1.5, "=cmd()", False, True)
    assert (first["leased_at"], first["answered_at"], first["probability"]) == (TIME.format(0), TIME.format(1), 0.5)
    assert rows[6]["messages"] == TURNS and rows[6]["prompt"] == "and move"
    kinds = [row["kind"] for row in rows if row["question"] == "overall"]
    assert kinds == [vote[2] for vote in VOTES]
    gold, training = rows[20], rows[22]
    # The second response is on the left: the first was accepted, and so the right.
    assert (gold["kind"], gold["expected"], gold["left_response"]) == ("gold", ["right", "tie"], "no")
    assert (training["kind"], training["expected"], training["left"]) == ("training", ["right"], "")
    assert rows[21]["expected"] == [] and first["expected"] == []


def test_annotators_are_pseudonyms_unless_asked_otherwise(store: Store, study: str, tmp_path: Path) -> None:
    def annotators(**settings) -> list[str]:
        rows = exported(store, "jsonl", tmp_path, **settings)
        return [row["annotator"] for row in rows if row["question"] == "overall"]

    numbers = {"anna": "annotator-1", "bert": "annotator-2", "carl": "annotator-3"}
    assert annotators() == [numbers[vote[1]] for vote in VOTES]
    assert annotators(names=True) == [vote[1] for vote in VOTES]
    for form in FORMATS:
        content = study_download(store, study, form)
        if form == "dataset":
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                content = b"".join(archive.read(name) for name in archive.namelist())
        assert not any(name.encode() in content for name in numbers), form


def test_csv_has_the_same_and_no_formulas(store: Store, study: str, tmp_path: Path) -> None:
    lines = exported(store, "jsonl", tmp_path)
    export_study(store.path, study, "csv", tmp_path / "out.csv")
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(lines)
    for row, line in zip(rows, lines, strict=True):
        assert list(row) == list(line)
        assert row["choice"] == line["choice"] and json.loads(row["messages"]) == line["messages"]
        assert json.loads(row["left_weights"] or "null") == line["left_weights"]
    assert rows[0]["left"] == "'=one" and rows[0]["comment"] == "'=cmd()"


def test_votes_go_out_and_in_again(store: Store, tmp_path: Path) -> None:
    text = f"{HEAD}q,gpt,llama,left,anna\nq,llama,gpt,tie,bert\nr,alpaca,gpt,both_bad,anna\nq,gpt,llama,right,anna\n"
    (tmp_path / "votes.csv").write_text(text)
    import_upload(store, tmp_path / "votes.csv", "First")
    for form in ("csv", "jsonl", "parquet"):
        (tmp_path / f"again.{form}").write_bytes(study_download(store, study_of(store, "First"), form))
        imported = import_upload(store, tmp_path / f"again.{form}", form)
        assert (imported.votes, imported.repeats, imported.items, imported.systems) == (4, 1, 2, 3)
        wanted = ("kind", "left", "right", "choice", "annotator", "swapped")
        first, again = (exported(store, "jsonl", tmp_path, name) for name in ("First", form))
        assert [[row[key] for key in wanted] for row in first] == [[row[key] for key in wanted] for row in again]


def study_of(store: Store, name: str) -> str:
    with store.reading() as db:
        return next(iter(db.query("select id from studies where name = ?", [name])))["id"]


# -------------------------------------------------------------------------------------------------------- TRL's formats


def said(text: str, role: str = "assistant") -> list[dict[str, str]]:
    return [{"role": role, "content": text}]


def test_trl_has_the_majoritys_preferences(store: Store, study: str, tmp_path: Path) -> None:
    # Of pair 0 two of three prefer the first, of 1 the second; of 2 as many each way, and 3 is bad on both sides.
    assert exported(store, "trl", tmp_path) == [
        {"prompt": said("mix", "user"), "chosen": said("good 0"), "rejected": said("bad dog 0")},
        {"prompt": TURNS, "chosen": said("bad dog 1"), "rejected": said("good 1")},
    ]


def test_trl_may_have_every_vote(store: Store, study: str, tmp_path: Path) -> None:
    rows = exported(store, "trl", tmp_path, per_vote=True)
    chosen = sorted(row["chosen"][0]["content"] for row in rows)
    assert chosen == ["bad dog 0", "bad dog 1", "bad dog 1", "bad dog 2", "good 0", "good 0", "good 2"]


def test_kto_has_a_label_for_each_response(store: Store, study: str, tmp_path: Path) -> None:
    def labels(**settings) -> list[tuple[str, bool]]:
        rows = exported(store, "kto", tmp_path, **settings)
        assert all(list(row) == ["prompt", "completion", "label"] for row in rows)
        return [(row["completion"][0]["content"], row["label"]) for row in rows]

    assert labels() == [
        ("good 0", True), ("bad dog 0", False), ("good 1", False), ("bad dog 1", True), ("good 3", False),
        ("bad dog 3", False),
    ]  # fmt: skip
    votes = labels(per_vote=True)
    assert len(votes) == 2 * 8 and votes.count(("good 0", True)) == 2 and votes.count(("good 0", False)) == 1


def test_imported_votes_have_no_texts_to_train_on(store: Store, tmp_path: Path) -> None:
    (tmp_path / "votes.csv").write_text(f"{HEAD}q,gpt,llama,left,anna\n")
    import_upload(store, tmp_path / "votes.csv")
    with pytest.raises(InputError, match="the texts of its responses are not known"):
        export_study(store.path, "votes", "trl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------- the dataset


def test_the_dataset_is_read_by_datasets(store: Store, study: str, tmp_path: Path) -> None:
    from datasets import load_dataset

    out = tmp_path / "dataset"
    assert export_study(store.path, study, "dataset", out)["rows"] == 2 * len(VOTES)
    lines = exported(store, "jsonl", tmp_path)
    rows = load_dataset(str(out), split="train", cache_dir=str(tmp_path / "cache"))
    assert rows.column_names == list(COLUMNS) == list(lines[0])
    for row, line in zip(rows, lines, strict=True):
        for key, value in line.items():
            same = json.loads(row[key]) if key.endswith(("_weights", "_rewards")) and row[key] else row[key]
            assert same == value, key


def test_the_card_describes_the_study_and_what_it_holds_has_no_effect(store: Store, study: str, tmp_path: Path) -> None:
    store.db["studies"].update(study, {"name": "Two: [x](http://evil) #1"})
    export_study(store.path, study, "dataset", tmp_path / "dataset")
    card = (tmp_path / "dataset" / "README.md").read_text(encoding="utf-8")
    _, front, text = card.split("---\n", 2)
    assert yaml.safe_load(front)["pretty_name"] == "Two: [x](http://evil) #1"
    assert yaml.safe_load(front)["license"] == "unknown"
    assert "# Two: \\[x\\](http://evil) \\#1\n" in text
    assert "> # Be fair\n>\n> - read both\n> ---\n> <script>" in text
    assert "| two | helpful 0.25, terse 0.75; power, gain 1.5, exponent -0.5 |" in text
    assert "- `terse`: Which is terser?" in text and "- prompts: prompts.txt" in text
    for name in COLUMNS:
        assert f"| `{name}` |" in text


def test_a_dataset_replaces_an_older_one_and_no_other_folder(store: Store, study: str, tmp_path: Path) -> None:
    out = tmp_path / "dataset"
    for _ in range(2):
        export_study(store.path, study, "dataset", out)
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "data"]
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("# Mine\n")
    with pytest.raises(InputError, match="holds other files"):
        export_study(store.path, study, "dataset", mine)
    with pytest.raises(InputError, match="holds other files"):
        export_study(store.path, study, "dataset", store.path.parent)
    with pytest.raises(InputError, match="is a file"):
        export_study(store.path, study, "dataset", store.path)
    assert (mine / "README.md").read_text() == "# Mine\n" and len(list(mine.iterdir())) == 1


class RecordingHub:
    """In place of the hub's API: what it was asked, and the files that it would have sent."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.created, self.files = error, {}, {}

    def create_repo(self, repo_id: str, **settings) -> str:
        if self.error:
            raise self.error
        self.created = {"repo_id": repo_id, **settings}
        return f"https://huggingface.co/datasets/{repo_id}"

    def upload_folder(self, *, repo_id: str, repo_type: str, folder_path: Path, allow_patterns, commit_message) -> None:
        from huggingface_hub.utils import filter_repo_objects

        assert (repo_id, repo_type) == (self.created["repo_id"], "dataset")
        paths = [str(path.relative_to(folder_path)) for path in folder_path.rglob("*") if path.is_file()]
        self.files = {
            path: (folder_path / path).read_bytes()
            for path in filter_repo_objects(paths, allow_patterns=allow_patterns)
        }


def test_what_is_pushed_is_the_folder_in_a_private_dataset(store: Store, study: str, tmp_path: Path) -> None:
    out, hub = tmp_path / "dataset", RecordingHub()
    export_study(store.path, study, "dataset", out)
    (out / ".git").mkdir()
    (out / ".git" / "config").write_text("token")
    assert push_folder(out, "me/votes", hub) == "https://huggingface.co/datasets/me/votes"  # type: ignore[arg-type]
    assert hub.created == {"repo_id": "me/votes", "repo_type": "dataset", "private": True, "exist_ok": True}
    assert sorted(hub.files) == ["README.md", "data/train-00000-of-00001.parquet"]
    assert hub.files["README.md"] == (out / "README.md").read_bytes()


class StubHub:
    """A server that answers what huggingface_hub asks of the hub, and keeps what it is sent."""

    def __init__(self) -> None:
        self.created: list[dict] = []
        self.files: dict[str, bytes] = {}
        self.tokens: set[str] = set()
        routes = [
            Route("/api/repos/create", self.create, methods=["POST"]),
            Route("/api/validate-yaml", self.validate, methods=["POST"]),
            Route("/api/datasets/me/votes/preupload/main", self.ask, methods=["POST"]),
            Route("/api/datasets/me/votes/commit/main", self.commit, methods=["POST"]),
            Route("/{path:path}", self.other, methods=["GET", "POST", "HEAD"]),
        ]
        self.app = Starlette(routes=routes)

    async def create(self, request: Request) -> Response:
        self.tokens.add(request.headers["authorization"])
        self.created.append(await request.json())
        return JSONResponse({"url": str(request.url_for("other", path="datasets/me/votes"))})

    async def validate(self, request: Request) -> Response:
        _, front, _ = (await request.json())["content"].split("---\n", 2)
        wrong = [] if yaml.safe_load(front)["license"] == "unknown" else [{"message": "no licence"}]
        return JSONResponse({"errors": wrong, "warnings": []})

    async def ask(self, request: Request) -> Response:
        files = (await request.json())["files"]
        return JSONResponse(
            {"files": [{"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in files]}
        )

    async def commit(self, request: Request) -> Response:
        self.tokens.add(request.headers["authorization"])
        for line in (await request.body()).splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        url = str(request.url_for("other", path="datasets/me/votes/commit/0"))
        return JSONResponse({"success": True, "commitOid": "0" * 40, "commitUrl": url})

    async def other(self, request: Request) -> Response:
        return JSONResponse({"error": "not found"}, 404)


def test_a_dataset_arrives_at_the_hub(store: Store, study: str, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    out, hub = tmp_path / "dataset", StubHub()
    export_study(store.path, study, "dataset", out)
    with running(hub.app, grace=1) as (url, _):
        assert push_folder(out, "me/votes", HfApi(url, "hf_secret")) == f"{url}/datasets/me/votes"
    (made,) = hub.created
    assert (made["name"], made["organization"], made["type"]) == ("votes", "me", "dataset")
    assert made.get("visibility") == "private" or made.get("private") is True  # as the version of the client says it
    assert hub.tokens == {"Bearer hf_secret"}
    names = ["README.md", "data/train-00000-of-00001.parquet"]
    assert hub.files == {name: (out / name).read_bytes() for name in names}


def test_a_hub_without_an_answer_is_one_line(store: Store, study: str, tmp_path: Path) -> None:
    from huggingface_hub import HfApi

    from tests.browser.serving import free_port

    export_study(store.path, study, "dataset", tmp_path / "dataset")
    with pytest.raises(InputError) as error:
        push_folder(tmp_path / "dataset", "me/votes", HfApi(f"http://127.0.0.1:{free_port()}", "hf_secret"))
    assert str(error.value).startswith("--push: cannot push to 'me/votes': ") and "\n" not in str(error.value)
    assert "hf_secret" not in str(error.value)


def test_a_hub_that_is_out_of_reach_is_one_line_and_the_folder_stays(
    store, study, tmp_path, capsys, monkeypatch
) -> None:
    from app.storage import dataset_folder

    monkeypatch.setattr(dataset_folder, "HfApi", lambda: RecordingHub(ConnectionError("no route\nto host")))
    out = tmp_path / "dataset"
    arguments = ["export", "--db", str(store.path), "--study", study, "--format", "dataset", "--out", str(out)]
    assert main([*arguments, "--push", "me/votes"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: --push: cannot push to 'me/votes': no route to host; give HF_TOKEN")
    assert (out / "README.md").is_file()
    assert main([*arguments, "--push", "https://huggingface.co/me/votes"]) == 2
    assert "give a dataset on the hub, such as me/votes" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------------- which study


def test_a_study_is_found_by_id_or_name(store: Store, study: str, tmp_path: Path) -> None:
    write_study(store, "another-study-of-two", "Another")
    by_id = export_study(store.path, "another-study-of-two", "csv", tmp_path / "a.csv")
    by_name = export_study(store.path, "Another", "csv", tmp_path / "a.csv")
    assert by_id == by_name and by_id["study"] == "another-study-of-two"
    store.db["studies"].update(study, {"name": "Another"})
    with pytest.raises(InputError, match=f"2 are called 'Another'; give the id of one: {study}, another-study"):
        export_study(store.path, "Another", "csv", tmp_path / "b.csv")
    with pytest.raises(InputError, match="there is none called 'Third'; give one of 'Another'"):
        export_study(store.path, "Third", "csv", tmp_path / "b.csv")
    assert not (tmp_path / "b.csv").exists()


def test_a_database_from_before_studies_has_none(store: Store, tmp_path: Path) -> None:
    for table in store.db.table_names():
        if table.startswith(("study_", "studies")):
            store.db.execute("PRAGMA foreign_keys = OFF")
            store.db[table].drop()
    store.db.execute("delete from _sqlite_migrations where migration_set = 'mixdesk-studies'")
    store.close()
    with pytest.raises(InputError, match="--study: it holds no studies"):
        export_study(store.path, "Any", "csv", tmp_path / "a.csv")


def test_a_study_without_votes_gives_an_empty_export(store: Store, tmp_path: Path) -> None:
    settings = SETTINGS.model_dump_json()
    values = {"id": "empty", "name": "Empty", "state": "draft", "model": "", "source": "", "settings": settings}
    store.db["studies"].insert({**values, "owns_comparison": 0, "created_at": TIME.format(0)})
    for form in FORMATS:
        assert export_study(store.path, "Empty", form, tmp_path / form)["rows"] == 0


def test_the_database_is_not_replaced(store: Store, study: str) -> None:
    with pytest.raises(InputError, match="is the database itself"):
        export_study(store.path, study, "csv", store.path)
