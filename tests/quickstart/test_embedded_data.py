"""The embedded data: complete, readable, and no page in both parts."""

import pytest

from lit_retrofit.data.beir import read_beir
from lit_retrofit.data.formats import read_records
from lit_retrofit.errors import UserError
from lit_retrofit.quickstart.embedded_data import resolve_data


def test_training_and_test_parts_are_whole_and_apart():
    records, report = read_records(resolve_data("quickstart:train"))
    test = read_beir(resolve_data("quickstart:test"))
    assert (len(records), report.skipped_total) == (3567, 0)
    assert (len(test.queries), len(test.corpus)) == (1258, 851)
    assert {r.language for r in records} == {"en", "de", "es", "ru", "ja", "zh-CN"}
    assert {q.language for q in test.queries} == {"en", "de", "es", "ru", "ja", "zh-CN", "ko", "tr"}
    trained_on = {d.text for r in records for d in r.positives}
    assert not trained_on & {document.text for document in test.corpus}


def test_source_and_licence_come_with_the_data():
    text = (resolve_data("quickstart:test").parent / "LICENSE.md").read_text()
    assert "Mozilla Public License 2.0" in text and "LibreOffice" in text


def test_other_names_are_left_alone_and_unknown_parts_refused():
    assert str(resolve_data("some/folder")) == "some/folder"
    with pytest.raises(UserError, match="quickstart:train or quickstart:test"):
        resolve_data("quickstart:dev")
