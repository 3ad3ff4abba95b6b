"""The demo ends, however many signals come and however fast."""

import subprocess
import sys

WAITS = """
import signal, sys
from token_pipelines.cli.demo_steps import catch_signals, wait_for_one

received = catch_signals()
again = []

def second(frame, event, _):
    '''A second signal, while the handler of the first one is at work, or holds a lock.'''
    if event == "call" and frame.f_code.co_name in {"<lambda>", "notify_all"} and not again:
        again.append(frame)
        signal.raise_signal(signal.SIGTERM)

print("ready", flush=True)
sys.setprofile(second)
signal.raise_signal(signal.SIGINT)
sys.setprofile(None)
wait_for_one(received)
print("ended", len(again), flush=True)
"""


def test_demo_ends_on_a_second_signal_in_the_handler_of_the_first() -> None:
    with subprocess.Popen([sys.executable, "-c", WAITS], stdout=subprocess.PIPE, text=True) as process:
        try:
            out, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert out == "ready\nended 1\n"
