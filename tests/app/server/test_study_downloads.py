"""Studies are exported to their owner and to nobody else."""

from __future__ import annotations

import io
import json
import zipfile

import pyarrow.parquet
import pytest
from starlette.testclient import TestClient

from app.server.access import Access
from app.server.app import Site
from app.server.guard import guarded
from app.server.study_downloads import FORMS, study_routes
from tests.app.server.guarding import LOCAL, OWNED, PAGE, TOKEN, URL, browsing
from tests.app.server.test_configurations import Scene
from tests.app.storage.studies import VOTES, write_study


@pytest.fixture
def study(store) -> str:
    return write_study(store)


@pytest.fixture
def serve(tiny, store):
    def app_of(access: Access = OWNED, root: str = ""):
        scene = Scene(tiny, store)
        return guarded(Site(scene.configurations, root, study_routes(store)), access)

    return app_of


def test_the_owner_gets_every_form(serve, study: str) -> None:
    with browsing(serve()) as owner:
        owner.get(f"/?owner={TOKEN}", headers=PAGE)
        answers = {form: owner.get(f"/studies/{study}.{form}") for form in FORMS}
    for form, answer in answers.items():
        assert answer.status_code == 200, form
        assert f'filename="study-{study}.' in answer.headers["content-disposition"]
        assert answer.headers["cache-control"] == "no-store" and answer.headers["x-content-type-options"] == "nosniff"
    rows = [json.loads(line) for line in answers["jsonl"].text.splitlines()]
    assert len(rows) == 2 * len(VOTES) and rows[0]["annotator"] == "annotator-1"
    assert len(answers["trl"].text.splitlines()) == 2 and len(answers["kto"].text.splitlines()) == 6
    assert pyarrow.parquet.read_table(io.BytesIO(answers["parquet"].content)).num_rows == len(rows)
    with zipfile.ZipFile(io.BytesIO(answers["zip"].content)) as archive:
        assert archive.namelist() == ["README.md", "data/train-00000-of-00001.parquet"]


def test_names_and_single_votes_are_given_when_asked_for(serve, study: str) -> None:
    client = TestClient(serve(LOCAL), base_url=URL)
    assert json.loads(client.get(f"/studies/{study}.jsonl?names=1").text.splitlines()[0])["annotator"] == "anna"
    assert len(client.get(f"/studies/{study}.trl?votes=1").text.splitlines()) == 7


@pytest.mark.parametrize("cookies", [{}, {"mixdesk_annotator": "secret"}, {"mixdesk_owner": "0" * 64}])
def test_visitors_and_annotators_get_nothing(serve, study: str, cookies: dict[str, str]) -> None:
    with browsing(serve()) as visitor:
        visitor.cookies.update(cookies)
        for form in FORMS:
            for path in (f"/studies/{study}.{form}", f"/studies/nothing.{form}", f"/desk/one/studies/{study}.{form}"):
                answer = visitor.get(path)
                assert answer.status_code in (403, 307, 404) and "good" not in answer.text, path
                if not path.startswith("/desk"):
                    assert answer.status_code == 403  # whether there is such a study or not


def test_what_is_not_there_is_404(serve, study: str) -> None:
    client = TestClient(serve(LOCAL), base_url=URL)
    for path in (f"{study}.xlsx", "nothing.csv", "..%2F..%2Fetc.csv", "a/b.csv", "", study):
        answer = client.get(f"/studies/{path}")
        assert answer.status_code == 404 and len(answer.text.splitlines()) == 1, path


def test_behind_a_proxy_it_is_below_its_path(serve, study: str) -> None:
    client = TestClient(serve(LOCAL, "/mixdesk"), base_url=URL)
    for path in ("/studies", "/mixdesk/studies"):
        assert client.get(f"{path}/{study}.csv").status_code == 200


def test_imported_votes_have_no_texts(serve, store, tmp_path) -> None:
    from app.storage.import_votes import import_upload

    (tmp_path / "votes.csv").write_text("item,left,right,winner,annotator\nq,gpt,llama,left,anna\n")
    study = import_upload(store, tmp_path / "votes.csv").study_id
    answer = TestClient(serve(LOCAL), base_url=URL).get(f"/studies/{study}.trl")
    assert answer.status_code == 404 and "texts of its responses are not known" in answer.text
