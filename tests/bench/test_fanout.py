from bench.fanout import _figures


def test_both_sides_stand_beside_each_other_in_both_caches() -> None:
    series = {f"ours {size}": [10.0] for size in ("small", "full")}
    series |= {"Argo's own small": [20.0], "Argo's own full": [40.0], "trivial": [3.0], "hit": [0.06]}
    found = [(one.ratio.median, one.target.met(one) if one.target else None) for one in _figures(series, 200)]
    assert found == [(0.5, True), (0.25, True), (1.0, True), (2.0, None), (50.0, True)]
