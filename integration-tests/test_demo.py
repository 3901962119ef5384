"""`make demo` with all of its data: see demo.py."""

import pytest

import demo


@pytest.mark.timeout(240)
def test_demo(request, tmp_path):
    assert demo.run(request.config.getoption("--broker"), directory=tmp_path) >= demo.ENOUGH
