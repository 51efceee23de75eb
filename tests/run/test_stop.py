import os
import signal

import pytest

from hieros_repro.run.stop import stop_on_signal, stop_when


@pytest.fixture
def waited_for():
    """Somebody waits for SIGUSR2, as submitit does: the list of what they were told."""
    told = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: told.append(number))
    yield told
    signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_asks_the_run_to_stop_and_does_so_only_while_it_runs(number):
    before = signal.getsignal(number)
    with stop_on_signal() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop()
    assert signal.getsignal(number) is before


def test_a_second_interrupt_ends_the_run_at_once():
    with pytest.raises(KeyboardInterrupt), stop_on_signal():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def test_the_end_of_a_jobs_time_stops_the_run_and_is_passed_on_once_it_is_at_rest(waited_for):
    with pytest.raises(ValueError, match="stopped"), stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert stop()
        assert waited_for == []
        raise ValueError("stopped")
    assert waited_for == [signal.SIGUSR2]


def test_another_signal_than_usr2_may_announce_it(waited_for, monkeypatch):
    monkeypatch.setenv("SUBMITIT_PREEMPT_SIGNAL", "USR1")
    with stop_on_signal() as stop:
        os.kill(os.getpid(), signal.SIGUSR2)
        assert not stop()
    assert waited_for == [signal.SIGUSR2]


def test_nobody_waits_for_the_end_of_a_jobs_time_where_there_is_no_scheduler():
    assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL
    with stop_on_signal():
        assert signal.getsignal(signal.SIGUSR2) is signal.SIG_DFL


def test_a_file_asks_the_runs_to_stop_that_were_told_of_it(tmp_path):
    file = tmp_path / "stop"
    with stop_when(file), stop_on_signal() as stop:
        assert not stop()
        file.touch()
        assert stop()
    with stop_on_signal() as stop:
        assert not stop()
