"""Code samples of the API description: made from the route where JSON goes in and out, written out where not."""

from __future__ import annotations

import json
from typing import Any

BASE_URL = "http://localhost:8000"

Samples = dict[str, str]  # source by language


def request(method: str, path: str, body: Any, *, token: bool) -> Samples:
    """The same request in curl, Python, JavaScript and Go."""
    url = BASE_URL + path
    return {
        "curl": _curl(method, url, body, token),
        "Python": _python(method, url, body, token),
        "JavaScript": _javascript(method, url, body, token),
        "Go": _go(method, url, body, token),
    }


def _curl(method: str, url: str, body: Any, token: bool) -> str:
    lines = [f"curl -X {method} {url}"]
    if token:
        lines.append('-H "Authorization: Bearer $ARC_TOKEN"')
    if body is not None:
        lines += ['-H "Content-Type: application/json"', f"-d '{json.dumps(body)}'"]
    return " \\\n  ".join(lines)


def _python(method: str, url: str, body: Any, token: bool) -> str:
    arguments = [f'"{url}"']
    if token:
        arguments.append('headers={"Authorization": f"Bearer {token}"}')
    if body is not None:
        arguments.append(f"json={body!r}")
    call = ",\n    ".join(arguments)
    return f"import requests\n\nresponse = requests.{method.lower()}(\n    {call},\n)\nprint(response.text)"


def _javascript(method: str, url: str, body: Any, token: bool) -> str:
    headers = ["Authorization: `Bearer ${token}`"] if token else []
    options = [f'method: "{method}"']
    if body is not None:
        headers.append('"Content-Type": "application/json"')
    if headers:
        options.append(f"headers: {{ {', '.join(headers)} }}")
    if body is not None:
        options.append(f"body: JSON.stringify({json.dumps(body)})")
    return (
        f'const response = await fetch("{url}", {{\n  ' + ",\n  ".join(options) + ",\n});\n"
        "console.log(await response.text());"
    )


def _go(method: str, url: str, body: Any, token: bool) -> str:
    reader = "nil" if body is None else f"strings.NewReader(`{json.dumps(body)}`)"
    check = ["if err != nil {", "    return err", "}"]
    lines = [f'request, err := http.NewRequest("{method}", "{url}", {reader})', *check]
    if token:
        lines.append('request.Header.Set("Authorization", "Bearer "+token)')
    if body is not None:
        lines.append('request.Header.Set("Content-Type", "application/json")')
    lines += ["response, err := http.DefaultClient.Do(request)", *check]
    lines += ["defer response.Body.Close()", "answer, err := io.ReadAll(response.Body)"]
    return "\n".join(lines)


WRITE_MSGPACK: Samples = {
    "curl": """\
# MessagePack is binary, so make the body with any packer:
python3 -c 'import msgpack, sys; sys.stdout.buffer.write(msgpack.packb(
    {"m": "cpu", "columns": {"time": [1760875200000], "host": ["server01"], "usage": [45.2]}}))' |
curl -X POST http://localhost:8000/write/v2/msgpack \\
  -H "Authorization: Bearer $ARC_TOKEN" \\
  -H "Content-Type: application/msgpack" \\
  --data-binary @-""",
    "Python": """\
import time

import msgpack
import requests

rows = {"batch": [{"m": "cpu", "t": int(time.time() * 1000), "h": "server01", "fields": {"usage": 45.2}}]}
response = requests.post(
    "http://localhost:8000/write/v2/msgpack",
    headers={"Authorization": f"Bearer {token}", "Content-Type": "application/msgpack"},
    data=msgpack.packb(rows),
)
response.raise_for_status()  # 204: the rows are on disk and can be queried""",
    "JavaScript": """\
import { encode } from "@msgpack/msgpack";

const rows = { batch: [{ m: "cpu", t: Date.now(), h: "server01", fields: { usage: 45.2 } }] };
const response = await fetch("http://localhost:8000/write/v2/msgpack", {
  method: "POST",
  headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/msgpack" },
  body: encode(rows),
});
if (!response.ok) throw new Error(await response.text());""",
    "Go": """\
rows := map[string]any{"batch": []map[string]any{{
    "m": "cpu", "t": time.Now().UnixMilli(), "h": "server01", "fields": map[string]any{"usage": 45.2},
}}}
body, err := msgpack.Marshal(rows) // github.com/vmihailenco/msgpack/v5
if err != nil {
    return err
}
request, err := http.NewRequest("POST", "http://localhost:8000/write/v2/msgpack", bytes.NewReader(body))
if err != nil {
    return err
}
request.Header.Set("Authorization", "Bearer "+token)
request.Header.Set("Content-Type", "application/msgpack")
response, err := http.DefaultClient.Do(request)""",
}

WRITE_LINES: Samples = {
    "curl": """\
curl -X POST "http://localhost:8000/write?db=default&precision=s" \\
  -H "Authorization: Bearer $ARC_TOKEN" \\
  --data-binary "cpu,host=server01 usage=45.2 $(date +%s)\"""",
    "Python": """\
import time

import requests

lines = [f"cpu,host=server01 usage=45.2,cores=8i {time.time_ns()}"]
response = requests.post(
    "http://localhost:8000/write",
    params={"db": "default", "precision": "ns"},
    headers={"Authorization": f"Bearer {token}"},
    data="\\n".join(lines).encode(),
)
response.raise_for_status()  # 204: the good lines are on disk and can be queried""",
    "JavaScript": """\
const lines = [`cpu,host=server01 usage=45.2,cores=8i ${Date.now()}`];
const response = await fetch("http://localhost:8000/write?db=default&precision=ms", {
  method: "POST",
  headers: { Authorization: `Bearer ${token}` },
  body: lines.join("\\n"),
});
if (!response.ok) throw new Error(await response.text());""",
    "Go": """\
line := fmt.Sprintf("cpu,host=server01 usage=45.2,cores=8i %d\\n", time.Now().UnixNano())
request, err := http.NewRequest("POST", "http://localhost:8000/write?db=default", strings.NewReader(line))
if err != nil {
    return err
}
request.Header.Set("Authorization", "Bearer "+token)
response, err := http.DefaultClient.Do(request)""",
}

WRITE_ARROW: Samples = {
    "curl": """\
curl -X POST "http://localhost:8000/write/arrow?measurement=cpu" \\
  -H "Authorization: Bearer $ARC_TOKEN" \\
  -H "Content-Type: application/vnd.apache.arrow.stream" \\
  --data-binary @rows.arrows""",
    "Python": """\
import time

import pyarrow as pa
import requests

rows = pa.table({"time": [int(time.time() * 1000)], "host": ["server01"], "usage": [45.2]})
sink = pa.BufferOutputStream()
with pa.ipc.new_stream(sink, rows.schema) as writer:
    writer.write_table(rows)
response = requests.post(
    "http://localhost:8000/write/arrow?measurement=cpu",
    headers={"Authorization": f"Bearer {token}"},
    data=sink.getvalue().to_pybytes(),
)
response.raise_for_status()  # 204: the rows are on disk and can be queried""",
    "JavaScript": """\
import { tableFromArrays, tableToIPC } from "apache-arrow";

const rows = tableFromArrays({ time: [new Date()], host: ["server01"], usage: [45.2] });
const response = await fetch("http://localhost:8000/write/arrow?measurement=cpu", {
  method: "POST",
  headers: { Authorization: `Bearer ${token}` },
  body: tableToIPC(rows, "stream"),
});
if (!response.ok) throw new Error(await response.text());""",
    "Go": """\
var body bytes.Buffer
writer := ipc.NewWriter(&body, ipc.WithSchema(record.Schema())) // github.com/apache/arrow-go/v18/arrow/ipc
if err := writer.Write(record); err != nil {
    return err
}
if err := writer.Close(); err != nil {
    return err
}
request, err := http.NewRequest("POST", "http://localhost:8000/write/arrow?measurement=cpu", &body)
if err != nil {
    return err
}
request.Header.Set("Authorization", "Bearer "+token)
response, err := http.DefaultClient.Do(request)""",
}

QUERY_ARROW: Samples = {
    "curl": """\
curl -X POST http://localhost:8000/query/arrow \\
  -H "Authorization: Bearer $ARC_TOKEN" \\
  -H "Content-Type: application/json" \\
  -d '{"sql": "SELECT * FROM cpu LIMIT 10"}' \\
  -o result.arrows""",
    "Python": """\
import pyarrow as pa
import requests

response = requests.post(
    "http://localhost:8000/query/arrow",
    headers={"Authorization": f"Bearer {token}"},
    json={"sql": "SELECT * FROM cpu LIMIT 10"},
)
response.raise_for_status()
table = pa.ipc.open_stream(response.content).read_all()
print(table.to_pandas())""",
    "JavaScript": """\
import { tableFromIPC } from "apache-arrow";

const response = await fetch("http://localhost:8000/query/arrow", {
  method: "POST",
  headers: { Authorization: `Bearer ${token}`, "Content-Type": "application/json" },
  body: JSON.stringify({ sql: "SELECT * FROM cpu LIMIT 10" }),
});
const table = tableFromIPC(new Uint8Array(await response.arrayBuffer()));
console.table(table.toArray());""",
    "Go": """\
body := strings.NewReader(`{"sql": "SELECT * FROM cpu LIMIT 10"}`)
request, err := http.NewRequest("POST", "http://localhost:8000/query/arrow", body)
if err != nil {
    return err
}
request.Header.Set("Authorization", "Bearer "+token)
request.Header.Set("Content-Type", "application/json")
response, err := http.DefaultClient.Do(request)
if err != nil {
    return err
}
defer response.Body.Close()
reader, err := ipc.NewReader(response.Body) // github.com/apache/arrow-go/v18/arrow/ipc
for err == nil && reader.Next() {
    fmt.Println(reader.Record())
}""",
}
