import pytest

from tests.deploy.exposition import complaints, exported

SAMPLES = {"resmem_rows_total": {"result"}, "resmem_size_bucket": {"le"}}


@pytest.mark.parametrize(
    ("expression", "complaint"),
    [
        ("rate(resmem_row_total[5m])", "no metric resmem_row_total"),
        ('resmem_rows_total{tier="x"}', "resmem_rows_total has no label tier"),
        ("sum by (le) (resmem_rows_total)", "nothing to group by le"),
    ],
)
def test_wrong_names_are_found(expression: str, complaint: str) -> None:
    assert complaint in complaints(expression, SAMPLES)


def test_right_names_pass() -> None:
    right = 'sum by (result, instance) (rate(resmem_rows_total{result!="created", job="x"}[5m]))'
    assert not complaints(right, SAMPLES)


def test_exported_histograms_have_buckets() -> None:
    assert exported()["resmem_http_request_duration_seconds_bucket"] == {"route", "le"}
