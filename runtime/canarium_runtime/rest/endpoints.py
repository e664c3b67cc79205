"""One prediction over HTTP, whichever route it came by."""

import logging
import time
from collections.abc import Iterable

from starlette.types import Receive, Scope

from canarium_api.metric_names import PredictionStatus
from canarium_runtime.backends.base import Array
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.lifecycle import ModelState
from canarium_runtime.rest import http
from canarium_runtime.rest.codec import Call, Codec, Identity, PredictCodec, V2Codec
from canarium_runtime.rest.errors import STATUS_OF_KIND, error_body
from canarium_runtime.service import InferenceService, status_of
from canarium_runtime.validation import validate

_log = logging.getLogger(__name__)
_LOGGED_PER_SECOND = 10
"""Failures logged in detail; a model that fails on everything must not fill the node's disk."""


class Predictor:
    """Answers prediction requests of both protocols.

    Args:
        service: the model.
    """

    def __init__(self, service: InferenceService) -> None:
        self.service = service
        config = service.config
        self.identity = Identity(config.model_name, config.model_version, config.revision)
        model = f"/v2/models/{config.model_name}"
        v2 = V2Codec()
        self.codecs: dict[str, Codec] = {
            "/predict": PredictCodec(),
            f"{model}/infer": v2,
            f"{model}/versions/{config.model_version}/infer": v2,
        }
        """Codec by path: the hot paths."""
        self._revision = (http.REVISION, config.revision.encode())
        self._bodies = http.BodyReader(config.max_body_bytes)
        self._answers = service.answers
        self._second = 0
        self._logged = 0

    async def answer(self, codec: Codec, scope: Scope, receive: Receive) -> http.Answer:
        """Read, run and encode one request; failures become answers too."""
        head = http.read_head(scope["headers"])
        permit = self.service.permit()
        body: bytes | None = None
        call: Call | None = None
        try:
            with permit:
                body = await self._bodies.read(receive, head, permit.deadline)
                spec = self.service.spec
                call = codec.decode(body, spec)
                inputs = validate(spec, call.tensors, call.outputs)
                arrays = await self.service.infer(permit, inputs)
                payload = codec.encode(
                    spec, inputs.outputs, arrays, self.identity, call.id or head.request_id
                )
        except Exception as error:  # noqa: BLE001 - a client never sees a stack trace
            if self._answers.recording:
                self._record(head, body, call, permit.arrived_at, status_of(error))
            if isinstance(error, ServingError):
                return self.refuse(error, head.request_id)
            self._note(ErrorKind.INTERNAL, error, head.request_id)
            return self.refuse(ServingError(ErrorKind.INTERNAL, "internal error"), head.request_id)
        if self._answers.recording:
            self._record(
                head,
                body,
                call,
                permit.arrived_at,
                PredictionStatus.SUCCESS,
                zip(inputs.outputs, arrays, strict=True),
            )
        return http.Answer(200, payload, self.headers(head.request_id))

    def _record(
        self,
        head: http.Head,
        body: bytes | None,
        call: Call | None,
        arrived_at: float,
        status: PredictionStatus,
        outputs: Iterable[tuple[str, Array]] = (),
    ) -> None:
        """Leave an answer for the comparer of a shadow rollout.

        A gateway gives both copies of a request the same header. The body's id is the second choice: clients that
        number their requests may well begin at 1 each.
        """
        request_id = head.request_id
        if not head.has_id:
            request_id = (call.id if call is not None else None) or ""
        if not self._answers.wants(request_id):
            return
        seconds = time.monotonic() - arrived_at
        datatypes = self.service.spec.output_datatypes if status is PredictionStatus.SUCCESS else {}
        self._answers.record(request_id, body, status, seconds, outputs, datatypes)

    def refuse(self, error: ServingError, request_id: str) -> http.Answer:
        """Make the answer for a failure."""
        status = STATUS_OF_KIND[error.kind]
        if error.kind is ErrorKind.MODEL_FAILED:
            self._note(error.kind, error, request_id)
        headers = self.headers(request_id)
        if error.retry_after_seconds is not None:
            headers.append((b"retry-after", b"%d" % error.retry_after_seconds))
        return http.Answer(status, error_body(error, request_id), headers)

    def headers(self, request_id: str) -> list[tuple[bytes, bytes]]:
        """Headers of every answer. While the server drains they ask the client to connect anew, elsewhere."""
        headers = [self._revision, (http.REQUEST_ID, request_id.encode())]
        if self.service.lifecycle.state in {ModelState.DRAINING, ModelState.STOPPING}:
            headers.append((b"connection", b"close"))
        return headers

    def _note(self, kind: ErrorKind, error: BaseException, request_id: str) -> None:
        """Log a failure of the server or the model, at most a few each second."""
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._logged = second, 0
        self._logged += 1
        if self._logged > _LOGGED_PER_SECOND:
            return
        internal = kind is ErrorKind.INTERNAL
        _log.error(
            "a prediction failed",
            extra={
                "request_id": request_id,
                "code": kind.value,
                "cause": str(error.__cause__ or error),
            },
            exc_info=error if internal else None,
        )
