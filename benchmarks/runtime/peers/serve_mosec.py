"""mosec: a front in Rust, one Python worker for each process; orjson and numpy in the worker."""

import sys

import numpy as np
import orjson
from common import BATCH_MS, HOST, MAX_BATCH, PORT, PROCESSES, open_model
from mosec import Server, Worker

_NUMPY = orjson.OPT_SERIALIZE_NUMPY


class Infer(Worker):
    """Answers single rows, or lists of them when batching is on."""

    def __init__(self) -> None:
        super().__init__()
        self.run = open_model()

    def deserialize(self, data):
        """Read one body."""
        return np.asarray(orjson.loads(data)["row"], np.float32)

    def forward(self, data):
        """Run one row or a batch."""
        if BATCH_MS:
            return list(self.run(np.stack(data)))
        return self.run(data[None])[0]

    def serialize(self, data):
        """Write one answer."""
        return orjson.dumps({"y": data}, option=_NUMPY)


if __name__ == "__main__":
    # mosec has no other way than its own command line.
    sys.argv = ["serve_mosec", "--address", HOST, "--port", str(PORT), "--log-level", "warning"]
    server = Server()
    batching = {"max_batch_size": MAX_BATCH, "max_wait_time": round(BATCH_MS)} if BATCH_MS else {}
    server.append_worker(Infer, num=PROCESSES, **batching)
    server.run()
