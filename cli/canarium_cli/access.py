"""Access to a cluster by a kubeconfig: what the commands read and write, and nothing of what it means.

Errors of libraries end here; `access_errors` puts them into words that say what to do. Each list has a bound.
"""

import getpass
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import yaml
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from canarium_api import GROUP, PLURAL, VERSION
from canarium_cli import streams
from canarium_cli.access_errors import (
    AccessError as AccessError,  # for those who ask
)
from canarium_cli.access_errors import (
    Asked,
    GoneError,
    explained,
    near,
    unreachable,
)
from canarium_cli.cleaning import clean
from canarium_cli.statuses import status_of as status_of

Manifest = dict[str, Any]
LIMIT: Final = 500
"""Objects of one list; more are read in pages of as many."""
MAX_OBJECTS: Final = 5000
"""ModelDeployments of one list, in all pages."""
_TIMEOUT: Final = 10
"""Seconds for one request."""
_WATCH_SECONDS: Final = 120
"""How long one watch lasts before it is asked for again."""
_SILENCE_SECONDS: Final = 600
"""How long a log that is followed may say nothing before it is opened again."""
_DEPLOYMENT_LABEL: Final = f"{GROUP}/model-deployment"
_KIND: Final = f"{PLURAL}.{GROUP}"


@dataclass(frozen=True, kw_only=True)
class Access:
    """A cluster, and the namespace that is meant where none is given."""

    api: client.ApiClient
    namespace: str
    context: str = ""

    # --- ModelDeployments

    def read(self, namespace: str, name: str) -> Manifest:
        """Read a ModelDeployment; an error names those that are called alike."""
        asked = Asked("get", _KIND, namespace, name)
        try:
            found: Manifest = self._custom("get_namespaced_custom_object", asked)
        except GoneError as error:
            raise GoneError(f"{error}{self._near(namespace, name)}") from error
        return found

    def annotate(self, namespace: str, name: str, key: str, value: str) -> None:
        """Set one annotation of a ModelDeployment, and nothing else."""
        self.patch(namespace, name, {"metadata": {"annotations": {key: value}}})

    def patch(
        self, namespace: str, name: str, body: Mapping[str, Any], *, dry_run: bool = False
    ) -> Manifest:
        """Merge a part into a ModelDeployment; with dry_run, the API server says only what would come of it."""
        options: dict[str, Any] = {"dry_run": "All"} if dry_run else {}
        asked = Asked("patch", _KIND, namespace, name)
        verb = "patch_namespaced_custom_object"
        found: Manifest = self._custom(verb, asked, dict(body), **options)
        return found

    def objects(
        self, namespace: str | None, selector: str = "", *, timeout: float = _TIMEOUT
    ) -> tuple[list[Manifest], str]:
        """List ModelDeployments by namespace and name, MAX_OBJECTS at most; with it, where a watch goes on.

        Args:
            namespace: None: all.
            selector: of labels.
            timeout: seconds.
        """
        found: list[Manifest] = []
        more = version = ""
        asked = Asked("list", _KIND, namespace or "", "")
        verb = (
            "list_cluster_custom_object" if namespace is None else "list_namespaced_custom_object"
        )
        while True:
            options = {"label_selector": selector, "limit": LIMIT, "_continue": more}
            page = self._custom(
                verb, asked, timeout=timeout, **{k: v for k, v in options.items() if v}
            )
            found += page.get("items") or []
            meta = page.get("metadata") or {}
            more, version = meta.get("continue") or "", meta.get("resourceVersion") or ""
            if not more or len(found) >= MAX_OBJECTS:
                break
        found.sort(key=lambda body: (body["metadata"]["namespace"], body["metadata"]["name"]))
        return found[:MAX_OBJECTS], version

    def watch(
        self,
        namespace: str | None,
        *,
        name: str = "",
        selector: str = "",
        version: str = "",
        opened: streams.Open | None = None,
    ) -> Iterator[tuple[str, Manifest]]:
        """Give changes of ModelDeployments as they come, for two minutes: `ADDED`, `MODIFIED` or `DELETED`, and it.

        Raises:
            GoneError: `version` is too old: list again.
            AccessError: not allowed, or not reached.
        """
        asked = Asked("watch", _KIND, namespace or "", name)
        verb = (
            "list_cluster_custom_object" if namespace is None else "list_namespaced_custom_object"
        )
        options = {
            "watch": True,
            "timeout_seconds": _WATCH_SECONDS,
            "resource_version": version,
            "label_selector": selector,
            "field_selector": f"metadata.name={name}" if name else "",
        }
        spaces = () if namespace is None else (namespace,)
        ask = getattr(client.CustomObjectsApi(self.api), verb)
        answer = self._raw(
            asked,
            lambda: ask(
                GROUP, VERSION, *spaces, PLURAL,
                _preload_content=False,
                _request_timeout=(_TIMEOUT, _WATCH_SECONDS + _TIMEOUT),
                **{k: v for k, v in options.items() if v},
            ),
        )  # fmt: skip
        if opened is not None:
            opened.add(answer)
        try:
            for line in streams.lines(answer):
                event = json.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    kind = GoneError if status.get("code") == 410 else AccessError
                    raise kind(str(status.get("message", "the watch ended")))
                if event["type"] != "BOOKMARK":
                    yield event["type"], clean(event["object"])
        except (HTTPError, OSError, ValueError) as error:
            raise AccessError(unreachable(self.api, error)) from error
        finally:
            if opened is not None:
                opened.remove(answer)
            answer.close()
            answer.release_conn()

    # --- what belongs to one

    def pods(self, namespace: str, name: str) -> list[Manifest]:
        """List the pods of all revisions of a ModelDeployment, at most LIMIT."""
        selector = f"{_DEPLOYMENT_LABEL}={name}"
        return self._core("list_namespaced_pod", Asked("list", "pods", namespace, ""), namespace,
                          label_selector=selector)  # fmt: skip

    def configmaps(self, namespace: str, name: str) -> list[Manifest]:
        """List the ConfigMaps of a ModelDeployment's revisions, at most LIMIT."""
        selector = f"{_DEPLOYMENT_LABEL}={name}"
        asked = Asked("list", "configmaps", namespace, "")
        return self._core("list_namespaced_config_map", asked, namespace, label_selector=selector)

    def events(self, namespace: str, name: str) -> list[Manifest]:
        """List the Events of a ModelDeployment, oldest first, at most LIMIT."""
        selector = f"involvedObject.kind=ModelDeployment,involvedObject.name={name}"
        asked = Asked("list", "events", namespace, "")
        found = self._core("list_namespaced_event", asked, namespace, field_selector=selector)
        return sorted(found, key=streams.event_time)

    def log(
        self,
        namespace: str,
        pod: str,
        *,
        follow: bool = False,
        since_seconds: int | None = None,
        tail: int | None = None,
        previous: bool = False,
        container: str | None = None,
    ) -> Any:
        """Open the log of a pod; `streams.log_lines` reads the answer, and the caller closes it."""
        options = {
            "follow": follow,
            "since_seconds": since_seconds,
            "tail_lines": tail,
            "previous": previous,
            "container": container,
            "timestamps": True,
        }
        ask = client.CoreV1Api(self.api).read_namespaced_pod_log
        wait = (_TIMEOUT, _SILENCE_SECONDS) if follow else _TIMEOUT
        return self._raw(
            Asked("get", "pods/log", namespace, pod),
            lambda: ask(pod, namespace, _preload_content=False, _request_timeout=wait,
                        **{k: v for k, v in options.items() if v is not None}),
        )  # fmt: skip

    def namespaces(self, *, timeout: float = _TIMEOUT) -> list[str]:
        """List the names of namespaces."""
        asked = Asked("list", "namespaces", "", "")
        found = self._core("list_namespace", asked, timeout=timeout)
        return [body["metadata"]["name"] for body in found]

    def user(self) -> str:
        """Give the name that the API server knows the user by, else that of the local account."""
        try:
            review = client.AuthenticationV1Api(self.api).create_self_subject_review(
                {}, _request_timeout=_TIMEOUT
            )
            return str(review.status.user_info.username or getpass.getuser())
        except (ApiException, HTTPError):
            return getpass.getuser()

    # --- requests

    def _custom(
        self, verb: str, asked: Asked, *body: Any, timeout: float = _TIMEOUT, **options: Any
    ) -> Any:
        ask = getattr(client.CustomObjectsApi(self.api), verb)
        spaces = (asked.namespace,) if "namespaced" in verb else ()
        names = (asked.name,) if asked.name else ()
        found = self._asking(
            asked,
            lambda: ask(
                GROUP, VERSION, *spaces, PLURAL, *names, *body, _request_timeout=timeout, **options
            ),
        )
        return clean(found)

    def _core(
        self, verb: str, asked: Asked, *where: str, timeout: float = _TIMEOUT, **options: Any
    ) -> list[Manifest]:
        ask = getattr(client.CoreV1Api(self.api), verb)
        answer = self._raw(
            asked,
            lambda: ask(
                *where, limit=LIMIT, _preload_content=False, _request_timeout=timeout, **options
            ),
        )
        items: list[Manifest] = clean(json.loads(answer.data).get("items") or [])
        return items

    def _raw(self, asked: Asked, ask: Callable[[], Any]) -> Any:
        """Ask for an answer that is not read yet; the library's versions differ in whether they look at its status."""

        def checked() -> Any:
            answer = ask()
            if not 200 <= answer.status <= 299:
                problem = ApiException(status=answer.status, reason=answer.reason)
                problem.body = answer.data
                raise problem
            return answer

        return self._asking(asked, checked)

    def _asking(self, asked: Asked, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except ApiException as error:
            raise explained(error, asked) from error
        except (HTTPError, OSError, config.ConfigException) as error:
            raise AccessError(unreachable(self.api, error)) from error

    def _near(self, namespace: str, name: str) -> str:
        """Name objects that the user may have meant; nothing where they cannot be listed."""
        try:
            here = [body["metadata"]["name"] for body in self.objects(namespace)[0]]
        except AccessError:
            return ""
        try:
            everywhere, _ = self.objects(None)
        except AccessError:
            everywhere = []
        others = [
            body["metadata"]["namespace"] for body in everywhere if body["metadata"]["name"] == name
        ]
        return near(name, here, others, self.context)


def connect(kubeconfig: str | None, context: str | None) -> Access:
    """Open access by a kubeconfig.

    Args:
        kubeconfig: its file; None: $KUBECONFIG, or ~/.kube/config.
        context: one of its contexts; None: the current one.

    Raises:
        AccessError: there is none, or it cannot be read.
    """
    settings = client.Configuration()
    settings.retries = False  # what cannot be reached is said at once, not tried four times
    try:
        config.load_kube_config(kubeconfig, context, settings, persist_config=False)
        contexts, active = config.list_kube_config_contexts(kubeconfig)
    except (config.ConfigException, yaml.YAMLError, OSError, TypeError, ValueError) as error:
        words = " ".join(str(error).split()).rstrip(".")
        msg = f"no usable kubeconfig: {words}. Name one with --kubeconfig FILE."
        raise AccessError(msg) from error
    chosen = next((c for c in contexts if c["name"] == context), active)
    return Access(
        api=client.ApiClient(settings),
        namespace=chosen.get("context", {}).get("namespace") or "default",
        context=str(chosen.get("name", "")),
    )
