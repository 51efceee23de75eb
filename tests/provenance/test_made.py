import datetime

from hieros_repro.provenance.made import made


def test_it_is_told_when_where_and_with_what_something_was_made():
    before = datetime.datetime.now(datetime.UTC)
    told = made()
    created = datetime.datetime.fromisoformat(told["created"])
    assert abs((created - before).total_seconds()) < 60 and created.utcoffset() == datetime.timedelta(0)
    assert len(told["code"]["sources"]) == 32 and told["packages"]["numpy"] and told["machine"]["cores"] >= 1
