from lit_retrofit.report.curves import curve, moving_average


def test_the_moving_average_is_symmetric():
    assert moving_average([1, 2, 6, 4, 5], 1) == [1, 3, 4, 5, 5]
    assert moving_average([1.0, 5.0, 3.0], 9) == [1, 3, 3]


def test_a_curve_keeps_the_values():
    found = curve("loss", {"run": ((0, 4.0), (10, 3.0), (20, 2.0))})
    (line,) = found.lines
    assert line.raw == "52.0,10.0 201.0,89.0 350.0,168.0"
    assert (line.smooth, line.first, line.last, found.window, found.flat) == ("", 4.0, 2.0, 0, False)
    assert curve("loss", {"run": ((0, 4.0),)}) is None
    flat = curve("temperature", {"run": ((0, 1.0), (1, 1.0))})
    assert flat.lines[0].raw == "52.0,89.0 350.0,89.0" and flat.flat


def test_runs_share_the_axes_and_a_point_is_no_curve():
    found = curve("loss", {"a": ((0, 4.0), (10, 2.0)), "b": ((0, 3.0), (20, 0.0)), "c": ((0, 9.0),)})
    assert [line.name for line in found.lines] == ["a", "b"]
    assert found.lines[0].raw == "52.0,10.0 201.0,89.0"
    assert found.lines[1].raw.endswith("350.0,168.0")
    from_zero = curve("speed", {"a": ((0, 50.0), (1, 100.0))}, from_zero=True)
    assert from_zero.lines[0].raw.startswith("52.0,89.0 ")


def test_a_long_run_is_thinned():
    found = curve("loss", {"run": tuple((step, float(step)) for step in range(10_000))})
    (line,) = found.lines
    assert len(line.raw.split()) == 400
    assert line.raw.startswith("52.4,")  # the mean of steps 0 … 24
    assert found.window == 525
