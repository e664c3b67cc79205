"""All methods but inference: what the server says of its models, and the repository."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from canarium_runtime import management
from canarium_runtime.errors import ErrorKind, ServingError
from canarium_runtime.models import Models
from canarium_runtime.protection import Protection
from canarium_runtime.rest.exchange import note_failure, refusal
from canarium_runtime.rpc import open_inference_pb2 as pb
from canarium_runtime.rpc.calls import CallHead, Context, Trailers, admit

Answer = TypeVar("Answer", bound=Message)
Method = Callable[[Any, Context], Awaitable[Message]]


class Control:
    """Answers questions about the server and its models.

    Args:
        models: which there are.
        version: of the server.
        protection: who may ask; None: everybody.
    """

    def __init__(self, models: Models, version: str, protection: Protection | None = None) -> None:
        self._guard = None if protection is None else protection.guard
        self._models = models
        self._version = version
        self._trailers = Trailers(models.config.revision)

    def methods(self) -> dict[str, tuple[type[Message], Method]]:
        """Give all methods: type of the request, and what answers it, by name."""
        one = "/v2/models/m"
        repository = "/v2/repository"
        made = self._guarded
        return {
            "ServerLive": (pb.ServerLiveRequest, made(self._live, "GET", "/v2/health/live")),
            "ServerReady": (pb.ServerReadyRequest, made(self._ready, "GET", "/v2/health/ready")),
            "ModelReady": (pb.ModelReadyRequest, made(self._model_ready, "GET", f"{one}/ready")),
            "ServerMetadata": (pb.ServerMetadataRequest, made(self._server, "GET", "/v2")),
            "ModelMetadata": (pb.ModelMetadataRequest, made(self._metadata, "GET", one)),
            "ModelConfig": (pb.ModelConfigRequest, made(self._config, "GET", f"{one}/config")),
            "ModelStatistics": (
                pb.ModelStatisticsRequest,
                made(self._statistics, "GET", f"{one}/stats"),
            ),
            "RepositoryIndex": (
                pb.RepositoryIndexRequest,
                made(self._index, "POST", f"{repository}/index"),
            ),
            "RepositoryModelLoad": (
                pb.RepositoryModelLoadRequest,
                made(self._load, "POST", f"{repository}/models/m/load"),
            ),
            "RepositoryModelUnload": (
                pb.RepositoryModelUnloadRequest,
                made(self._unload, "POST", f"{repository}/models/m/unload"),
            ),
        }

    def _guarded(self, method: Callable[[Any], Awaitable[Message]], verb: str, path: str) -> Method:
        """Answer those who may ask for this; `verb` and `path` are what it is over HTTP."""

        async def answer(request: Any, context: Context) -> Message:
            call = CallHead(context)
            try:
                if self._guard is not None and not self._guard.is_open(verb, path):
                    await admit(self._guard, call)
                message = await method(request)
            except Exception as error:  # noqa: BLE001 - a client never sees a stack trace
                failure = error
                if not isinstance(failure, ServingError):
                    note_failure(ErrorKind.INTERNAL, error, call.request_id)
                    failure = ServingError(ErrorKind.INTERNAL, "internal error")
                reply = refusal(failure, call.request_id)
                await self._trailers.abort(context, reply, failure)
            context.set_trailing_metadata(self._trailers.of(call.request_id))
            return message

        return answer

    async def _live(self, _: Any) -> Message:
        return pb.ServerLiveResponse(live=True)

    async def _ready(self, _: Any) -> Message:
        return pb.ServerReadyResponse(ready=self._models.primary.ready)

    async def _model_ready(self, request: pb.ModelReadyRequest) -> Message:
        service = self._models.get(request.name, request.version or None)
        return pb.ModelReadyResponse(ready=service.ready)

    async def _server(self, _: Any) -> Message:
        return _made(pb.ServerMetadataResponse(), management.server(self._version))

    async def _metadata(self, request: pb.ModelMetadataRequest) -> Message:
        document = management.metadata(self._models, request.name, request.version or None)
        return _made(pb.ModelMetadataResponse(), document)

    async def _config(self, request: pb.ModelConfigRequest) -> Message:
        service = self._models.get(request.name, request.version or None)
        return _made(pb.ModelConfigResponse(), {"config": management.config(service)})

    async def _statistics(self, request: pb.ModelStatisticsRequest) -> Message:
        name, version = request.name or None, request.version or None
        document = management.statistics(self._models, name, version)
        return _made(pb.ModelStatisticsResponse(), document)

    async def _index(self, request: pb.RepositoryIndexRequest) -> Message:
        listed = management.index(self._models, ready_only=request.ready)
        return _made(pb.RepositoryIndexResponse(), {"models": listed})

    async def _load(self, request: pb.RepositoryModelLoadRequest) -> Message:
        await management.load(self._models, request.model_name, request.parameters)
        return pb.RepositoryModelLoadResponse()

    async def _unload(self, request: pb.RepositoryModelUnloadRequest) -> Message:
        await management.unload(self._models, request.model_name, request.parameters)
        return pb.RepositoryModelUnloadResponse()


def _made(message: Answer, document: management.Document) -> Answer:
    """Fill a message with a document of the same fields."""
    return ParseDict(document, message)
