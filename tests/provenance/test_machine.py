import json
import os
import platform

import numpy
import pytest

from hieros_repro.provenance import machine


def test_a_machine_is_described_by_plain_data():
    found = machine.machine()
    assert set(found) == {"host", "system", "python", "cpu", "cores", "memory_gb"}
    assert found["python"] == platform.python_version()
    assert found["cores"] == os.cpu_count()
    assert found["memory_gb"] > 0.1
    assert json.loads(json.dumps(found)) == found


def test_no_environment_variable_is_recorded(monkeypatch):
    monkeypatch.setenv("SOME_API_KEY", "a-very-secret-value")
    shown = json.dumps({"machine": machine.machine(), "packages": machine.packages()})
    assert "a-very-secret-value" not in shown
    assert "SOME_API_KEY" not in shown


def test_installed_packages_are_listed_under_normal_names():
    found = machine.packages()
    assert found["numpy"] == numpy.__version__
    assert list(found) == sorted(found)
    assert all(name == machine.normalised(name) for name in found)


@pytest.mark.parametrize("name", ["Ruamel.YAML", "ruamel-yaml", "ruamel_yaml", "RUAMEL._-yaml"])
def test_names_that_pip_takes_for_one_are_one(name):
    assert machine.normalised(name) == "ruamel-yaml"


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """As if the package lay in tmp_path."""
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "hieros_repro" / "provenance" / "machine.py"))
    return tmp_path


def test_a_lock_is_read_without_comments_and_blank_lines(elsewhere):
    text = "# a comment\ntorch==2.13.0  # the framework\n\nRuamel_Yaml==0.18.1\n"
    (elsewhere / "requirements.lock").write_text(text)
    assert machine.lock() == {"torch": "2.13.0", "ruamel-yaml": "0.18.1"}


def test_without_a_lock_nothing_is_pinned(elsewhere):
    assert machine.lock() == {}


def test_our_lock_pins_exact_versions():
    found = machine.lock()
    assert {"torch", "numpy", "gymnasium", "hydra-core"} <= set(found)
    assert all(version and version[0].isdigit() for version in found.values())


def test_free_space_is_known_for_a_folder_that_is_not_there_yet(tmp_path):
    assert machine.free_gb(tmp_path / "not" / "yet") > 0
