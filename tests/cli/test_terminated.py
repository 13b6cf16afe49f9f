"""A command that is told to end."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

WRITES = """
import sys, time
from pathlib import Path
from coldchain.cli import main
from coldchain.preprocess.publishing import ResultsFolder

def write(scratch):
    (scratch / "half").write_text("written")
    print("writing", flush=True)
    time.sleep(60)
    return {}

main.app = lambda: ResultsFolder(Path(sys.argv[1]), {}).publish(Path("movie.tiff"), write)
main.main()
"""


def test_sigterm_takes_half_written_results_away(tmp_path: Path) -> None:
    """Ended by SIGTERM in the midst of writing, a command leaves nothing behind and says 143."""
    process = subprocess.Popen([sys.executable, "-c", WRITES, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writing\n"
        assert len(list(tmp_path.iterdir())) == 1
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 128 + signal.SIGTERM
    assert not list(tmp_path.iterdir())
