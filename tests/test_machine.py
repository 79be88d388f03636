"""What the machine says of itself, from the texts and files in which systems say it."""

from types import SimpleNamespace

import pytest

from ragbook import machine

X86 = "processor\t: 0\nvendor_id\t: {vendor}\nflags\t\t: fpu avx2 {flags}\n\nprocessor\t: 1\n"


@pytest.mark.parametrize(
    ("said", "quick"),
    [
        (X86.format(vendor="GenuineIntel", flags="avx512f avx512_bf16 amx_bf16"), True),
        (X86.format(vendor="GenuineIntel", flags="avx512f avx512_bf16"), False),
        (X86.format(vendor="AuthenticAMD", flags="avx512f avx512_bf16"), True),
        (X86.format(vendor="AuthenticAMD", flags="avx512f"), False),
        (X86.format(vendor="GenuineIntel", flags=""), False),
        ("processor\t: 0\nFeatures\t: fp asimd i8mm bf16\nCPU part\t: 0xd40\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd bf16x svebf\n", False),
        ("processor\t: 0\nbugs\t: bf16 amx_bf16\n", None),
        ("", None),
    ],
)
def test_the_processors_bfloat16(said, quick, tmp_path):
    path = tmp_path / "cpuinfo"
    path.write_text(said)
    assert machine.multiplies_bfloat16(path) is quick
    assert machine.multiplies_bfloat16(tmp_path / "none") is None


def test_gpus(tmp_path):
    assert machine.gpus(tmp_path / "none") == machine.gpus(tmp_path) == []
    for name in ("nvidia1", "nvidia0", "nvidiactl", "kfd", "null"):
        (tmp_path / name).touch()
    assert machine.gpus(tmp_path) == ["nvidia0", "nvidia1", "kfd"]


VERSION = (
    "from typing import Optional\n__version__ = '2.13.0'\ncuda: Optional[str] = {}\nhip = {}\n"
)


@pytest.mark.parametrize(
    ("said", "system", "gpus", "visible", "backend", "device"),
    [
        (VERSION.format("'12.8'", None), "Linux", ["nvidia0"], None, "cuda", "cuda"),
        (VERSION.format("'12.8'", None), "Linux", ["nvidia0"], "", "cuda", "cpu"),
        (VERSION.format("'12.8'", None), "Linux", [], None, "cuda", "cpu"),
        (VERSION.format(None, "'6.3'"), "Linux", ["kfd"], "0", "cuda", "cuda"),
        (VERSION.format(None, None), "Linux", ["nvidia0"], None, "cpu", "cpu"),
        (VERSION.format(None, None), "Darwin", [], None, "mps", "mps"),
        (None, "Linux", ["nvidia0"], None, "cpu", "cpu"),
    ],
)
def test_what_auto_will_be(said, system, gpus, visible, backend, device, monkeypatch, tmp_path):
    """As torch's file of versions, the system and the environment say; a graphics card alone is
    nothing that this torch can use."""
    if said is not None:
        (tmp_path / "version.py").write_text(said)
    torch = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(machine.util, "find_spec", lambda name: torch)
    monkeypatch.setattr(machine.platform, "system", lambda: system)
    monkeypatch.setattr(machine.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(machine, "gpus", lambda: gpus)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert (machine.torch_backend(), machine.auto_device()) == (backend, device)
    monkeypatch.setattr(machine.util, "find_spec", lambda name: None)
    assert (machine.torch_backend(), machine.auto_device()) == ("cpu", "cpu")


def test_the_installed_torch_is_read_rightly():
    import torch

    built = torch.version.cuda or torch.version.hip
    if machine.platform.system() != "Darwin":
        assert (machine.torch_backend() == "cuda") == bool(built)
