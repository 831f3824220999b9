"""A study as a dataset of the Hugging Face hub: a folder with a Parquet file and a dataset card."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml
from huggingface_hub import HfApi
from sqlite_utils import Database

from app.schemas.study import StudySettings
from app.storage.export import plain_pairs
from app.storage.hub_backup import HUB_ERRORS
from engine import InputError
from engine.errors import one_line

CARD, DATA, TAG = "README.md", "data/train-00000-of-00001.parquet", "mixdesk"
OWN = {CARD, "data", ".git", ".gitattributes", ".cache"}  # what an older export, or a clone of one, has in its folder
REPO = re.compile(r"[\w.-]{1,96}/[\w.-]{1,96}", re.ASCII)
LICENCE = "unknown"
TEXT, NUMBER, TRUTH, WHOLE = pyarrow.string(), pyarrow.float64(), pyarrow.bool_(), pyarrow.int64()
MESSAGES = pyarrow.list_(pyarrow.struct([("role", TEXT), ("content", TEXT)]))
# {column: (type, meaning)}; of a side's columns without left_ or right_.
SIDE = {
    "": (TEXT, "name of the system on this side; empty for training and gold pairs"),
    "response": (TEXT, "its response"),
    "weights": (TEXT, "weights of its mixture, JSON"),
    "rule": (TEXT, "rule of its mixture"),
    "gain": (NUMBER, "gain of its mixture"),
    "exponent": (NUMBER, "exponent of its mixture"),
    "model": (TEXT, "configuration that generated the response"),
    "seed": (WHOLE, "seed of the response"),
    "max_new_tokens": (WHOLE, "sampling: most tokens"),
    "temperature": (NUMBER, "sampling: temperature"),
    "top_k": (WHOLE, "sampling: top-k"),
    "top_p": (NUMBER, "sampling: top-p"),
    "min_p": (NUMBER, "sampling: min-p"),
    "repetition_penalty": (NUMBER, "sampling: repetition penalty"),
    "particles": (WHOLE, "sampling: particles"),
    "date": (TEXT, "date that the chat template wrote into the prompt"),
    "finish_reason": (TEXT, "why the response ended"),
    "rewards": (TEXT, "its rewards, JSON"),
}
COLUMNS = {
    "study": (TEXT, "name of the study"),
    "item": (TEXT, "id of the pair of responses"),
    "kind": (TEXT, "pair, repeat (with sides swapped), gold or training"),
    "prompt": (TEXT, "the user's last message"),
    "messages": (MESSAGES, "the conversation before the responses"),
    **{f"{side}_{name}" if name else side: described for side in ("left", "right") for name, described in SIDE.items()},
    "annotator": (TEXT, "the annotator, by a pseudonym unless exported with names"),
    "question": (TEXT, "key of the question"),
    "choice": (TEXT, "left, right, tie or both_bad"),
    "swapped": (TRUTH, "whether the second response of the pair was on the left"),
    "expected": (pyarrow.list_(TEXT), "accepted choices of a training or gold pair"),
    "probability": (NUMBER, "probability with which the pair was chosen"),
    "attempt": (WHOLE, "number of the attempt or repeat, from 0"),
    "seconds": (NUMBER, "time that the answer took"),
    "comment": (TEXT, "the annotator's comment"),
    "flagged": (TRUTH, "whether the annotator flagged the pair"),
    "leased_at": (TEXT, "time at which the pair was shown"),
    "answered_at": (TEXT, "time of the answer"),
    "assignment": (TEXT, "id of the assignment, the same for its questions"),
}


def vote_table(rows: list[dict[str, Any]]) -> Any:
    """Return a study's votes (`study_votes`) as an Arrow table with the columns of `COLUMNS`."""
    schema = pyarrow.schema([(name, kind) for name, (kind, _) in COLUMNS.items()])
    flat = [
        {name: plain_pairs(row[name]) if kind == TEXT else row[name] for name, (kind, _) in COLUMNS.items()}
        for row in rows
    ]
    return pyarrow.Table.from_pylist(flat, schema=schema)


def as_parquet_file(rows: list[dict[str, Any]]) -> bytes:
    """Return a study's votes as a Parquet file."""
    file = io.BytesIO()
    pyarrow.parquet.write_table(vote_table(rows), file)
    return file.getvalue()


def write_dataset(db: Database, study: str, rows: list[dict[str, Any]], folder: Path) -> None:
    """Write a study's dataset into a folder.

    Args:
        db: The database.
        study: The study's id.
        rows: Its votes.
        folder: The folder, which exists.

    Raises:
        OSError: if a file cannot be written.
    """
    target = folder / DATA
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(as_parquet_file(rows))
    (folder / CARD).write_text(dataset_card(db, study, rows), encoding="utf-8")


def dataset_card(db: Database, study: str, rows: list[dict[str, Any]]) -> str:
    """Return the dataset card of a study: its front matter, description, guidelines, licence and columns."""
    row = next(iter(db.query("select * from studies where id = ?", [study])))
    settings = StudySettings.model_validate_json(row["settings"])
    systems = db.query(
        "select s.name, m.weights, m.rule, m.gain, m.exponent from study_systems s "
        "left join mixtures m on m.id = s.mixture_id where s.study_id = ? order by s.place",
        [study],
    )
    front = {
        "license": LICENCE,
        "pretty_name": row["name"],
        "tags": [TAG, "preference", "human-feedback"],
        "configs": [{"config_name": "default", "data_files": [{"split": "train", "path": DATA}]}],
    }
    table = [f"| {escaped(system['name'])} | {mixture_words(system)} |" for system in systems]
    columns = [f"| `{name}` | {kind} | {meaning} |" for name, (kind, meaning) in COLUMNS.items()]
    questions = [f"- `{question.key}`: {escaped(question.text)}" for question in settings.questions]
    guidelines = [f"> {line}".rstrip() for line in settings.guidelines.splitlines()] or ["There are none."]
    annotators = len({vote["annotator"] for vote in rows})
    facts = f"{len(rows)} answers of {annotators} annotators about pairs of responses, exported from Mixdesk."
    parts = [
        "---",
        yaml.safe_dump(front, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        "",
        f"# {escaped(row['name'])}",
        "",
        facts,
        "",
        *(f"- {name}: {escaped(value)}" for name, value in described(row, settings) if value),
        "",
        "## Systems",
        "",
        "| system | mixture |",
        "| --- | --- |",
        *table,
        "",
        "## Questions",
        "",
        *questions,
        "",
        "## Guidelines",
        "",
        *guidelines,
        "",
        "## Licence",
        "",
        f"Not chosen yet. Put it into the first lines of this file in place of `{LICENCE}` before you publish.",
        "",
        "## Columns",
        "",
        "| column | type | meaning |",
        "| --- | --- | --- |",
        *columns,
    ]
    return "\n".join(parts) + "\n"


def described(row: dict[str, Any], settings: StudySettings) -> list[tuple[str, str]]:
    """Return [(what, value)] of a study, as its card lists them."""
    choices = ["left", "right", *(["tie"] if settings.tie else []), *(["both bad"] if settings.both_bad else [])]
    return [
        ("prompts", row["source"]),
        ("configuration", row["model"]),
        ("state", row["state"]),
        ("ratings wanted of each pair", str(settings.wanted)),
        ("choices", ", ".join(choices)),
        ("seed", str(settings.seed)),
        ("created", row["created_at"]),
        ("opened", row["opened_at"] or ""),
        ("closed", row["closed_at"] or ""),
    ]


def mixture_words(system: dict[str, Any]) -> str:
    """Return a system's mixture as one cell of the card."""
    if system["weights"] is None:
        return "not known"
    weights = ", ".join(f"{name} {weight:g}" for name, weight in json.loads(system["weights"]).items())
    return escaped(f"{weights}; {system['rule']}, gain {system['gain']:g}, exponent {system['exponent']:g}")


def escaped(text: str) -> str:
    """Return a text as Markdown in one line, without effect."""
    return re.sub(r"([\\`*_{}\[\]<>#|!])", r"\\\1", " ".join(text.split()))


def check_folder(folder: Path) -> None:
    """Check that a folder is missing, empty, or an older export of a dataset.

    Raises:
        InputError: if it has other files, which an export would mix with its own.
        OSError: if it cannot be read.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"--out: {folder} is a file; give a folder for the dataset")
    names = {path.name for path in folder.iterdir()}
    card = folder / CARD
    known = names <= OWN and (not card.is_file() or f"- {TAG}\n" in card.read_text(encoding="utf-8", errors="replace"))
    if names and not known:
        raise InputError(f"--out: {folder} holds other files; give a new or empty folder for the dataset")


def check_repository(repository: str) -> None:
    """Raise InputError if a text is not the name of a dataset on the hub."""
    if not REPO.fullmatch(repository):
        raise InputError(f"--push: found '{repository[:80]}'; give a dataset on the hub, such as me/votes")


def push_folder(folder: Path, repository: str, api: HfApi | None = None) -> str:
    """Push a dataset's folder to the hub, and return its address; it is created as a private one if it is missing.

    Args:
        folder: The folder.
        repository: The dataset, such as me/votes.
        api: The hub; by default with the token of the environment.

    Raises:
        InputError: if the hub cannot be reached, or refuses it.
    """
    check_repository(repository)
    api = api or HfApi()
    try:
        url = str(api.create_repo(repository, repo_type="dataset", private=True, exist_ok=True))
        api.upload_folder(
            repo_id=repository,
            repo_type="dataset",
            folder_path=folder,
            allow_patterns=[CARD, DATA],
            commit_message="Export from Mixdesk",
        )
    except HUB_ERRORS as error:
        raise InputError(
            f"--push: cannot push to '{repository}': {one_line(error)}; give HF_TOKEN a token that may write; the "
            f"dataset is in {folder}"
        ) from None
    return url
