"""torchrun, without its own traceback after the program's, and with an exit status that says why it ended."""

from __future__ import annotations

import logging
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import main

if __name__ == "__main__":
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # the program has said what is wrong
    try:
        main()
    except ChildFailedError as error:
        rank, failure = error.get_first_failure()
        sys.stderr.write(f"process {rank} ended with status {failure.exitcode}; all processes have been stopped\n")
        sys.exit(failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode)
    except SignalException as error:
        sys.exit(128 + error.sigval)
