"""LitServe with its quicker queue (zmq), one API server and one worker for each process."""

import litserve
import numpy as np
from common import BATCH_MS, HOST, MAX_BATCH, PORT, PROCESSES, open_model


class Api(litserve.LitAPI):
    """Answers single rows, or batches when batching is on."""

    def setup(self, device):
        """Open the model."""
        self.run = open_model()

    def decode_request(self, request):
        """Read one body."""
        return np.asarray(request["row"], np.float32)

    def predict(self, x):
        """Run one row, or rows that LitServe has stacked."""
        return self.run(x) if BATCH_MS else self.run(x[None])[0]

    def encode_response(self, output):
        """Write one answer."""
        return {"y": output.tolist()}


if __name__ == "__main__":
    batching = {"max_batch_size": MAX_BATCH, "batch_timeout": BATCH_MS / 1000} if BATCH_MS else {}
    server = litserve.LitServer(
        Api(**batching), accelerator="cpu", workers_per_device=PROCESSES, fast_queue=True
    )
    server.run(
        host=HOST, port=PORT, num_api_servers=1, log_level="warning", generate_client_file=False
    )
