"""torchvision and timm import in a fresh process, whatever torch this is."""

import subprocess
import sys

import pytest


def run(code):
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_timm_imports_in_a_fresh_process():
    done = run(
        "from mixtura.encoders.torchvision_repair import import_timm, import_torchvision\n"
        "vision = import_torchvision()\n"
        "assert vision is import_torchvision()\n"
        "from torchvision.transforms import v2\n"
        "from torchvision.ops import roi_align\n"
        "print(import_timm().create_model('test_resnet', pretrained=False).num_features)\n"
    )
    assert done.stdout.strip() == "96", done.stderr


def test_other_import_errors_are_not_hidden(monkeypatch):
    from mixtura.encoders import torchvision_repair

    def fail(name):
        raise RuntimeError("something else")

    monkeypatch.setattr(torchvision_repair.importlib, "import_module", fail)
    with pytest.raises(RuntimeError, match="something else"):
        torchvision_repair.import_torchvision()


def test_the_known_failure_is_repaired_once(monkeypatch):
    """On a machine where torchvision imports by itself, the failure is played."""
    from mixtura.encoders import torchvision_repair

    calls, declared = [], []

    def fail_once(name):
        calls.append(name)
        if len(calls) == 1:
            raise RuntimeError("operator torchvision::nms does not exist")
        return sys

    monkeypatch.setattr(torchvision_repair.importlib, "import_module", fail_once)
    monkeypatch.setattr(torchvision_repair, "_forget", lambda package: declared.append(package))
    monkeypatch.setattr(torchvision_repair, "_declare", lambda *operators: declared.extend(operators))
    assert torchvision_repair.import_torchvision() is sys
    assert calls == ["torchvision", "torchvision"]
    assert declared == ["torchvision", "nms", "qnms"]
