"""The recipes of docs/http.md: their requests, sent to a server, and the script of the sheet, run by Node.js."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from bridge.testing import Reply, StubServer, connect, event, load_connector

PAGE = (Path(__file__).parents[2] / "docs" / "http.md").read_text("utf-8")
[SCRIPT] = re.findall(r"```javascript\n(.*?)```", PAGE, re.DOTALL)
RULES = {
    rule["name"]: rule
    for text in re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    for rule in yaml.safe_load(text)["rules"]
}
GOOGLE = """
const sheet = JSON.parse(process.argv[1]);
const calls = [];
const range = (row, column, rows, columns) => ({
  getValues: () => sheet.slice(row - 1, row - 1 + rows).map((cells) => cells.slice(column - 1, column - 1 + columns)),
});
const lock = { waitLock: () => calls.push("lock"), releaseLock: () => calls.push("release") };
const LockService = { getScriptLock: () => lock };
const SpreadsheetApp = {
  flush: () => calls.push("flush"),
  getActiveSpreadsheet: () => ({
    getId: () => "spreadsheet-1",
    getSheetByName: (name) => ({
      getLastColumn: () => sheet[0].length,
      getLastRow: () => sheet.length,
      getRange: range,
    }),
  }),
};
const Sheets = { Spreadsheets: { Values: { append: (body, id, at, options) => {
  calls.push({ id, at, options });
  sheet.push(...body.values);
} } } };
const ContentService = {
  MimeType: { JSON: "json" },
  createTextOutput: (text) => ({ setMimeType: () => text }),
};
"""
RUN = """
const answers = JSON.parse(process.argv[2]).map((contents) => JSON.parse(doPost({ postData: { contents } })));
console.log(JSON.stringify({ answers, sheet, calls }));
"""


def sent(rule: str) -> Any:
    """Return the request of a recipe, for a call of Maya Lindqvist."""
    [step] = RULES[rule]["do"]
    called = event(
        RULES[rule]["when"] if isinstance(RULES[rule]["when"], str) else RULES[rule]["when"][0],
        {"metadata.contactName": "Maya Lindqvist", "metadata.contactPhone": "+12125550167"},
    )
    with StubServer() as service:
        service.otherwise = Reply(200, {"ticket": {"id": "T-7"}})
        variable = f"HTTP_TARGETS_{step['with']['target'].upper()}"
        with connect(load_connector("http"), {variable: f"{service.url}/hook"}) as http:
            result = http.run("request", step["with"], event=called)
    return service.requests[0].json, result, called


def test_recipe_for_zapier_sends_named_fields_and_the_id() -> None:
    body, result, _ = sent("missed-calls-to-zapier")
    assert (body["name"], body["phone"]) == ("Maya Lindqvist", "+12125550167")
    assert body["request_id"] == result.id


def test_recipes_for_make_and_n8n_send_the_whole_event() -> None:
    body, _, called = sent("resolved-chats-to-make")
    assert body == called.body
    body, result, called = sent("completed-calls-to-n8n")
    assert (body, result.id) == (called.body, "T-7")


@pytest.mark.skipif(shutil.which("node") is None, reason="Node.js is not installed")
def test_script_adds_each_request_once_and_computes_nothing() -> None:
    body, result, _ = sent("calls-into-a-sheet")
    formula = body | {"id": "msg_2", "name": '=IMPORTXML("https://x.example")', "phone": None, "other": "x"}
    sheet = [["id", "when", "name", "phone", "summary"]]
    requests = [json.dumps(row) for row in (body, formula, body, {"name": "without an ID"})]
    arguments = [json.dumps(sheet), json.dumps(requests)]
    run = subprocess.run(
        ["node", "-e", GOOGLE + SCRIPT + RUN, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    outcome = json.loads(run.stdout)
    assert [answer["ok"] for answer in outcome["answers"]] == [True, True, True, False]
    assert outcome["sheet"][1:] == [
        [result.id, body["when"], "Maya Lindqvist", "+12125550167", body["summary"]],
        ["msg_2", body["when"], '=IMPORTXML("https://x.example")', "", body["summary"]],
    ]
    appended = [call for call in outcome["calls"] if isinstance(call, dict)]
    assert [call["options"]["valueInputOption"] for call in appended] == ["RAW", "RAW"]
    assert outcome["calls"].count("lock") == outcome["calls"].count("release") == 4
