"""Parser of `rules`: each rule, and warnings about rules that would do the same."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bridge.rules.conditions import Expression, Group
from bridge.rules.contradictions import contradictions
from bridge.rules.keys import BOOLEAN, CONDITION, EVENT_TYPES, STRING, Key, Section, ValueType, list_of
from bridge.rules.model import ALERTS, Condition, Rule, Step
from bridge.rules.parse_context import ParseContext
from bridge.rules.parse_steps import read_on_failure, read_on_success, read_steps
from bridge.rules.parse_where import read_where
from bridge.rules.presence import proven_by_all
from bridge.rules.yaml import Node

_MAX_NAME_LENGTH = 80


def read_rules(context: ParseContext, node: Node, label: str) -> dict[str, Rule]:
    """Return the rules of the file by name, after those of the files before it, which the context has."""
    rules = dict(context.rules)
    if node.items == []:
        return rules
    for item in context.list_items(node, label):
        context.diagnostics.rule = _unchecked_name(item)
        rule = _rule(context, item)
        if rule is not None and rule.name in rules:
            name = item.get("name")
            hint = f"the other rule is on {context.line_of(rules[rule.name], name)}: rename one of them"
            context.error(name, f"duplicate rule name `{rule.name}`", hint)
        elif rule is not None:
            rules[rule.name] = rule
    context.diagnostics.rule = None
    return rules


def _unchecked_name(node: Node) -> str | None:
    """Return the rule's name for the report, before the name is checked."""
    name = node.get("name").value
    return name[:_MAX_NAME_LENGTH] if isinstance(name, str) else None


def _rule(context: ParseContext, node: Node) -> Rule | None:
    entries = RULE.open(context, node)
    if entries is None:
        return None
    when_text = (
        ", ".join(str(item) for item in _as_list(entries["when"][1].data())) if "when" in entries else ""
    )
    event_types = RULE.take(context, entries, "when") or ()
    enabled = RULE.take(context, entries, "enabled") is not False
    inner = context.within(event_types=event_types, needs_settings=enabled)
    conditions = (*(RULE.take(inner, entries, "where") or ()), *(RULE.take(inner, entries, "if") or ()))
    _warn_about_contradictions(inner, node, conditions)
    inner = inner.within(present=proven_by_all(conditions))
    do = RULE.take(inner, entries, "do") or ()
    values = RULE.read(inner.within(do=do), entries)
    if "name" not in values:
        return None
    return Rule(
        line=node.line,
        path=node.path,
        when=frozenset(event_types),
        when_text=when_text,
        conditions=conditions,
        do=do,
        enabled=enabled,
        **values,
    )


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


def _if(context: ParseContext, node: Node, label: str) -> tuple[Condition, ...]:
    compiled = context.condition(node, label)
    return (Expression("if", compiled),) if compiled else ()


def _name(context: ParseContext, node: Node, label: str) -> str | None:
    name = context.string(node, label)
    if name is None:
        return None
    if len(name) > _MAX_NAME_LENGTH or name != name.strip() or not name.isprintable():
        limits = f"at most {_MAX_NAME_LENGTH} characters on one line, without spaces at the ends"
        context.error(node, "invalid rule name", f"write {limits}, such as `text-when-busy`")
        return None
    if name == ALERTS:
        hint = "write another name: in tests, this one refers to the file's alerts"
        context.error(node, f"`{ALERTS}` cannot be a rule name", hint)
        return None
    return name


def _warn_about_contradictions(context: ParseContext, node: Node, conditions: Sequence[Condition]) -> None:
    """Warn about conditions that no event can meet: of the rule, and of each branch of an `any`."""
    whole = [item for condition in conditions for item in condition.requirements()]
    groups = [("the rule never fires", whole)]
    for condition in conditions:
        if isinstance(condition, Group) and condition.kind == "any":
            groups += [("this branch is never true", list(part.requirements())) for part in condition.parts]
    for consequence, requirements in groups:
        for path, reason in contradictions(requirements, context.event_types):
            name = ".".join(path)
            place = node.find_key(name) or context.locate(node.get("if"), name)
            context.warning(place, f"{consequence}: no event meets the conditions on `{name}`", reason)


def warn_about_shared_idempotency_keys(context: ParseContext, rules: Mapping[str, Rule]) -> None:
    """Warn if two steps certainly share an idempotency key for an event: only the first one would run."""
    unconditional: dict[tuple[str, ...], tuple[str, Step]] = {}
    for rule in rules.values():
        if not rule.enabled:
            continue
        own: dict[tuple[str, ...], tuple[str, Step]] = {}
        for step in rule.do:
            if step.action.idempotency.updates:
                continue
            recipient = _source(step.values.get(step.action.recipient or ""))
            dedupe_value = "|".join(_source(step.values.get(name)) for name in step.action.dedupe_by)
            parts = (
                step.use,
                ", ".join(step.connections),
                recipient,
                dedupe_value,
                _source(step.idempotency_key),
            )
            keys = [(*parts, event_type) for event_type in sorted(rule.when)]
            always_fires = not rule.conditions
            tables = (own, unconditional) if always_fires else (own,)
            other = next((table[key] for table in tables for key in keys if key in table), None)
            if other:
                context.diagnostics.rule = rule.name
                use_node = context.locate(Node(step.line, 1, step.line, None, step.path), "use")
                place = context.line_of(other[1], use_node)
                text = f"rule `{other[0]}`, {place}, already runs `{step.use}` for the same event"
                hint = "an action runs once per event: set `idempotency_key` on one of the two steps"
                context.warning(use_node, text, hint)
            own.update(dict.fromkeys(keys, (rule.name, step)))
            if always_fires:
                unconditional.update({key: (rule.name, step) for key in keys if key not in unconditional})
    context.diagnostics.rule = None


def _source(value: object) -> str:
    """Return a compiled value as the file spells it, for comparisons."""
    template = getattr(value, "template", value)
    return str(getattr(template, "source", template))


RULE = Section(
    "a rule",
    hint="write `- name: ...`, `when:` and `do:`",
    keys=(
        Key(
            "name",
            ValueType(_name, STRING.schema),
            "a unique name; the dashboard, tests and `--rule` use it",
            example="text-when-busy",
            required=True,
        ),
        Key("description", STRING, "a description, shown on the dashboard"),
        Key(
            "when",
            EVENT_TYPES,
            "event types: one, a list, or a pattern such as `call.*`",
            example="[call.busy, call.failed]",
            required=True,
        ),
        Key(
            "where",
            ValueType(read_where, {"$ref": "#/$defs/where"}),
            "[conditions](#conditions) on fields; all must be true",
            example="{event.direction: outbound}",
        ),
        Key(
            "if",
            ValueType(_if, CONDITION.schema),
            "one [expression](#expressions) that must be true",
            example="event.messageCount >= 10",
        ),
        Key(
            "do",
            list_of("step", read_steps),
            "the [steps](#steps) to run",
            example="[{use: hubspot.log_call}]",
            required=True,
        ),
        Key(
            "on_success",
            list_of("step", read_on_success),
            "the [steps](#steps) to run each time a step of `do` has succeeded",
            example='[{use: slack.post, with: {text: "{{ delivery.message }}"}}]',
        ),
        Key(
            "on_failure",
            list_of("step", read_on_failure),
            "the [steps](#steps) to run when a step of `do` has failed permanently, "
            "or a text message was not delivered",
            example='[{use: hubspot.create_task, with: {subject: "{{ delivery.message }}"}}]',
        ),
        Key(
            "enabled",
            BOOLEAN,
            "`false` turns the rule off for new events; `bridge cancel --rule` stops what it has created already",
            default="true",
        ),
        Key(
            "shadow",
            BOOLEAN,
            "`true` creates the deliveries for new events but does not send them; the dashboard shows what would have "
            "been sent",
            default="false",
        ),
    ),
)
