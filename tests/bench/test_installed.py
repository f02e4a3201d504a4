from bench.installed import parse_metrics


def test_a_metric_is_found_by_its_name_and_labels() -> None:
    text = '# HELP a Something.\n# TYPE a gauge\na{b="c d"} 2.0\ne_total 1e+03\n'
    assert parse_metrics(text) == {'a{b="c d"}': 2.0, "e_total": 1000.0}
