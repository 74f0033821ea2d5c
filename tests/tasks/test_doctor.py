"""The doctor never faints, and everything it says is a sentence with what to do."""

import errno

import pytest

from mixtura.tasks import doctor
from mixtura.tasks.doctor import BROKEN, OK, WARNING, Finding, examine, numbers, requirements, run


@pytest.mark.slow
def test_everything_is_well_here(tmp_path):
    checks = {check.name: check for check in run(tmp_path)}
    assert [check for check in checks.values() if check.status == BROKEN] == []
    assert len(checks) == 11
    assert "torch" in checks["packages"].detail
    assert "1280 numbers" in checks["encoder"].detail
    assert list(tmp_path.iterdir()) == []


def test_whatever_a_check_raises_becomes_a_finding():
    def broken():
        raise OSError(errno.EIO, "Input/output\nerror")

    def warned():
        raise Finding("Too slow.", "Buy a faster one.", WARNING)

    assert examine("a", lambda: "fine", "advice") == doctor.Check("a", OK, "fine")
    found = examine("b", broken, "Check the disk.")
    assert (found.status, found.advice) == (BROKEN, "Check the disk.")
    assert "\n" not in found.detail
    assert examine("c", warned, "advice") == doctor.Check("c", WARNING, "Too slow.", "Buy a faster one.")


def test_a_missing_or_old_package_is_named(monkeypatch):
    monkeypatch.setattr(doctor, "requirements", lambda: {"no-such-package": "1", "numpy": "999.0"})
    found = examine("packages", doctor.packages, "advice")
    assert found.status == BROKEN
    assert "no-such-package is missing" in found.detail
    assert "is older than 999.0" in found.detail
    assert "pip install" in found.advice


def test_a_folder_that_cannot_be_written_to_is_broken(tmp_path):
    found = examine("disk", lambda: doctor.disk(tmp_path / "none"), "Choose another.")
    assert found.status == BROKEN
    assert "No such file" in found.detail


def test_little_space_is_a_warning(tmp_path, monkeypatch):
    monkeypatch.setattr(doctor, "MIN_FREE_BYTES", 2**62)
    assert examine("disk", lambda: doctor.disk(tmp_path), "advice").status == WARNING


def test_altered_weights_are_broken(tmp_path, monkeypatch):
    from mixtura.encoders import lite0

    (tmp_path / "w.pth").write_bytes(b"not weights")
    monkeypatch.setattr(lite0, "packaged_weights", lambda: tmp_path / "w.pth")
    found = examine("weights", doctor.weights, "advice")
    assert found.status == BROKEN
    assert "not the published file" in found.detail


def test_floors_are_read_from_what_is_installed():
    floors = requirements()
    assert {"torch", "numpy", "typer"} <= set(floors)
    assert "pytest" not in floors
    assert numbers(floors["torch"]) >= (2,)


def test_the_faster_runtime_is_proposed_where_the_cpu_is_used(monkeypatch):
    from mixtura.encoders import runtime

    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr(runtime, "installed", lambda name: False)
    found = examine("runtime", doctor.runtime, "advice")
    assert found.status == WARNING
    assert "pip install 'mixtura[openvino]'" in found.advice
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert examine("runtime", doctor.runtime, "advice").status == OK
