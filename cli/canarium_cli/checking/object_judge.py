"""What is wrong with one object.

An object is judged in the order in which a cluster would: version, unknown fields, schema, rules across fields, the
operator. A mistake is told once, by the one that tells it best.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError

from canarium_api import API_VERSION, KIND, kstatus, structural
from canarium_api.analysis import AnalysisTemplateSpec
from canarium_api.structural import Schema, Violation
from canarium_api.v1alpha1 import ModelDeploymentSpec
from canarium_cli.checking import cel, objects
from canarium_cli.checking.advice import advice
from canarium_cli.checking.documents import Document
from canarium_cli.checking.findings import Finding, Rule, Severity
from canarium_cli.checking.objects import finding, meta_of
from canarium_operator.core import validation
from canarium_operator.core.assembling import completed
from canarium_operator.core.templates import TemplateKey, references_of


class ObjectJudge:
    """Judges one document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._body: dict[str, Any] = document.value
        self._kind: str = self._body["kind"]

    def _error(self, rule: Rule, field: str, message: str) -> Finding:
        return finding(self._document, Severity.ERROR, rule, field, message)

    def patch(self) -> Iterator[Finding]:
        """Judge a part of an object: its fields are ours."""
        version = objects.versions_of(self._kind).get(self._version)
        if version is not None:
            yield from self._unknown(_root(version))

    @property
    def _version(self) -> str:
        return str(self._body.get("apiVersion", "")).partition("/")[2]

    def whole(self, templates: Mapping[TemplateKey, Any]) -> Iterator[Finding]:
        """Judge all of it."""
        for path, place in self._document.repeated:
            yield Finding(
                file=place.file,
                line=place.line,
                column=place.column,
                severity=Severity.ERROR,
                rule=Rule.DUPLICATE_KEY,
                target=objects.name_of(self._document),
                field=path,
                message="stands there twice, and the first would be lost: remove one",
            )
        known = objects.versions_of(self._kind)
        version = known.get(self._version)
        if version is None:
            message = f"there is no version {self._version!r} of {self._kind}: write {API_VERSION}"
            yield self._error(Rule.API_VERSION, "apiVersion", message)
            return
        if version.get("deprecated"):
            message = version.get("deprecationWarning") or f"is deprecated: write {API_VERSION}"
            yield finding(self._document, Severity.WARNING, Rule.API_VERSION, "apiVersion", message)
        schema = _root(version)
        yield from self._unknown(schema)
        broken = list(self._schema(schema))
        for violation in broken:
            yield self._error(Rule.SCHEMA, violation.field, violation.message)
        yield from self._across(schema, frozenset(v.field for v in broken), templates)
        if self._kind == KIND:
            yield from self._status(broken)
            yield from self._unpinned()

    def _unknown(self, schema: Schema) -> Iterator[Finding]:
        known = structural.unknown_fields(self._body, schema, "")
        for path, name, candidates in known:
            path = path.removeprefix(".")
            yield self._error(Rule.UNKNOWN_FIELD, path, advice(name, candidates, schema))

    def _schema(self, schema: Schema) -> Iterator[Violation]:
        body = structural.fill_in(structural.prune(self._body, schema), schema)
        name = meta_of(self._document).get("name")
        if not isinstance(name, str) or not name:
            yield Violation(field="metadata.name", message="is required")
        for violation in structural.violations(body, schema, ""):
            yield Violation(field=violation.field.removeprefix("."), message=violation.message)

    def _across(
        self, schema: Schema, broken: frozenset[str], templates: Mapping[TemplateKey, Any]
    ) -> Iterator[Finding]:
        """Judge across fields: the CRD's rules, then the types and the operator, where nothing else is wrong."""
        body = structural.fill_in(structural.prune(self._body, schema), schema)
        rules = list(cel.violations(body, schema, broken))
        refused = list(self._refused(broken, templates))
        for violation in rules:
            field = _named(violation, self._document)
            if not any(_says_the_same(violation.message, other.field) for other in refused):
                yield self._error(Rule.CEL, field, violation.message)
        yield from refused

    def _refused(
        self, broken: frozenset[str], templates: Mapping[TemplateKey, Any]
    ) -> Iterator[Finding]:
        if self._kind != KIND:
            if not broken:
                yield from self._template()
            return
        spec = validation.parse_spec(self._body.get("spec"))
        if not isinstance(spec, ModelDeploymentSpec):
            for problem in spec:
                if not any(
                    problem.field.startswith(b) or b.startswith(problem.field) for b in broken
                ):
                    yield self._error(Rule.OPERATOR, problem.field, problem.message)
            return
        missing = sorted(references_of(self._body.get("spec")) - set(templates))
        for _, name in missing:
            yield finding(
                self._document,
                Severity.WARNING,
                Rule.TEMPLATE,
                "spec.rollout.analysis.templates",
                f"AnalysisTemplate {name!r} is not in what was checked: its checks are not judged",
            )
        complete = completed(_without(spec, missing), templates)
        problems = complete if isinstance(complete, list) else []
        if not isinstance(complete, list):
            called = meta_of(self._document).get("name")
            problems = validation.validate(complete, called if isinstance(called, str) else None)
        for problem in problems:
            rule = Rule.TEMPLATE if ".templates[" in problem.field else Rule.OPERATOR
            yield self._error(rule, problem.field, problem.message)

    def _template(self) -> Iterator[Finding]:
        try:
            AnalysisTemplateSpec.from_manifest(self._body.get("spec"))
        except ValidationError as error:
            for entry in error.errors(include_url=False, include_context=False)[:5]:
                path = "".join(
                    f"[{part}]" if isinstance(part, int) else f".{part}" for part in entry["loc"]
                )
                yield self._error(
                    Rule.OPERATOR, f"spec{path}", entry["msg"].removeprefix("Value error, ")
                )

    def _status(self, broken: Iterable[Violation]) -> Iterator[Finding]:
        status = self._body.get("status")
        if not status or any(v.field.startswith("status") for v in broken):
            return
        judgement = kstatus.judge(self._body)
        failed = judgement.health is kstatus.Health.FAILED
        ending = ". It stays so until somebody changes something" if failed else ""
        yield finding(
            self._document,
            Severity.ERROR if failed else Severity.NOTE,
            Rule.STATUS,
            judgement.field,
            f"kstatus: {judgement.health}, {judgement.message}{ending}",
        )

    def _unpinned(self) -> Iterator[Finding]:
        model = self._document.get("spec.model")
        if isinstance(model, dict) and model.get("uri") and not model.get("sha256"):
            scheme = str(model["uri"]).partition("://")[0]
            if scheme in ("http", "https"):
                yield finding(
                    self._document,
                    Severity.WARNING,
                    Rule.UNPINNED,
                    "spec.model.uri",
                    "the model is not pinned: other bytes at this address would be served without a rollout. "
                    "Add model.sha256",
                )


def _root(version: Mapping[str, Any]) -> Schema:
    """Give a version's schema, with the parts of an object that the API server itself knows."""
    schema: Schema = version["schema"]["openAPIV3Schema"]
    meta = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    return {**schema, "properties": {**schema["properties"], "metadata": meta}}


def _without(spec: ModelDeploymentSpec, missing: Iterable[TemplateKey]) -> ModelDeploymentSpec:
    """Leave out references to templates that are not there."""
    gone = set(missing)
    analysis = spec.rollout.analysis
    kept = [ref for ref in analysis.templates if (ref.cluster_scope, ref.name) not in gone]
    rollout = spec.rollout.model_copy(
        update={"analysis": analysis.model_copy(update={"templates": kept})}
    )
    return spec.model_copy(update={"rollout": rollout})


def _says_the_same(message: str, field: str) -> bool:
    """Whether a rule's message is about a field that the operator names itself, with the index."""
    general = "".join(
        part.partition("]")[2] if i else part for i, part in enumerate(field.split("["))
    )
    general = general.removeprefix("spec.")
    plain = message.replace("[]", "")
    return "." in general and plain.startswith((f"{general} ", f"{general}:"))


def _named(violation: Violation, document: Document) -> str:
    """Give the field that a rule's message begins with, where there is one; else where the rule stands."""
    word = violation.message.split(" ", 1)[0].rstrip(":,").replace("[]", "")
    for prefix in ("", "spec.", f"{violation.field}."):
        path = f"{prefix}{word}"
        if "." in path and document.get(path) is not None:
            return path
    return violation.field
