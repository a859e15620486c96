"""Run a command beside busy processes: `python tests/busy.py 8 pytest -n 2`.

The suite has to pass on a busy machine, so no test may depend on how fast the machine is.
"""

from __future__ import annotations

import subprocess
import sys


def main(processes: int, command: list[str]) -> int:
    """The exit status of ``command``, run beside so many processes that never wait."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(processes)]
    try:
        return subprocess.call(command)
    finally:
        for process in busy:
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
