"""A program that decodes, but for videos whose names say what it does instead."""

import os
import signal
import sys
import time

from vidsme_jax.data import decoding


def _faulty(request):
    def asked(content, *args, **arguments):
        stem = getattr(content, "stem", "")
        if stem == "crashes":
            os.kill(os.getpid(), signal.SIGSEGV)
        if stem == "starves":
            os.kill(os.getpid(), signal.SIGKILL)
        if stem == "hangs":
            time.sleep(3600)
        if stem == "quits":
            print("at last: \x1b[2J gone", file=sys.stderr, flush=True)
            os._exit(5)
        if stem == "raises":
            raise MemoryError("for now")
        return request(content, *args, **arguments)

    return asked


if __name__ == "__main__":
    for name, request in decoding.REQUESTS.items():
        decoding.REQUESTS[name] = _faulty(request)
    decoding.main()
